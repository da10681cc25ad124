from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from medssl.config.training import TrainingConfig
from medssl.errors import InputError
from medssl.jobs.progress import drain
from medssl.methods import METHODS
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Batch
from medssl.training.loop import fit
from medssl.training.recompute import recompute, recompute_stages


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_gradients_and_running_statistics_are_the_same(spatial_dims: int) -> None:
    torch.manual_seed(0)
    plain = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1)).train()
    again = deepcopy(plain)
    assert recompute_stages(again) == 4
    passes = []
    again.stages[0][0].register_forward_hook(lambda *_: passes.append(1))
    x = torch.rand(2, 1, *(32,) * spatial_dims)
    for encoder in (plain, again):
        sum(level.square().mean() for level in encoder(x)).backward()
    assert len(passes) == 2  # forward, and again in backward
    for (name, ours), theirs in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    assert plain.state_dict().keys() == again.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    momenta = {part.momentum for part in again.modules() if hasattr(part, "momentum")}
    assert momenta == {part.momentum for part in plain.modules() if hasattr(part, "momentum")}


@pytest.mark.parametrize("name", ["spark", "mae", "simclr"])
def test_every_method_saves_less_and_learns_the_same(name: str) -> None:
    """Numbers kept for the backward pass, gradients, running statistics."""
    kept, models = [], []
    for again in (False, True):
        torch.manual_seed(0)
        entry = METHODS[name]
        backbone = Backbone(ResidualEncoder(2, 1, (8, 8, 8, 8), (2, 2, 2, 2)))
        size = {"views": {"size": 32}} if name == "simclr" else {"size": 32, "cell": 8, "width": 64}
        method = entry.build(entry.config_class().model_validate(size), backbone, 1).train()
        if again:
            recompute(method)
        image = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
        number = torch.arange(4)
        batch = Batch(image, torch.ones(4, 2), 0 * number, number)
        views = method.views(batch, torch.Generator().manual_seed(2))
        saved: list[int] = []

        def keep(x, to=saved):
            to.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = method(views, 0).total
        kept.append(sum(saved))
        loss.backward()
        models.append(method)
    assert kept[1] < 0.8 * kept[0]
    for (key, ours), theirs in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=key)
    for key, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[key], msg=key)


def test_evaluation_computes_once() -> None:
    encoder = ResidualEncoder(2, 1, (4, 6, 8, 8), (1, 1, 1, 1)).eval()
    x = torch.rand(1, 1, 32, 32)
    expected = encoder(x)
    recompute_stages(encoder)
    for ours, theirs in zip(encoder(x), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_with_it_equals_one_without(toy, toy_data, fabric) -> None:
    """Dropout included: the second pass draws what the first one drew."""
    models = []
    for again in (False, True):
        torch.manual_seed(0)
        model = toy(2)
        torch.manual_seed(1)
        config = TrainingConfig(steps=4, batch_size=4, lr=0.01, recompute=again)
        drain(fit(model, toy_data(2), config, fabric=fabric))
        models.append(model)
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[name], msg=name)


def test_an_encoder_without_stages_is_refused() -> None:
    with pytest.raises(InputError, match="no stages"):
        recompute_stages(nn.Conv2d(1, 1, 1))
