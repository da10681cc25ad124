from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss

from medssl.config.segmentation import SegmentationConfig
from medssl.data.labelled import LabelledVolume
from medssl.data.patches import PatchLoader
from medssl.data.table import Row
from medssl.nets.encoders import ResidualEncoder
from medssl.nets.segmentation import SegmentationNetwork
from medssl.protocols import Batch, Task
from medssl.tasks import TASKS
from medssl.tasks.segmentation import DiceCrossEntropy, SegmentationTask, SegmentationViews, layer_scale
from medssl.volume import Geometry


def task(spatial_dims: int, **changes: object) -> SegmentationTask:
    torch.manual_seed(0)
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    config = SegmentationConfig(decoder_channels=(8, 12, 16, 16), **changes)
    network = SegmentationNetwork(encoder, 3, config.decoder_channels, config.supervised_levels)
    return SegmentationTask(network, config, freeze_statistics=False)


def blobs(spatial_dims: int, *, share: float = 1.0) -> LabelledVolume:
    """A bright ball and a dark ball on grey, of which a share of the voxels is labelled."""
    shape = (40,) * spatial_dims
    rng = np.random.default_rng(0)
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    label = np.zeros(shape, np.int16)
    for index, centre in ((1, 12), (2, 28)):
        label[((place - centre) ** 2).sum(0) < 49] = index
    image = np.array([0.4, 0.9, 0.1])[label] + rng.normal(0, 0.03, shape)
    label[rng.random(shape) >= share] = -1
    return LabelledVolume(
        Row(Path("blobs")), Geometry.from_arrays(shape), image[None].clip(0, 1).astype(np.float16), label
    )


