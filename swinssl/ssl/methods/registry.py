"""The methods by name: a new one is a file beside these, and a line here."""

from __future__ import annotations

from swinssl.ssl.method import Method
from swinssl.ssl.methods.contrastive import Contrastive
from swinssl.ssl.methods.dino import Dino
from swinssl.ssl.methods.ibot import Ibot
from swinssl.ssl.methods.inpainting import Inpainting
from swinssl.ssl.methods.reconstruction import Reconstruction
from swinssl.ssl.methods.rotation import Rotation
from swinssl.ssl.methods.simmim import SimMIM
from swinssl.ssl.methods.smit import Smit
from swinssl.ssl.methods.swinunetr import SwinUnetr

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (SimMIM, Inpainting, Reconstruction, Contrastive, Rotation, Dino, Ibot, Smit, SwinUnetr)
}
