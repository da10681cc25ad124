"""Losses: tensors in, a scalar to minimise out."""
