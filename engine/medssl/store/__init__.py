"""What is on disk: the source of truth."""
