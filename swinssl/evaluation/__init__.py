"""Metrics per case, confidence intervals, figures and reports."""
