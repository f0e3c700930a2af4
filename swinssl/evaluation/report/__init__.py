"""What a person reads: figures, pictures of cases, the HTML page."""
