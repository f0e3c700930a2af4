"""Encoders that come with the package, by name: `--init tiny_smit_headneck_ct`.

Each has a model card beside it, and the description of the run that it is from.
"""

from __future__ import annotations

from pathlib import Path

from swinssl.errors import UserError

FOLDER = Path(__file__).with_name("shipped")


def shipped_names() -> tuple[str, ...]:
    """Names of the encoders in the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def encoder_path(init: str | Path) -> Path:
    """The file of an encoder that a user gave as path or as name; a file of that name stands above the package's.

    Raises:
        UserError: there is no such file and no such name.
    """
    path = Path(init)
    if path.exists():
        return path
    if str(init) in shipped_names():
        return FOLDER / f"{init}.safetensors"
    raise UserError(
        f"{init}: no such file, and no encoder of this name comes with swinssl "
        f"({', '.join(shipped_names()) or 'there is none'}). Give the path of an encoder file."
    )
