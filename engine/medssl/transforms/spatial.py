"""Flips and 90-degree rotations, drawn per sample and undone exactly on images and on feature maps."""

from __future__ import annotations

from collections.abc import Sequence
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
    axes: Sequence[int] | None = None,
    p: float = 1.0,
) -> Orthogonal:
    """One uniformly drawn symmetry of the square (8) or the cube (48) per sample.

    Args:
        batch: B.
        spatial_dims: n.
        generator: source of all randomness.
        rotate: swap axes; needs axes of one length when applied.
        mirror: allow mirror images; without it rotations only (4 or 24; nothing left unless ``rotate``).
        axes: those that may be reversed; None for all. Not with ``rotate``.
        p: probability that a sample is moved at all.

    Raises:
        ValueError: an axis that is not there.
    """
    shape = (batch, spatial_dims)
    order = torch.rand(shape, generator=generator, device=generator.device).argsort(dim=1)
    flip = chance(generator, shape, 0.5)
    moved = chance(generator, (batch, 1), p)
    if axes is not None:
        if not all(-spatial_dims <= axis < spatial_dims for axis in axes):
            raise ValueError(f"mirror_axes {tuple(axes)}: the image has {spatial_dims} axes")
        allowed = torch.zeros(spatial_dims, dtype=torch.bool, device=flip.device)
        allowed[list(axes)] = True
        flip = flip & allowed
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
    """Move each sample by its operation, all in one gather.

    Args:
        x: (B, C, *S); image, label or feature map of any stride.
        ops: for B samples; axes it swaps must have one length.

    Returns:
        (B, C, *S).

    Raises:
        ValueError: if axes of different length would be swapped, or the batches differ.
    """
    permutation, flip = ops.permutation.to(x.device), ops.flip.to(x.device)
    space, n = x.shape[2:], x.ndim - 2
    if permutation.shape != (len(x), n):
        raise ValueError(
            f"operations are for {tuple(permutation.shape)} (B, n), the input is {tuple(x.shape)}"
        )
    sizes = torch.tensor(space, device=x.device)
    if len(set(space)) > 1 and bool((sizes[permutation] != sizes).any()):
        raise ValueError(f"cannot swap axes of different length {tuple(space)}; draw with rotate=False")
    steps = sizes.flip(0).cumprod(0).flip(0) // sizes  # voxels between neighbours along each axis of x
    source = torch.zeros((len(x), *(1,) * n), dtype=torch.int64, device=x.device)
    for axis, size in enumerate(space):
        place = torch.arange(size, device=x.device)
        place = (
            torch.where(flip[:, axis, None], size - 1 - place, place) * steps[permutation[:, axis]][:, None]
        )
        source = source + place.view(len(x), *(size if d == axis else 1 for d in range(n)))
    return x.flatten(2).gather(2, source.view(len(x), 1, -1).expand(-1, x.shape[1], -1)).view(x.shape)


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
    back = ops.permutation.argsort(dim=1)
    return apply(features, Orthogonal(back, ops.flip.gather(1, back)))
