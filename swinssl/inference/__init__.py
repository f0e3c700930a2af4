"""Sliding window, predictor and export to the source geometry."""
