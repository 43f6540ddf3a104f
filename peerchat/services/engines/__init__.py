"""What computes answers."""
