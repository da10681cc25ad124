from __future__ import annotations

import torch
from torch.nn.functional import normalize

TINY = {"views": {"size": 32}, "hidden": 16, "dim": 8}


def drawn(method, batch):
    return method.views(batch, torch.Generator().manual_seed(0))


def projected(modules, x):
    backbone, head = modules
    return head(backbone(x)[-1].flatten(2).mean(2))


def test_both_directions_predict_the_target(build_tiny, blobs, spatial_dims):
    method = build_tiny("byol", spatial_dims, **TINY).eval()
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.mul_(1.1)
    views = drawn(method, blobs(spatial_dims))
    expected = torch.zeros(())
    for a, b in ((0, 1), (1, 0)):
        p = method.predictor(projected((method.backbone, method.head), views.images[a]))
        z = projected(method.target.copies, views.images[b])
        expected = expected + (normalize(p, dim=1) - normalize(z, dim=1)).square().sum(1).mean()
    losses = method(views, 0)
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in method.predictor.parameters())


def test_the_momentum_rises_over_the_planned_steps(build_tiny, blobs):
    method = build_tiny("byol", 2, momentum={"start": 0.5, "end": 1.0}, **TINY).train()
    views = drawn(method, blobs(2))
    copy, original = method.target.copies[1].second.weight, method.head.second.weight

    def moved(step: int) -> float:
        with torch.no_grad():
            original.copy_(copy + 1)
        before = copy.clone()
        method(views, step)
        return float((copy - before).mean())

    assert abs(moved(3) - 0.5) < 1e-5  # without a plan it stays
    method.plan(8)
    assert abs(moved(4) - 0.25) < 1e-5
    assert abs(moved(8)) < 1e-5
    assert abs(moved(9)) < 1e-5


def test_collapse_is_visible(build_tiny, blobs):
    method = build_tiny("byol", 2, **TINY).eval()
    with torch.no_grad():
        method.head.second.weight.zero_()
    assert method(drawn(method, blobs(2)), 0).metrics["feature_spread"] < 1e-6
