"""From a fingerprint to plans: one file per decision, each with its reason in words."""
