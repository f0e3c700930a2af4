"""Encoders that come with the package, by name: `--init tiny_smit_headneck_ct`.

Each has a model card beside it, and the description of the run that it is from. `encoder_path` is the one reading of
what a user gives as an encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swinssl.core import files
from swinssl.core.errors import UserError
from swinssl.core.text import near_names

FOLDER = Path(__file__).with_name("shipped")
# What the folder of a pretraining run calls its encoder.
ENCODER_FILE = "encoder.safetensors"
# As `--init`: no encoder.
SCRATCH = "scratch"
ENCODER_ENDINGS = (".safetensors", ".pt", ".pth", ".pth.tar", ".ckpt")


@dataclass(frozen=True)
class ShippedEncoder:
    """What a file cannot say of itself.

    Args:
        modality: of the images it was pretrained on, as a channel is named.
        body_part: that they show, in words.
        images: those images, in words.
        licence: of the images.
    """

    modality: str
    body_part: str
    images: str
    licence: str

    @property
    def trained_on(self) -> str:
        """As in "head-and-neck CT"."""
        return f"{self.body_part} {self.modality}"


SHIPPED = {
    "tiny_smit_headneck_ct": ShippedEncoder(
        modality="CT", body_part="head-and-neck", images="170 planning CTs of OpenKBP", licence="MIT"
    ),
}


def shipped_names() -> tuple[str, ...]:
    """Names of the encoders in the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def shipped_suggestions(modality: str, *, command: str) -> tuple[str, ...]:
    """By shipped encoder for images of this modality, a line that names it and how to use it.

    Only the modality is known for certain, so the body part is said for the user to judge.

    Args:
        command: that plans, without `--init`.
    """
    return tuple(
        f"{name} comes with swinssl, pretrained on {SHIPPED[name].trained_on}. To start from it: "
        f"{command} --init {name}"
        for name in shipped_names()
        if name in SHIPPED and SHIPPED[name].modality == modality
    )


def encoder_path(init: str | Path) -> Path:
    """The file of an encoder that a user gave as a path or as a name; a file takes precedence over a name.

    Raises:
        UserError: there is no such file and no such name, or it is a folder.
    """
    path = Path(init)
    if path.is_dir():
        inside = path / ENCODER_FILE
        hint = f"Give {inside}." if inside.is_file() else "Give the path of an encoder file, or a shipped name."
        raise UserError(f"{init}: a folder; expected an encoder file. {hint}")
    if not files.is_missing(path):
        try:
            files.open_regular(path).close()
        except OSError as error:
            raise UserError(f"{init}: cannot be read ({error.strerror}). Give the path of an encoder file.") from None
        return path
    if str(init) in shipped_names():
        return FOLDER / f"{init}.safetensors"
    raise UserError(
        f"{init}: no such file, and no encoder of this name comes with swinssl.{_did_you_mean(path)} "
        "Give the path of an encoder file, or a name that swinssl_weights list shows."
    )


def typed_as(path: Path) -> str:
    """What names an encoder file on the command line wherever that is typed: its shipped name, or its absolute path."""
    path = Path(path)
    shipped = path.stem in shipped_names() and path.resolve().parent == FOLDER.resolve()
    return path.stem if shipped else str(path.absolute())


def _did_you_mean(path: Path) -> str:
    """The shipped names and the encoder files beside `path` that are spelled most alike; else the shipped names."""
    near = near_names(path.name.removesuffix(".safetensors"), shipped_names(), most=3, cutoff=0.5)
    if path.parent.is_dir():
        beside = [other.name for other in path.parent.iterdir() if other.name.endswith(ENCODER_ENDINGS)]
        near += [str(path.with_name(name)) for name in near_names(path.name, beside, most=3)]
    if near:
        return f" Did you mean {' or '.join(near)}?"
    return f" Those that come with it: {', '.join(shipped_names())}." if shipped_names() else ""
