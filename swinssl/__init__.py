"""swinssl: self-configuring 3D medical image segmentation with self-supervised Swin encoders."""

__version__ = "0.1.0"
