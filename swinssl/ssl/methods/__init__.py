"""The nine self-supervised methods and their registry."""
