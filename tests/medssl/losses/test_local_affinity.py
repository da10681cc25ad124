from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medssl.losses import local_affinity as module
from medssl.losses.local_affinity import local_affinity


def places(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    marks = [low + (torch.arange(s).double() + 0.5) / s * (high - low) for s in shape]
    return torch.stack(torch.meshgrid(*marks, indexing="ij"), dim=-1)


@pytest.fixture(params=[(3, 5), (2, 3, 4)], ids=["plane", "space"])
def maps(request) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 6, *request.param, generator=generator, dtype=torch.float64)


def test_equal_maps_at_equal_places_give_one(maps):
    where = places(maps.shape[3:]).expand(2, 3, *maps.shape[3:], maps.ndim - 3)
    affinity = local_affinity(maps, maps, where, where)
    torch.testing.assert_close(affinity.diagonal(dim1=1, dim2=2), torch.ones(2, 3).double())
    assert (affinity <= 1 + 1e-9).all()
    assert (affinity < 0.99).any()


def test_matches_the_definition(maps):
    generator = torch.Generator().manual_seed(1)
    other = torch.randn(maps.shape, generator=generator, dtype=torch.float64)
    shape, n = maps.shape[3:], maps.ndim - 3
    where_s = torch.rand(2, 3, *shape, n, generator=generator, dtype=torch.float64)
    where_t = torch.rand(2, 3, *shape, n, generator=generator, dtype=torch.float64)
    affinity = local_affinity(maps, other, where_s, where_t, gamma=4)
    for g, i, a in [(0, 0, 1), (1, 2, 0)]:
        y, z = maps[g, i].flatten(1).T, other[g, a].flatten(1).T
        means = []
        for left, right in ((where_s[g, i].reshape(-1, n), where_t[g, a].reshape(-1, n)), (y, z)):
            distance, partner = torch.cdist(left, right).min(dim=1)
            kept = distance.argsort()[:4]
            means.append(functional.cosine_similarity(y[kept], z[partner[kept]], dim=1).mean())
        torch.testing.assert_close(affinity[g, i, a], (means[0] + means[1]) / 2)


def test_crop_shifted_by_one_cell_still_matches_where_it_overlaps():
    scene = torch.randn(1, 1, 8, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    spots = places((4, 6))[None, None]
    affinity = local_affinity(scene[..., :5], scene[..., 1:], spots[..., :5, :], spots[..., 1:, :], gamma=16)
    torch.testing.assert_close(affinity, torch.ones(1, 1, 1).double())


def test_chunks_change_nothing(maps, monkeypatch):
    where = places(maps.shape[3:]).expand(2, 3, *maps.shape[3:], maps.ndim - 3)
    whole = local_affinity(maps, maps.flip(1), where, where, gamma=3)
    monkeypatch.setattr(module, "_MOST_ENTRIES", 1)
    torch.testing.assert_close(local_affinity(maps, maps.flip(1), where, where, gamma=3), whole)


def test_gradient_reaches_both_maps(maps):
    where = places(maps.shape[3:]).expand(2, 3, *maps.shape[3:], maps.ndim - 3)
    s, t = maps.clone().requires_grad_(), maps.flip(0).clone().requires_grad_()
    local_affinity(s, t, where, where).sum().backward()
    for leaf in (s, t):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert (leaf.grad != 0).any()


def test_misfitting_places_are_refused(maps):
    with pytest.raises(ValueError, match="places"):
        local_affinity(maps, maps, torch.zeros(2, 3, 1, 2), torch.zeros(2, 3, 1, 2))
