"""A comparison as one HTML file that needs nothing else: tables, figures, and a viewer of the cases in it."""
