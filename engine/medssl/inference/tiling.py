"""Stages of an encoder over maps of any size, in tiles that give the one-pass result.

A tile of a stage is computed from its cells plus the stage's receptive radius. Where the map ends, the
tile ends too, so the zero padding of the convolutions sees the same border as in one pass; inside the
map, the margin is cut off again. So every cell equals the one-pass cell, whatever the tile size.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor, nn

Box = tuple[tuple[int, int], ...]
"""Half-open range per axis."""

Source = Callable[[Box], Tensor]
"""Gives the part (1, C, *box) of an input map."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of an encoder.

    Args:
        module: (1, C, *S) -> (1, C', *S / step).
        step: input cells per output cell along each axis.
        halo: receptive radius in input cells along each axis, a multiple of ``step``.
    """

    module: nn.Module
    step: tuple[int, ...]
    halo: tuple[int, ...]


def input_box(stage: Stage, output: Box, shape: Sequence[int]) -> Box:
    """The input cells that ``output`` cells of a stage depend on, cut to the input's ``shape``."""
    return tuple(
        (max(0, low * step - halo), min(size, high * step + halo))
        for (low, high), step, halo, size in zip(output, stage.step, stage.halo, shape, strict=True)
    )


def compute(stages: Sequence[Stage], source: Source, output: Box, shape: Sequence[int]) -> Tensor:
    """A box of the last stage's output.

    Args:
        stages: applied in order; between them the margin that has served its purpose is cut off.
        source: input of the first stage.
        output: box in cells of the last stage.
        shape: size of the whole input, a multiple of the product of the steps.

    Returns:
        (1, C, *output box).
    """
    shapes = [tuple(shape)]
    for stage in stages:
        shapes.append(tuple(n // step for n, step in zip(shapes[-1], stage.step, strict=True)))
    wanted = [output]
    for stage, size in zip(reversed(stages), reversed(shapes[:-1]), strict=True):
        wanted.insert(0, input_box(stage, wanted[0], size))
    x = source(wanted[0])
    for stage, have, want in zip(stages, wanted, wanted[1:], strict=False):
        x = stage.module(x)
        # the stage's output begins where its input began: input boxes are aligned to the step
        firsts = [start // step for (start, _), step in zip(have, stage.step, strict=True)]
        x = x[part(tuple((low - n, high - n) for (low, high), n in zip(want, firsts, strict=True)))]
    return x


def tiles(shape: Sequence[int], margin: Sequence[int], limit: int) -> list[Box]:
    """Boxes that cover ``shape`` without overlap, as few and as even as ``limit`` allows.

    Args:
        shape: cells per axis.
        margin: cells that a tile needs beyond its box on each side, per axis.
        limit: most cells of a tile, margins included; boxes of one cell may exceed it.
    """
    counts = [1] * len(shape)
    while True:
        sizes = [-(-n // count) for n, count in zip(shape, counts, strict=True)]
        full = [min(n, size + 2 * extra) for n, size, extra in zip(shape, sizes, margin, strict=True)]
        total = 1
        for n in full:
            total *= n
        longest = max(range(len(shape)), key=sizes.__getitem__)
        if total <= limit or sizes[longest] == 1:
            break
        counts[longest] += 1
    ranges = [
        [(low, min(n, low + size)) for low in range(0, n, size)] for n, size in zip(shape, sizes, strict=True)
    ]
    return list(product(*ranges))


def fill(
    stages: Sequence[Stage], source: Source, shape: Sequence[int], limit: int
) -> Generator[tuple[int, int], None, Tensor]:
    """Compute a whole level tile by tile.

    Args:
        stages: from the source to the level.
        source: input of the first stage.
        shape: size of the source map, a multiple of the product of the steps.
        limit: most cells of the level per tile, margins included.

    Yields:
        (finished tiles, all tiles).

    Returns:
        The level, (1, C, *shape / steps).
    """
    steps, radius = (1,) * len(shape), (0,) * len(shape)
    for stage in stages:
        steps = tuple(a * b for a, b in zip(steps, stage.step, strict=True))
    for stage in reversed(stages):
        radius = tuple(r * s + h for r, s, h in zip(radius, stage.step, stage.halo, strict=True))
    level = tuple(n // step for n, step in zip(shape, steps, strict=True))
    boxes = tiles(level, [-(-r // step) for r, step in zip(radius, steps, strict=True)], limit)
    result: Tensor | None = None
    for number, box in enumerate(boxes, start=1):
        tile = compute(stages, source, box, shape)
        if len(boxes) == 1:
            result = tile
        else:
            if result is None:
                result = tile.new_empty((1, tile.shape[1], *level))
            result[part(box)] = tile
        yield number, len(boxes)
    if result is None:
        raise ValueError(f"a map of shape {tuple(shape)} has no cell")
    return result


def part(box: Box) -> tuple[slice, ...]:
    """The index of a box in a map (1, C, *S)."""
    return (slice(None), slice(None), *(slice(low, high) for low, high in box))
