"""The 3D Swin encoder: tokens, windows, blocks, low-rank adaptation."""
