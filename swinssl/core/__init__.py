"""What every floor stands on: errors, files, text, keyed randomness, the machine and its processes."""
