"""Fingerprint, plan, then crop, normalise, resample and store."""
