"""Runs put together: a fold trained and judged, and later whole matrices of runs."""
