"""Versions of swinssl and of what it stands on, and what it asks for."""

from __future__ import annotations

import re
from importlib import metadata

from swinssl.core import provenance
from swinssl.core.provenance import __version__
from swinssl.diagnosis.facts import Facts

MISSING = "missing"
# The module whose import shows that a library works, where it has another name or its heart lies deeper.
MODULES = {
    "scikit-image": "skimage.transform",
    "scipy": "scipy.ndimage",
    "batchgenerators": "batchgenerators.transforms.spatial_transforms",
    "dynamic-network-architectures": "dynamic_network_architectures.architectures.unet",
    "matplotlib": "matplotlib.figure",
    "safetensors": "safetensors.torch",
    "acvl-utils": "acvl_utils.cropping_and_padding.bounding_boxes",
}
# Of use where they are: faster reading of .nii.gz, torch.compile. torchvision comes along with the CNN baselines.
OPTIONAL = ("isal", "triton", "torchvision")


def program_facts() -> Facts:
    """Version of swinssl and, in a checkout, its revision."""
    revision = provenance.revision()
    facts: Facts = {"version": __version__, "installed": installed("swinssl") != MISSING}
    return facts | ({"revision": revision} if revision else {})


def version_facts() -> Facts:
    """Installed version of every library, or `missing`."""
    return {name: installed(name) for name in (*requirements(), *OPTIONAL)}


def modules() -> dict[str, str]:
    """Installed library -> the module to import on trial; torch first."""
    present = [name for name, version in version_facts().items() if version != MISSING]
    present.sort(key=lambda name: name != "torch")
    return {name: MODULES.get(name, name.replace("-", "_")) for name in present}


def requirements() -> dict[str, str]:
    """Library -> lowest version that swinssl asks for."""
    return {name: lowest for name, _, lowest in map(_parsed, _requires("swinssl")) if name}


def torch_for_torchvision() -> str | None:
    """The torch version that the installed torchvision was built for; None where that is not known."""
    pinned = (
        version for name, sign, version in map(_parsed, _requires("torchvision")) if (name, sign) == ("torch", "==")
    )
    return next(pinned, None)


def installed(name: str) -> str:
    """The installed version of a library, or `missing`."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING


def numbers(version: str) -> tuple[int, ...]:
    """A version's numbers, without what follows them: 2.13.0+cpu -> 2, 13, 0."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _requires(name: str) -> list[str]:
    """Requirements of a library, without those of its extras."""
    try:
        return [line for line in metadata.requires(name) or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return []


def _parsed(requirement: str) -> tuple[str, str, str]:
    """Name, sign and version of `torch>=2.10` or `torch (==2.13.0)`; of several bounds the first."""
    found = re.match(r"\s*([\w.-]+)\s*\(?\s*(>=|==)?\s*([\d.]*)", requirement)
    return (found[1], found[2] or "", found[3]) if found else ("", "", "")
