"""The random corruption of Models Genesis: flip, shuffle, change contrast, paint in or out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.transforms import corruption
from medssl.transforms.draws import chance, integers, seed, seeded, uniform
from medssl.transforms.spatial import Orthogonal, apply


@dataclass(frozen=True)
class GenesisParameters:
    """What `GenesisCorruption.draw` drew, one entry per sample."""

    flips: Orthogonal
    shuffled: Tensor  # (B,) bool
    curved: Tensor  # (B,) bool
    control: Tensor  # (B, 2, 2) control points
    decreasing: Tensor  # (B,) bool
    painted_in: Tensor  # (B,) bool
    painted_out: Tensor  # (B,) bool, never both
    inner_boxes: Tensor  # (B, 5, 2, n)
    kept_windows: Tensor  # (B, 5, 2, n)
    voxel_seed: int  # of noise and shuffling, which are drawn on the image's device


@dataclass(frozen=True)
class GenesisCorruption:
    """Random pair (corrupted, original): the original is only flipped, the corruption is to be undone.

    Args:
        flip_p: probability to go on flipping a random axis, up to 3 times.
        shuffle_p: probability of local shuffling.
        windows: number of its windows.
        curve_p: probability of a Bezier contrast change.
        decreasing_p: share of inverted curves.
        paint_p: probability of painting.
        inner_p: share of in-painting; out-painting otherwise.
        published_flips: flip as the published code does. It draws the axis among (channel, x, y), so one
            draw in three does nothing and z, the first axis of a volume, is never flipped.

    Reference: Zhou et al., "Models Genesis", Medical Image Analysis 2021, section 3.2; probabilities from the
    published configuration.
    """

    flip_p: float = 0.4
    shuffle_p: float = 0.5
    windows: int = 10_000
    curve_p: float = 0.9
    decreasing_p: float = 0.5
    paint_p: float = 0.9
    inner_p: float = 0.2
    published_flips: bool = False

    def draw(self, batch: int, shape: tuple[int, ...], generator: torch.Generator) -> GenesisParameters:
        """All randomness of one batch; ``shape`` (n,) is that of the images."""
        n = len(shape)
        goes_on = chance(generator, (batch, 3), self.flip_p).long().cumprod(dim=1)
        among = 3 if self.published_flips else n
        axis = torch.nn.functional.one_hot(integers(generator, (batch, 3), among), among)  # (B, 3, among)
        flip = (axis * goes_on[..., None]).sum(dim=1) % 2 == 1
        if self.published_flips:  # the first of the three is the channel
            flip = torch.cat([flip.new_zeros(batch, n - 2), flip[:, 1:]], dim=1)
        still = torch.arange(n, device=generator.device).expand(batch, n)
        painted = chance(generator, (batch,), self.paint_p)
        inner = chance(generator, (batch,), self.inner_p)
        return GenesisParameters(
            flips=Orthogonal(still, flip),
            shuffled=chance(generator, (batch,), self.shuffle_p),
            curved=chance(generator, (batch,), self.curve_p),
            control=uniform(generator, (batch, 2, 2)),
            decreasing=chance(generator, (batch,), self.decreasing_p),
            painted_in=painted & inner,
            painted_out=painted & ~inner,
            inner_boxes=corruption.draw_inner_boxes(batch, shape, generator),
            kept_windows=corruption.draw_kept_windows(batch, shape, generator),
            voxel_seed=seed(generator),
        )

    def apply(self, x: Tensor, parameters: GenesisParameters) -> tuple[Tensor, Tensor]:
        """Corrupt with given parameters, (B, C, *S) in [0, 1] -> (corrupted, target), both alike."""
        p = parameters
        shape = tuple(x.shape[2:])
        voxels = seeded(p.voxel_seed, x.device)
        target = apply(x, p.flips)
        y = target.clone()
        rows = _rows(p.shuffled, x)
        if len(rows):
            sources = corruption.shuffle_sources(shape, voxels, self.windows, batch=len(rows))
            y[rows] = corruption.local_shuffle(y[rows], sources)
        rows = _rows(p.curved, x)
        if len(rows):
            control = p.control.to(x)[rows]
            down = p.decreasing.to(x.device)[rows]
            y[rows] = corruption.bezier_intensity(y[rows], control[:, 0], control[:, 1], down)
        hidden = corruption.box_mask(p.inner_boxes.to(x.device), shape) & _broad(p.painted_in, x)
        outside = ~corruption.box_mask(p.kept_windows.to(x.device), shape) & _broad(p.painted_out, x)
        noise = torch.rand(x.shape, generator=voxels, device=x.device, dtype=x.dtype)
        return torch.where(hidden | outside, noise, y), target

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`draw` and `apply`."""
        return self.apply(x, self.draw(len(x), tuple(x.shape[2:]), generator))


def _rows(active: Tensor, x: Tensor) -> Tensor:
    return active.nonzero().squeeze(1).to(x.device)


def _broad(active: Tensor, x: Tensor) -> Tensor:
    return active.to(x.device).reshape(-1, *(1,) * (x.ndim - 1))
