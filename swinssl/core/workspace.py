"""The folders for raw data, preprocessed data and results, and the resolution of DATASET arguments."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from swinssl.core.errors import UserError
from swinssl.core.text import did_you_mean, listed

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Windows opens devices under these names, with any ending.
RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}

# Data sets named where none answers.
KNOWN_NAMED = 5

# A file with this ending is also a raw data set: a list of volumes.
LIST_ENDING = ".txt"


@dataclass(frozen=True)
class Workspace:
    """The root folder with `raw/`, `preprocessed/` and `results/`; raw data may also be in `nnUNet_raw`."""

    root: Path

    @classmethod
    def locate(cls, root: str | os.PathLike[str] | None = None) -> Workspace:
        """The workspace of `--root`, else of the environment's SWINSSL_ROOT, else `./swinssl_data`."""
        return cls(Path(root or os.environ.get("SWINSSL_ROOT") or "swinssl_data"))

    @property
    def raw_roots(self) -> tuple[Path, ...]:
        """Folders searched for raw data sets, in order."""
        nnunet = os.environ.get("nnUNet_raw")  # noqa: SIM112 (nnU-Net's spelling)
        return (self.root / "raw", *([Path(nnunet)] if nnunet else []))

    def raw(self, dataset: str) -> Path:
        """The raw folder of a path, an id (`101`) or a name (`Dataset101_HeadNeck` or `HeadNeck`).

        A list of volumes can be given only by its path.

        Raises:
            UserError: no folder or more than one matches `dataset`.
        """
        if _is_path(dataset):
            return _absolute(dataset)
        return self._find(dataset, self.raw_roots, "raw data set")

    def preprocessed(self, dataset: str) -> Path:
        """The folder for fingerprint, plans and preprocessed cases of a data set; it may not exist yet."""
        return self.root / "preprocessed" / self.name(dataset)

    def results(self, dataset: str) -> Path:
        """The folder for the trained models of a data set; it may not exist yet."""
        return self.root / "results" / self.name(dataset)

    def name(self, dataset: str) -> str:
        """The folder name of a data set given as path, id or name, raw or preprocessed."""
        if _is_path(dataset):
            return safe_name(dataset_name(_absolute(dataset)), what=f"data set {dataset}")
        roots = (*self.raw_roots, self.root / "preprocessed", self.root / "results")
        return safe_name(self._find(dataset, roots, "data set").name, what=f"data set {dataset}")

    def _find(self, dataset: str, roots: tuple[Path, ...], what: str) -> Path:
        """The folder of that name in one of `roots`; else a folder of that name here."""
        known = {p.name: p for root in reversed(roots) if root.is_dir() for p in sorted(root.iterdir()) if p.is_dir()}
        if dataset in known:  # a full name takes precedence over the short name of another data set
            return known[dataset]
        found = [path for name, path in known.items() if _answers_to(name, dataset)]
        if len(found) == 1:
            return found[0]
        if not found and dataset not in ("", os.curdir) and Path(dataset).is_dir():
            return _absolute(dataset)
        searched = ", ".join(map(str, roots))
        if found:
            matches = ", ".join(path.name for path in found)
            raise UserError(f"{dataset}: more than one {what} has this name ({matches}). Give the full name.")
        hint = did_you_mean(dataset, known) or (f"Known: {listed(sorted(known), most=KNOWN_NAMED)}. " if known else "")
        raise UserError(
            f"{dataset}: no such {what} in {searched}. {hint}"
            "Give the path of its folder or of a list of volumes (.txt), or set the root folder with --root."
        )


def typed_dataset(dataset: str, root: Path | None = None) -> str:
    """DATASET and `--root` as arguments of a command, quoted for a shell."""
    return shlex.join([dataset, *(["--root", str(root)] if root else [])])


def command_words(command: str, preprocessed: Path) -> str:
    """A command for the data set of `<root>/preprocessed/<name>`, with `--root` if it is not the default."""
    folder = Path(os.path.abspath(preprocessed))  # noqa: PTH100
    root = folder.parent.parent
    default = Path(os.path.abspath(Workspace.locate().root))  # noqa: PTH100
    return f"{command} {typed_dataset(folder.name, None if root == default else root)}"


def is_volume_list(path: Path) -> bool:
    """Whether a raw data set is a list of volumes rather than a folder."""
    return path.suffix.lower() == LIST_ENDING and path.is_file()


def dataset_name(path: Path) -> str:
    """The name of a raw data set by its path: that of its folder, or of its list without the ending."""
    return path.stem if is_volume_list(path) else path.name


def safe_name(name: str, *, what: str) -> str:
    """`name`, if it is a valid file name on every system and stays inside its folder.

    Raises:
        UserError: it has characters other than letters, digits, `.`, `_`, `-`, is longer than 64, or is reserved.
    """
    stem = name.split(".")[0].lower()
    if not SAFE_NAME.fullmatch(name) or stem in RESERVED_NAMES or name.endswith("."):
        raise UserError(
            f"{what}: the name {name!r} cannot be used. Take 1 to 64 letters, digits, '.', '_' or '-', beginning with "
            "a letter or digit, and none of Windows' reserved names."
        )
    return name


def _is_path(dataset: str) -> bool:
    path = Path(dataset)
    listed = path.suffix.lower() == LIST_ENDING
    looks_like_path = listed or os.sep in dataset or "/" in dataset or dataset.startswith(".")
    if looks_like_path and not (path.is_dir() or is_volume_list(path)):
        what = "a file, not a folder" if path.is_file() else f"no such {'file' if listed else 'folder'}"
        raise UserError(
            f"{dataset}: {what}. Give an existing raw data set folder, a list of "
            f"volumes ({LIST_ENDING}), an id or a name."
        )
    return looks_like_path or (path / "dataset.json").is_file()


def _absolute(path: str) -> Path:
    """The absolute path without resolving links, so that a linked data set keeps the link's name."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _answers_to(name: str, dataset: str) -> bool:
    match = re.fullmatch(r"Dataset(\d+)_(.+)", name)
    if match is None:
        return False
    return (dataset.isdigit() and int(dataset) == int(match[1])) or dataset == match[2]
