"""Two encoders block by block: CKA and attention."""
