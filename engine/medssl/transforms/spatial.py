"""Flips and 90-degree rotations, drawn per sample and undone exactly on images and on feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.transforms.draws import chance


@dataclass(frozen=True)
class Orthogonal:
    """Per sample a permutation of the spatial axes, then a reversal of some: y = flip(permute(x)).

    Args:
        permutation: (B, n) int64; axis d of the result is axis ``permutation[:, d]`` of the input.
        flip: (B, n) bool, axes of the result that are reversed.
    """

    permutation: Tensor
    flip: Tensor

    def __post_init__(self) -> None:
        if self.permutation.shape != self.flip.shape or self.permutation.ndim != 2:
            raise ValueError(
                f"permutation and flip must both be (B, n), got {self.permutation.shape}, {self.flip.shape}"
            )


def draw_orthogonal(
    batch: int,
    spatial_dims: int,
    generator: torch.Generator,
    *,
    rotate: bool = True,
    mirror: bool = True,
    p: float = 1.0,
) -> Orthogonal:
    """One uniformly drawn symmetry of the square (8) or the cube (48) per sample.

    Args:
        batch: B.
        spatial_dims: n.
        generator: source of all randomness.
        rotate: swap axes; needs axes of one length when applied.
        mirror: allow mirror images; without it rotations only (4 or 24; nothing left unless ``rotate``).
        p: probability that a sample is moved at all.
    """
    shape = (batch, spatial_dims)
    order = torch.rand(shape, generator=generator, device=generator.device).argsort(dim=1)
    flip = chance(generator, shape, 0.5)
    moved = chance(generator, (batch, 1), p)
    still = torch.arange(spatial_dims, device=order.device).expand(shape)
    permutation = order if rotate else still
    if not mirror:
        # A rotation has determinant +1: an odd permutation needs an odd number of flips, an even one an even.
        later, earlier = torch.triu_indices(spatial_dims, spatial_dims, offset=1, device=order.device).flip(0)
        odd = (permutation[:, earlier] > permutation[:, later]).sum(dim=1) % 2
        wrong = flip.sum(dim=1) % 2 != odd
        flip = torch.cat([flip[:, :1] ^ wrong[:, None], flip[:, 1:]], dim=1) if rotate else flip & False
    return Orthogonal(torch.where(moved, permutation, still), flip & moved)


def apply(x: Tensor, ops: Orthogonal) -> Tensor:
    """Move each sample by its operation.

    Args:
        x: (B, C, *S); image, label or feature map of any stride.
        ops: for B samples; axes it swaps must have one length.

    Returns:
        (B, C, *S).

    Raises:
        ValueError: if axes of different length would be swapped, or the batches differ.
    """
    return torch.stack(
        [
            sample.permute(0, *(1 + d for d in axes)).flip(flips)
            for sample, axes, flips in _each(x, ops, ops.permutation)
        ]
    )


def undo(features: Tensor, ops: Orthogonal) -> Tensor:
    """Move each sample back: ``undo(apply(x, ops), ops) == x``.

    On a feature map whose cells tile the image (crop size a multiple of the stride), cell i of the result
    covers the same voxels as cell i of the unmoved image.

    Args:
        features: (B, C, *F).
        ops: as given to `apply`.

    Returns:
        (B, C, *F).
    """
    return torch.stack(
        [
            sample.flip(flips).permute(0, *(1 + d for d in axes))
            for sample, axes, flips in _each(features, ops, ops.permutation.argsort(dim=1))
        ]
    )


def _each(x: Tensor, ops: Orthogonal, permutation: Tensor) -> list[tuple[Tensor, list[int], list[int]]]:
    """Sample, axes to permute and dimensions of the sample to flip, one entry per sample."""
    if ops.permutation.shape != (len(x), x.ndim - 2):
        raise ValueError(
            f"operations are for {tuple(ops.permutation.shape)} (B, n), the input is {tuple(x.shape)}"
        )
    orders = permutation.tolist()
    flips = [[1 + d for d, flipped in enumerate(row) if flipped] for row in ops.flip.tolist()]
    space = x.shape[2:]
    if any(space[axis] != space[d] for order in orders for d, axis in enumerate(order)):
        raise ValueError(f"cannot swap axes of different length {tuple(space)}; draw with rotate=False")
    return list(zip(x.unbind(), orders, flips, strict=True))
