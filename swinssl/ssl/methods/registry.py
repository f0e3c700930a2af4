"""The pretraining methods by name. A method's file is imported when the method is used, so that help starts fast.

This module imports the standard library alone: `swinssl --help` reads it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swinssl.ssl.method import Method


@dataclass(frozen=True)
class MethodEntry:
    """One row of the registry.

    Args:
        target: `module:Class` of the `Method`.
        summary: one line for help texts and the list of methods.
    """

    target: str
    summary: str


_HERE = "swinssl.ssl.methods"

METHODS: dict[str, MethodEntry] = {
    "simmim": MethodEntry(f"{_HERE}.simmim:SimMIM", "Reconstruct the voxels of randomly masked patches."),
    "inpainting": MethodEntry(f"{_HERE}.inpainting:Inpainting", "Reconstruct an image whose boxes were cut out."),
    "reconstruction": MethodEntry(f"{_HERE}.reconstruction:Reconstruction", "Auto-encode the unchanged image."),
    "contrastive": MethodEntry(f"{_HERE}.contrastive:Contrastive", "Match two crops of the same region (SimCLR)."),
    "rotation": MethodEntry(f"{_HERE}.rotation:Rotation", "Classify a rotation by 0, 90, 180 or 270 degrees."),
    "dino": MethodEntry(f"{_HERE}.dino:Dino", "Self-distil the whole image between two views."),
    "ibot": MethodEntry(f"{_HERE}.ibot:Ibot", "Self-distil the whole image and masked patches."),
    "smit": MethodEntry(f"{_HERE}.smit:Smit", "Reconstruct masked patches and self-distil as ibot does."),
    "swinunetr": MethodEntry(f"{_HERE}.swinunetr:SwinUnetr", "Rotation, inpainting and contrast together."),
}


def load_method(name: str) -> type[Method]:
    """The class of a method; its `name` and `summary` are those of its row.

    Raises:
        UserError: no method has this name.
    """
    entry = METHODS.get(name)
    if entry is None:
        from swinssl.core.errors import UserError
        from swinssl.core.text import did_you_mean

        raise UserError(f"no such method: {name}. {did_you_mean(name, METHODS)}Choose one of {', '.join(METHODS)}.")
    module, _, attribute = entry.target.partition(":")
    method: type[Method] = getattr(importlib.import_module(module), attribute)
    method.name, method.summary = name, entry.summary
    return method
