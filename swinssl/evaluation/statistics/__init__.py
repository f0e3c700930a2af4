"""Bootstrap, paired and unpaired tests, rankings."""
