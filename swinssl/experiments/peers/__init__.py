"""nnU-Net beside swinssl, in an environment of its own."""
