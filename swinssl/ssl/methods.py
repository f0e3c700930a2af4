"""The methods by name: a new one is a file beside these, and a line here."""

from __future__ import annotations

from swinssl.ssl.contrastive import Contrastive
from swinssl.ssl.dino import Dino
from swinssl.ssl.ibot import Ibot
from swinssl.ssl.inpainting import Inpainting
from swinssl.ssl.method import Method
from swinssl.ssl.reconstruction import Reconstruction
from swinssl.ssl.rotation import Rotation
from swinssl.ssl.simmim import SimMIM
from swinssl.ssl.smit import Smit
from swinssl.ssl.swinunetr import SwinUnetr

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (SimMIM, Inpainting, Reconstruction, Contrastive, Rotation, Dino, Ibot, Smit, SwinUnetr)
}
