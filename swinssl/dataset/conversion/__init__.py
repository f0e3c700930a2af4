"""Data sets of other forms made into raw data sets: one module per form, and one that writes."""
