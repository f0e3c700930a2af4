"""Random changes of a patch, each drawn once and keyed."""
