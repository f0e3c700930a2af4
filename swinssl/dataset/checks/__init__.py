"""What can be wrong with a raw data set, each finding with its code and remedy."""
