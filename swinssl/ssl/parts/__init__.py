"""What several methods share: masking, heads, losses, teacher, crops."""
