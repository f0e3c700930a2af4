"""Nine pretext tasks that teach the encoder without labels: one file a method, and the parts that they share."""
