"""Foundations of all packages: errors, files, text, keyed random numbers, the machine and its processes."""
