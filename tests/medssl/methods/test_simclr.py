from __future__ import annotations

import math

import pytest
import torch

from medssl.losses.contrastive import nt_xent

TINY = {"views": {"size": 32}, "hidden": 16, "dim": 8}


def drawn(method, batch):
    return method.views(batch, torch.Generator().manual_seed(0))


def test_the_loss_is_nt_xent_of_pooled_and_projected_views(build_tiny, blobs, spatial_dims):
    method = build_tiny("simclr", spatial_dims, temperature=0.3, **TINY).eval()
    views = drawn(method, blobs(spatial_dims))
    za, zb = (method.head(method.backbone(x)[-1].flatten(2).mean(2)) for x in views.pair.images)
    torch.testing.assert_close(method(views, 0).total, nt_xent(za, zb, 0.3))


def test_masked_volumes_are_no_negatives(build_tiny, blobs):
    batch = blobs(2)
    plain, masked = (build_tiny("simclr", 2, mask_same_volume=mask, **TINY).eval() for mask in (False, True))
    views = drawn(plain, batch)
    za, zb = (masked.head(masked.backbone(x)[-1].flatten(2).mean(2)) for x in views.pair.images)
    allowed = ~torch.eye(4, dtype=torch.bool)
    allowed[2, 3] = allowed[3, 2] = False
    torch.testing.assert_close(masked(views, 0).total, nt_xent(za, zb, 0.1, neg_mask=allowed))
    assert masked(views, 0).total < plain(views, 0).total


def test_collapse_is_visible(build_tiny, blobs):
    method = build_tiny("simclr", 2, **TINY).eval()
    with torch.no_grad():
        method.head.second.weight.zero_()
    losses = method(drawn(method, blobs(2)), 0)
    assert losses.total.item() == pytest.approx(math.log(7), abs=1e-5)
    assert losses.metrics["feature_spread"] < 1e-6
    assert losses.metrics["match_accuracy"] == 0.25
