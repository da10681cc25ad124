from __future__ import annotations

import pytest
import torch

from medssl.nets.heads import ProjectionHead, Prototypes


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_maps_are_projected_cell_by_cell(spatial_dims):
    head = ProjectionHead(6, 12, 4).eval()
    bank = Prototypes(4, 7)
    x = torch.rand(2, 6, *(3, 4, 5)[:spatial_dims])
    z = head(x)
    cell = (1, 2, 3)[:spatial_dims]
    torch.testing.assert_close(
        z[(slice(None), slice(None), *cell)], head(x[(slice(None), slice(None), *cell)])
    )
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2, *x.shape[2:]))
    scores = bank(z)
    assert scores.shape == (2, 7, *x.shape[2:])
    torch.testing.assert_close(
        scores[(slice(None), slice(None), *cell)], bank(z[(slice(None), slice(None), *cell)])
    )


def test_prototypes_return_to_unit_length():
    bank = Prototypes(5, 3)
    with torch.no_grad():
        bank.weight.mul_(torch.tensor([[2.0], [0.5], [9.0]]))
    before = bank.weight.detach().clone()
    bank.normalize_()
    torch.testing.assert_close(bank.weight.norm(dim=1), torch.ones(3))
    cosine = torch.nn.functional.cosine_similarity(before, bank.weight)
    torch.testing.assert_close(cosine, torch.ones(3))


def test_without_norm_or_unit_length():
    x = torch.rand(5, 6)
    plain = ProjectionHead(6, 12, 4, norm=False)
    assert [key for key in plain.state_dict() if "norm" in key] == []
    expected = plain.second(torch.relu(plain.first(x)))
    torch.testing.assert_close(plain(x), torch.nn.functional.normalize(expected, dim=1))
    plain.unit = False
    torch.testing.assert_close(plain(x), expected)
