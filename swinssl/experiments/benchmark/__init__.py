"""Pretrainings x tasks x shots x seeds from one file, each cell once, and the report."""
