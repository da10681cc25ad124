"""Features around one place, for a search from a volume that nobody has embedded yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssl.inference.embed import describe_steps
from medssl.inference.load import LoadedEncoder
from medssl.inference.tiling import Box
from medssl.jobs.progress import Steps
from medssl.volume import Volume
from medssl.volume.working_grid import working_geometry

CONTEXT_VOX = 48
"""Voxels of the working grid on each side: beyond them a cell hardly changes, and it takes a second."""


def patch_steps(
    volume: Volume,
    encoder: LoadedEncoder,
    first: Sequence[int],
    last: Sequence[int],
    context_vox: int = CONTEXT_VOX,
) -> Steps[Volume]:
    """Dense features of a box and its surroundings.

    Args:
        volume: the scan.
        encoder: from `load_encoder`.
        first: lowest voxel of the box, array order.
        last: highest voxel of the box; equal to ``first`` for a click.
        context_vox: least distance in working-grid voxels from the box to the edge of the patch,
            where the volume goes on.

    Returns:
        (64, *S') float16 on the cells of the patch; these cells are cells of the whole volume's map.
    """
    region = region_around(volume, encoder, first, last, context_vox)
    found = yield from describe_steps(volume, encoder, region=region, with_prototypes=False)
    return found.features


def region_around(
    volume: Volume, encoder: LoadedEncoder, first: Sequence[int], last: Sequence[int], context_vox: int
) -> Box:
    """The box with its context in working-grid voxels, aligned to the coarsest stride, inside the grid."""
    grid = working_geometry(volume.geometry, encoder.spacing_range)
    low, high = (
        np.rint(grid.to_index(volume.geometry.to_world(v))).astype(int).tolist() for v in (first, last)
    )
    return tuple(
        (max(0, a - context_vox) // step * step, min(n, -(-(b + context_vox + 1) // step) * step))
        for a, b, n, step in zip(low, high, grid.shape, encoder.levels[-1].stride, strict=True)
    )
