"""Segmentation losses: the table of `--loss` and the terms that its rows add up."""
