"""Weights on disk: our encoders, published encoders, import, export and transfer."""
