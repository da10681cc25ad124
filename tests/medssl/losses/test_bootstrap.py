from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from medssl.losses.bootstrap import bootstrap_loss


def test_it_is_the_squared_distance_of_unit_vectors(reference):
    p, z = reference.features[:4], reference.features[4:8]
    expected = (normalize(p, dim=1) - normalize(z, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(bootstrap_loss(p, z), expected)
    torch.testing.assert_close(bootstrap_loss(3 * p, 0.1 * z), expected)
    assert bootstrap_loss(p, p).item() == pytest.approx(0, abs=1e-12)
    assert bootstrap_loss(p, -p).item() == pytest.approx(4, abs=1e-12)


def test_only_the_prediction_gets_a_gradient(reference):
    p, z = (reference.features[i : i + 4].clone().requires_grad_() for i in (0, 4))
    bootstrap_loss(p, z).backward()
    assert z.grad is None
    assert torch.autograd.gradcheck(lambda x: bootstrap_loss(x, z), (p,))


def test_other_shapes_are_refused(reference):
    with pytest.raises(ValueError, match=r"\(B, D\)"):
        bootstrap_loss(reference.features[:2], reference.features[:3])
