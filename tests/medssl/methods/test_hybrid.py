from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from medssl.config.hybrid import HybridConfig
from medssl.methods.hybrid import Hybrid

SWAV = {
    "crops": {"prototypes": 8, "hidden": 16, "dim": 8},
    "global_size": 32,
    "local_count": 0,
    "freeze_prototypes_steps": 0,
}


@pytest.fixture
def make(build_tiny):
    def make(spatial_dims: int, multilabel: bool = False, **settings) -> Hybrid:
        config = HybridConfig(size=32, **settings)
        method = build_tiny("swav", spatial_dims, **SWAV)
        return Hybrid(method, config, classes=3, labels=2, multilabel=multilabel)

    return make


@pytest.fixture
def labelled(blobs):
    """Two of four samples have a class; one has a mask, a threshold of its image."""

    def make(spatial_dims: int, classes=((1, 0, 0), (-1, -1, -1), (0, 1, 1), (-1, -1, -1))):
        batch = blobs(spatial_dims)
        label = (batch.image > 0.5).long()
        label[[0, 2, 3]] = -1
        return replace(batch, label=label, targets={"class": torch.tensor(classes)})

    return make


def drawn(method, batch):
    return method.views(batch, torch.Generator().manual_seed(0))


def test_the_sum_is_the_weighted_one(make, labelled, spatial_dims):
    method = make(spatial_dims, True, class_weight=2.0, dense_weight=0.5, balance=0.3).eval()
    losses = method(drawn(method, labelled(spatial_dims)), 0)
    m = losses.metrics
    expected = 0.3 * m["method/loss"] + 2 * m["supervised/class_loss"] + 0.5 * m["supervised/dense_loss"]
    torch.testing.assert_close(losses.total.detach(), expected)
    assert m["supervised/class_loss"] > 0
    assert m["supervised/dense_loss"] > 0


def test_only_labelled_samples_count(make, labelled, spatial_dims):
    method = make(spatial_dims, class_weight=1.0).eval()
    batch = labelled(spatial_dims, ((1, 0, 0), (-1, -1, -1), (0, 0, 1), (-1, -1, -1)))
    views = drawn(method, batch)
    assert views.label is None
    logits = method.class_head(method.backbone(views.image)[-1].flatten(2).mean(2))
    expected = F.cross_entropy(logits[[0, 2]], torch.tensor([0, 2]))
    torch.testing.assert_close(method(views, 0).metrics["supervised/class_loss"], expected.detach())
    multi = make(spatial_dims, True, class_weight=1.0).eval()
    views = drawn(multi, labelled(spatial_dims))
    logits = multi.class_head(multi.backbone(views.image)[-1].flatten(2).mean(2))
    expected = F.binary_cross_entropy_with_logits(logits[[0, 2]], torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    torch.testing.assert_close(multi(views, 0).metrics["supervised/class_loss"], expected.detach())


def test_without_any_label_only_the_method_trains_the_backbone(make, labelled):
    method = make(2, class_weight=1.0, dense_weight=1.0).eval()
    batch = labelled(2, ((-1, -1, -1),) * 4)
    views = drawn(method, replace(batch, label=torch.full_like(batch.label, -1)))
    losses = method(views, 0)
    torch.testing.assert_close(losses.total, method.method(views.method, 0).total)
    losses.total.backward()
    assert method.class_head.weight.grad.abs().sum() == 0  # there, so that processes agree, but nothing


def test_supervision_reaches_the_backbone_and_not_the_prototypes(make, labelled, spatial_dims):
    method = make(spatial_dims, class_weight=1.0, dense_weight=1.0, balance=0.0).train()
    method(drawn(method, labelled(spatial_dims)), 0).total.backward()
    assert all(p.grad.abs().sum() > 0 for p in method.backbone.parameters() if p.ndim > 1)
    inside = [p.grad for p in method.method.crops.parameters()]
    assert all(g is None or g.abs().sum() == 0 for g in inside)


def test_the_mask_is_cut_with_its_image(make, labelled, spatial_dims):
    calm = {"energy_p": 0, "gamma_p": 0, "linear_p": 0, "blur_p": 0, "noise_p": 0}
    method = make(spatial_dims, dense_weight=1.0, intensity=calm)
    views = drawn(method, labelled(spatial_dims))
    assert (views.label[[0, 2, 3]] == -1).all()
    agree = (views.image[1, 0] > 0.5).long() == views.label[1]
    assert agree.float().mean() > 0.9
    assert 0.1 < views.label[1].float().mean() < 0.9


@pytest.mark.parametrize(
    ("step", "decay", "expected"),
    [(0, 0.2, 2.0), (80, 0.2, 2.0), (90, 0.2, 1.0), (100, 0.2, 0.0), (99, 0, 2.0)],
)
def test_the_balance_falls_at_the_end(make, step, decay, expected):
    method = make(2, class_weight=1.0, balance=2.0, decay=decay)
    assert method.balance(step) == 2.0  # without a plan it stays
    method.plan(100)
    assert method.balance(step) == pytest.approx(expected)


def test_it_learns_both(make, labelled, spatial_dims):
    method = make(spatial_dims, class_weight=1.0, dense_weight=1.0).train()
    views = drawn(method, labelled(spatial_dims, ((1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, -1, -1))))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    history = []
    for step in range(12):
        losses = method(views, step)
        optimizer.zero_grad()
        losses.total.backward()
        method.after_backward(step)
        optimizer.step()
        history.append([float(losses.metrics[f"supervised/{name}_loss"]) for name in ("class", "dense")])
    assert history[-1][0] < 0.7 * history[0][0]
    assert history[-1][1] < history[0][1]


def test_it_exports_what_the_method_does(build_tiny):
    part = {"prototypes": 8, "hidden": 16, "dim": 8, "weight": 1.0}
    swav = build_tiny("swav", 2, **SWAV, cells=part)
    method = Hybrid(swav, HybridConfig(size=32, class_weight=1.0), classes=3)
    assert method.exported()["prototypes"] is swav.cells.prototypes


def test_losses_without_classes_are_refused(build_tiny):
    method = build_tiny("swav", 2, **SWAV)
    with pytest.raises(ValueError, match="too few"):
        Hybrid(method, HybridConfig(class_weight=1.0))
    with pytest.raises(ValueError, match="too few"):
        Hybrid(method, HybridConfig(dense_weight=1.0), labels=1)
