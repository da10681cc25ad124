from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.config.classification import ClassificationConfig
from medssl.data.classified import ClassifiedImage, ClassLoader
from medssl.data.table import Row
from medssl.nets.classification import ClassificationNetwork
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Task
from medssl.tasks.classification import ClassificationTask


def task(spatial_dims: int, *, multi_label: bool = False, **changes: object) -> ClassificationTask:
    torch.manual_seed(0)
    network = ClassificationNetwork(ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1)), 2)
    config = ClassificationConfig.model_validate({"intensity": False, **changes})
    return ClassificationTask(network, config, multi_label=multi_label, freeze_statistics=False)


def images(spatial_dims: int, *, multi_label: bool = False) -> list[ClassifiedImage]:
    """Stripes along the first axis, along the second, and with several labels also both and none."""
    rng = np.random.default_rng(0)
    kinds = [(True, False), (False, True)] + ([(True, True), (False, False)] if multi_label else [])
    result = []
    for kind in kinds * 2:
        wave = [np.arange(20) // 2 % 2 if on else np.zeros(20) for on in kind]
        image = 0.3 + 0.2 * wave[0][:, None] + 0.2 * wave[1] + rng.normal(0, 0.02, (20, 20))
        image = image if spatial_dims == 2 else image[..., None].repeat(20, 2)
        values = image[None].clip(0, 1).astype(np.float16)
        result.append(ClassifiedImage(Row(Path("x")), values, (1.0,) * spatial_dims, np.array(kind)))
    return result


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_overfits_one_of_two_and_several_at_once(spatial_dims, multi_label):
    model = task(spatial_dims, multi_label=multi_label)
    assert isinstance(model, Task)
    loader = ClassLoader(images(spatial_dims, multi_label=multi_label), (20,) * spatial_dims, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    generator = torch.Generator().manual_seed(0)
    totals = []
    for step in range(50):
        losses = model(model.views(loader.batch(step), generator), step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert totals[0] == pytest.approx(np.log(2), abs=1e-4), "the linear map begins at zero"
    assert np.mean(totals[-3:]) < 0.6 * totals[0]
    batch = loader.pick(range(2))
    found = model.predict(batch.image)
    if not multi_label:
        torch.testing.assert_close(found.sum(dim=1), torch.ones(2))


def test_metrics_count_images_or_labels():
    found, truth = torch.tensor([[0.9, 0.6], [0.2, 0.7]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(task(2).metrics(found, truth)["accuracy"]) == 1.0
    assert float(task(2, multi_label=True).metrics(found, truth)["accuracy"]) == 0.75


def test_a_probe_is_taken_over_exactly():
    model = task(2).eval()
    x = torch.rand(3, 1, 20, 20)
    pooled = model.network.pooled(x).detach()
    mean, scale = pooled.mean(dim=0), pooled.std(dim=0) + 1e-3
    weight, bias = torch.randn(2, pooled.shape[1]), torch.randn(2)
    model.network.classification.start_from(mean, scale, weight, bias)
    expected = (((pooled - mean) / scale) @ weight.T + bias).softmax(dim=1)
    torch.testing.assert_close(model.predict(x), expected)


def test_frozen_steps_leave_the_encoder():
    model = task(2)
    model.frozen_steps = 1
    views = model.views(ClassLoader(images(2), (20, 20), 4).batch(0), torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.network.classification.linear.weight)
    model(views, 0).total.backward()
    assert all(p.grad is None for p in model.network.encoder.parameters())
    model(views, 1).total.backward()
    assert all(p.grad is not None for p in model.network.encoder.parameters())


def test_flips_are_drawn_from_the_generator():
    model = task(2, flip=True)
    batch = ClassLoader(images(2), (20, 20), 4).batch(0)
    first = model.views(batch, torch.Generator().manual_seed(1)).image
    assert torch.equal(first, model.views(batch, torch.Generator().manual_seed(1)).image)
    assert not torch.equal(first, batch.image)
