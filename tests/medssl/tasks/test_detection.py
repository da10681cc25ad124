from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.config.detection import DetectionConfig
from medssl.data.box_patches import BoxPatchLoader
from medssl.data.boxed import BoxedVolume
from medssl.data.table import Row
from medssl.nets.detection import DetectionNetwork
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Task
from medssl.tasks.detection import DetectionTask, flip_boxes
from medssl.volume import Geometry


def task(spatial_dims: int, **changes: object) -> DetectionTask:
    torch.manual_seed(0)
    encoder = ResidualEncoder(spatial_dims, 1, (8, 8, 8, 8), (1, 1, 1, 1))
    config = DetectionConfig.model_validate({"channels": 16, "depth": 1, "levels": 2, **changes})
    network = DetectionNetwork(encoder, 2, channels=16, depth=1, levels=2)
    return DetectionTask(network, config, freeze_statistics=False)


def blocks(spatial_dims: int) -> BoxedVolume:
    """A bright block and a dark one on grey."""
    shape = (48,) * spatial_dims  # a multiple of the stride: padding would look like the dark block
    boxes, classes = [], []
    image = np.full(shape, 0.5) + np.random.default_rng(0).normal(0, 0.02, shape)
    for index, (start, width, value) in enumerate(((8, 6, 0.9), (24, 8, 0.1))):
        image[(slice(start, start + width),) * spatial_dims] = value
        boxes.append([start] * spatial_dims + [start + width] * spatial_dims)
        classes.append(index)
    return BoxedVolume(
        Row(Path("blocks")),
        Geometry.from_arrays(shape),
        image[None].clip(0, 1).astype(np.float16),
        np.asarray(boxes, np.float32),
        np.asarray(classes),
    )


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_overfits_and_finds_both_blocks(spatial_dims):
    model = task(spatial_dims, intensity=False)
    assert isinstance(model, Task)
    volume = blocks(spatial_dims)
    loader = BoxPatchLoader([volume], (32,) * spatial_dims, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    totals = []
    for step in range(80):
        losses = model(model.views(loader.batch(step), generator), step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert np.mean(totals[-5:]) < 0.3 * totals[0]
    model.eval()
    found = model.predict(torch.from_numpy(volume.image).float()[None])
    assert found.shape == (1, 100, 2 * spatial_dims + 2)
    truth = torch.from_numpy(np.column_stack([volume.boxes, volume.classes])).float()[None]
    best = found[:, :2]
    assert float(model.metrics(best, truth)["recall"]) == 1.0
    assert float(model.metrics(best, truth)["precision"]) == 1.0


def test_metrics_count_hits_of_the_right_class():
    model = task(2)
    truth = torch.tensor([[[0.0, 0, 4, 4, 0], [8, 8, 12, 12, 1], [0, 0, 1, 1, -1]]])
    prediction = torch.tensor([[[0.0, 0, 4, 4, 0.9, 0], [8, 8, 12, 12, 0.8, 0], [0, 0, 1, 1, 0, 0]]])
    scores = model.metrics(prediction, truth)
    assert {name: float(value) for name, value in scores.items()} == {"recall": 0.5, "precision": 0.5}


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_views_flip_boxes_with_the_image(spatial_dims):
    model = task(spatial_dims, intensity=False)
    batch = BoxPatchLoader([blocks(spatial_dims)], (32,) * spatial_dims, 4, foreground=1.0).batch(0)
    views = model.views(batch, torch.Generator().manual_seed(1))
    again = model.views(batch, torch.Generator().manual_seed(1))
    assert torch.equal(views.image, again.image)
    assert not torch.equal(views.image, batch.image)
    checked = 0
    for image, boxes, classes in zip(views.image, views.boxes, views.classes, strict=True):
        for box, index in zip(boxes.int().tolist(), classes.tolist(), strict=True):
            ends = zip(box[:spatial_dims], box[spatial_dims:], strict=True)
            part = image[(0, *(slice(max(first, 0), last) for first, last in ends))]
            if index >= 0 and part.numel():
                checked += 1
                assert part.mean() == pytest.approx((0.9, 0.1)[index], abs=0.01)
    assert checked >= 4


def test_flipping_twice_is_nothing():
    boxes = torch.tensor([[[1.0, 2, 4, 7]]])
    flip = torch.tensor([[True, False]])
    once = flip_boxes(boxes, flip, torch.Size((10, 20)))
    assert once.tolist() == [[[6, 2, 9, 7]]]
    assert torch.equal(flip_boxes(once, flip, torch.Size((10, 20))), boxes)


def test_frozen_steps_leave_the_encoder_and_train_the_head():
    model = task(2)
    model.frozen_steps = 1
    views = model.views(BoxPatchLoader([blocks(2)], (32, 32), 2).batch(0), torch.Generator().manual_seed(0))
    model(views, 0).total.backward()
    assert all(p.grad is None for p in model.network.encoder.parameters())
    assert all(p.grad is not None for p in model.network.detection["heads"].parameters())
    model(views, 1).total.backward()
    assert all(p.grad is not None for p in model.network.encoder.parameters())


def test_a_patch_without_boxes_teaches_silence():
    model = task(2)
    empty = blocks(2)
    batch = BoxPatchLoader([empty], (32, 32), 2).batch(0)
    assert batch.targets is not None
    batch.targets["classes"][:] = -1
    losses = model(model.views(batch, torch.Generator().manual_seed(0)), 0)
    assert float(losses.metrics["box"]) == 0
    assert torch.isfinite(losses.total)
    losses.total.backward()
    grad = model.network.detection["heads"][0].score.bias.grad
    assert (grad > 0).all(), "scores go down"