@pytest.mark.parametrize("share", [1.0, 0.02])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_overfits_dense_masks_and_scribbles(spatial_dims, share):
    model = task(spatial_dims, rotation=0, scaling=1, intensity=False)
    assert isinstance(model, Task)
    loader = PatchLoader([blobs(spatial_dims, share=share)], (0, 1, 2), (32,) * spatial_dims, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    totals = []
    for step in range(30):
        losses = model(model.views(loader.batch(step), generator), step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert np.mean(totals[-3:]) < 0.7 * totals[0]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_new_decoder_learns_a_small_textured_class_by_heart(spatial_dims):
    """The class has the brightness of what is around it and a tenth of the voxels, as organs have."""
    model = task(spatial_dims, rotation=0, scaling=1, intensity=False)
    generator = torch.Generator().manual_seed(0)
    shape = (32,) * spatial_dims
    place = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    inside = ((place - 14) ** 2).sum(0) < {2: 36, 3: 81}[spatial_dims]
    noise = torch.randn((2, 1, *shape), generator=generator)
    views = SegmentationViews(
        0.5 + noise * torch.where(inside, 0.02, 0.1), inside.long().expand(2, 1, *shape)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        losses = model(views, step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    dice = model.metrics(model.network(views.image).softmax(dim=1).detach(), views.label)["dice_1"]
    assert dice > 0.8, "a decoder that stays at the prior of the classes has 0"


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_loss_equals_monai_where_all_is_labelled(spatial_dims):
    logits = torch.randn(2, 3, *(6,) * spatial_dims)
    label = torch.randint(0, 3, (2, 1, *(6,) * spatial_dims))
    cross_entropy, dice = DiceCrossEntropy()(logits, label)
    expected = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    torch.testing.assert_close(cross_entropy + dice, expected(logits, label), rtol=1e-5, atol=1e-6)


def test_unlabelled_voxels_have_no_influence():
    loss = DiceCrossEntropy()
    logits = torch.randn(2, 3, 5, 6, requires_grad=True)
    label = torch.randint(0, 3, (2, 1, 5, 6))
    label[:, :, 2:] = -1
    sum(loss(logits, label)).backward()  # type: ignore[union-attr]
    assert logits.grad is not None
    assert (logits.grad[:, :, 2:] == 0).all()
    assert logits.grad[:, :, :2].abs().sum() > 0
    other = logits.detach().clone()
    other[:, :, 2:] = 50
    for a, b in zip(loss(logits, label), loss(other, label), strict=True):
        torch.testing.assert_close(a, b)
    nothing = loss(other, torch.full_like(label, -1))
    assert float(nothing[0]) == 0
    assert torch.isfinite(nothing[1])


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_views_are_reproducible_and_move_label_with_image(spatial_dims):
    model = task(spatial_dims, rotation=30, scaling=1.3, flip=True, intensity=False)
    label = torch.zeros(4, 1, *(20,) * spatial_dims, dtype=torch.int64)
    label[(slice(None), slice(None), *(slice(6, 14),) * spatial_dims)] = 1
    label[:, :, 6:9] = label[:, :, 6:9] * 2
    batch = Batch(
        label.float() / 2, torch.ones(4, spatial_dims), torch.zeros(4).long(), torch.zeros(4).long(), label
    )
    first = model.views(batch, torch.Generator().manual_seed(1))
    again = model.views(batch, torch.Generator().manual_seed(1))
    torch.testing.assert_close(first.image, again.image)
    torch.testing.assert_close(first.label, again.label)
    assert not torch.equal(first.label, label)
    known = first.label >= 0
    agree = ((first.image * 2).round() == first.label)[known].float().mean()
    assert agree > 0.95, "up to interpolation at the borders"


def test_frozen_steps_leave_the_encoder_and_train_the_decoder():
    model = task(2)
    model.frozen_steps = 1
    views = model.views(
        PatchLoader([blobs(2)], (0, 1, 2), (32, 32), 2).batch(0), torch.Generator().manual_seed(0)
    )
    model(views, 0).total.backward()
    assert all(p.grad is None for p in model.network.encoder.parameters())
    assert all(p.grad is not None for p in model.network.segmentation.parameters())
    model(views, 1).total.backward()
    assert all(p.grad is not None for p in model.network.encoder.parameters())


def test_frozen_statistics_stay():
    model = task(2)
    model.freeze_statistics = True
    model.train()
    before = {k: v.clone() for k, v in model.network.encoder.named_buffers()}
    views = model.views(
        PatchLoader([blobs(2)], (0, 1, 2), (32, 32), 2).batch(0), torch.Generator().manual_seed(0)
    )
    model(views, 0)
    for name, value in model.network.encoder.named_buffers():
        torch.testing.assert_close(value, before[name])
    assert model.network.backbone.decoder.training


def test_fixed_statistics_stay_and_make_training_and_inference_alike():
    model = task(2, rotation=0, scaling=1, intensity=False)
    model.fix_statistics = True
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    views = SegmentationViews(torch.rand(1, 1, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.long))
    trained = float(model(views, 0).total.detach())
    assert any(name.startswith("network.backbone.decoder.") for name in before)
    for name, value in before.items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    assert float(model.eval()(views, 0).total.detach()) == trained


def test_deep_supervision_adds_levels():
    model = task(2, supervised_levels=3)
    views = model.views(
        PatchLoader([blobs(2)], (0, 1, 2), (32, 32), 2).batch(0), torch.Generator().manual_seed(0)
    )
    model(views, 0).total.backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in model.network.segmentation)


def test_metrics_are_dice_per_class():
    model = task(2)
    target = torch.tensor([[[[0, 1, 1, -1]]]])
    prediction = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 0, 1]]]), 3).movedim(-1, 1).float()
    scores = model.metrics(prediction, target)
    assert float(scores["dice_0"]) == pytest.approx(2 / 3)
    assert float(scores["dice_1"]) == pytest.approx(2 / 3)
    assert torch.isnan(scores["dice_2"])


def test_layer_scale_falls_towards_the_image():
    model = task(2)
    scale = layer_scale(model.network.encoder.stage_names, 0.5, 0.5)
    names = [name for name, _ in model.named_parameters()]
    assert scale.pop("network.linear.") == 0.5
    for prefix in scale:
        assert any(name.startswith(prefix) for name in names)
    assert list(scale.values()) == [0.0625, 0.125, 0.25, 0.5]


def test_registry_names_exist():
    for entry in TASKS.values():
        for target in (entry.config, entry.task):
            module, _, name = target.partition(":")
            assert hasattr(__import__(module, fromlist=[name]), name)
