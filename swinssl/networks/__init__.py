"""Swin encoder, segmentor, size presets and weight transfer."""
