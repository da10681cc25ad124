"""Batched augmentations (B, C, *S) on the tensor's own device, 2D and 3D, from an explicit generator."""
