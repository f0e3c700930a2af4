"""Overlap, surface distance and lesions: arrays in, numbers out."""
