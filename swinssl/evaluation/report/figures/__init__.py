"""Figures of comparisons of models: one file a figure, from score tables and what was compared."""
