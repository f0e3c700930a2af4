"""Cases as pictures: overlays of predictions and references."""
