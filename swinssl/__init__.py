"""swinssl: self-configuring 3D medical image segmentation with self-supervised Swin encoders."""

from swinssl.core.provenance import __version__

__all__ = ["__version__"]
