"""Which patch of which case a sample shows."""
