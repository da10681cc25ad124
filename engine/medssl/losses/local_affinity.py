"""Affinity of two images from their feature maps: cells matched by place and by appearance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_MOST_ENTRIES = 2**25  # of the cell-by-cell table that is alive at a time


def local_affinity(
    maps_s: Tensor, maps_t: Tensor, places_s: Tensor, places_t: Tensor, gamma: int = 20
) -> Tensor:
    """Mean cosine of matched cells, for every image i of view s and image a of view t.

    Every cell of i gets two partners among the cells of a: the nearest in image coordinates, and the nearest
    in feature space (L2). Of either kind the ``gamma`` closest pairs are kept; the affinity is the mean of
    their two mean cosines. It runs from s to t; for both directions add the transpose of the call with s and
    t swapped.

    Args:
        maps_s: (G, N, D, *F) feature maps of N images per graph.
        maps_t: (G, N, D, *F') feature maps of the other view.
        places_s: (G, N, *F, n) image coordinates of the cells, in fractions of each image.
        places_t: (G, N, *F', n), alike.
        gamma: matches kept of either kind; at most the number of cells is used.

    Returns:
        (G, N, N) in [-1, 1]; 1 for equal maps at equal places.

    Raises:
        ValueError: if the places do not fit the maps.

    Reference: Nguyen et al. (LVM-Med), NeurIPS 2023, section 3.2, equation 2; after VICRegL (Bardes et al.,
    NeurIPS 2022). Ours: one half of either kind, and coordinates relative to each image, since i and a may be
    different images.
    """
    for maps, places in ((maps_s, places_s), (maps_t, places_t)):
        if maps.shape[:2] + maps.shape[3:] != places.shape[:-1]:
            raise ValueError(f"places {tuple(places.shape)} do not fit maps {tuple(maps.shape)}")
    cells_s, cells_t = (m.flatten(3).mT for m in (maps_s, maps_t))  # (G, N, P, D)
    spots_s, spots_t = (p.flatten(2, -2).to(maps_s) for p in (places_s, places_t))  # (G, N, P, n)
    nodes, count = cells_s.shape[1:3]
    gamma = min(gamma, count)
    step = max(1, _MOST_ENTRIES // (nodes * nodes * count * cells_t.shape[2]))
    parts = []
    for first in range(0, len(cells_s), step):
        part = slice(first, first + step)
        cosine = _pairwise_product(
            functional.normalize(cells_s[part], dim=-1), functional.normalize(cells_t[part], dim=-1)
        )  # (g, N, N, P, P')
        with torch.no_grad():
            far = _pairwise_distance(spots_s[part], spots_t[part])
            unlike = _pairwise_distance(cells_s[part], cells_t[part])
        parts.append((_closest(cosine, far, gamma) + _closest(cosine, unlike, gamma)) / 2)
    return torch.cat(parts)


def _closest(cosine: Tensor, distance: Tensor, gamma: int) -> Tensor:
    """Mean cosine of the gamma cells whose partner is closest, (..., P, P') -> (...)."""
    nearest, partner = distance.min(dim=-1)  # (..., P)
    kept = nearest.topk(gamma, dim=-1, largest=False).indices
    matched = cosine.gather(-1, partner[..., None])[..., 0]
    return matched.gather(-1, kept).mean(dim=-1)


def _pairwise_product(s: Tensor, t: Tensor) -> Tensor:
    """(g, N, P, D) and (g, N, P', D) -> (g, N, N, P, P')."""
    return torch.einsum("gipd,gaqd->giapq", s, t)


def _pairwise_distance(s: Tensor, t: Tensor) -> Tensor:
    """Squared distances, (g, N, P, D) and (g, N, P', D) -> (g, N, N, P, P')."""
    squares_s = s.square().sum(dim=-1)[:, :, None, :, None]
    squares_t = t.square().sum(dim=-1)[:, None, :, None, :]
    return squares_s + squares_t - 2 * _pairwise_product(s, t)
