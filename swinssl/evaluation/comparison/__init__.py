"""Several models on the same test cases."""
