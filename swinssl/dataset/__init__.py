"""A raw data set on disk: description, cases, labels and regions, integrity check, splits, demo data."""
