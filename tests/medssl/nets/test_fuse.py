from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.nets.encoders import build_encoder
from medssl.nets.fuse import fused


@pytest.fixture(params=[2, 3])
def spatial_dims(request) -> int:
    return request.param


def encoder(name: str, spatial_dims: int) -> nn.Module:
    """Random weights, and statistics that are not those of a new network."""
    torch.manual_seed(0)
    module = build_encoder(name, spatial_dims)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return module.eval()


@pytest.mark.parametrize("name", ["tiny", "genesis", "resnet50"])
def test_the_function_stays(name, spatial_dims):
    module = encoder(name, spatial_dims)
    x = torch.rand(1, 1, *(32,) * spatial_dims)
    with torch.inference_mode():
        expected = module(x)
        for stage in module.stages:
            x = fused(stage)(x)
    torch.testing.assert_close(x, expected[-1], atol=1e-4, rtol=1e-4)


def test_no_norm_is_left_in_the_residual_family(spatial_dims):
    copy = fused(encoder("tiny", spatial_dims))
    assert not [m for m in copy.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_the_original_stays_as_it_was(spatial_dims):
    module = encoder("tiny", spatial_dims)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    fused(module)
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(m.inplace for m in module.modules() if isinstance(m, nn.ReLU))


def test_what_has_nothing_to_fold_is_not_copied():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2)).eval()
    assert fused(module) is module


def test_training_statistics_cannot_be_folded():
    with pytest.raises(ValueError, match="eval"):
        fused(encoder("tiny", 2).train())
