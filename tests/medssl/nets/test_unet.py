from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medssl.nets.unet import GenesisDecoder, GenesisEncoder, RestorationOutput

BLOCK = (
    *("conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"),
    *("bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"),
)


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


def test_names_and_shapes_are_the_published_ones():
    parts = {"": GenesisEncoder(3), " ": GenesisDecoder(3), "out_tr.": RestorationOutput(3, 64)}
    state = {p.strip() + key: value for p, part in parts.items() for key, value in part.state_dict().items()}
    parents = [f"down_tr{n}" for n in (64, 128, 256, 512)] + [f"up_tr{n}" for n in (256, 128, 64)]
    expected = {f"{parent}.ops.{i}.{name}" for parent in parents for i in (0, 1) for name in BLOCK}
    expected |= {f"up_tr{n}.up_conv.{name}" for n in (256, 128, 64) for name in ("weight", "bias")}
    assert set(state) == expected | {"out_tr.final_conv.weight", "out_tr.final_conv.bias"}
    assert state["down_tr64.ops.0.conv1.weight"].shape == (32, 1, 3, 3, 3)
    assert state["up_tr256.up_conv.weight"].shape == (512, 512, 2, 2, 2)
    assert state["up_tr256.ops.0.conv1.weight"].shape == (256, 768, 3, 3, 3)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts.values()]
    assert counts[0] == 7_027_776
    assert sum(counts) == 19_073_665


def test_network_computes_what_the_paper_draws(spatial_dims):
    """Against the formulas written out with functional calls, in evaluation mode."""
    torch.manual_seed(0)
    encoder, decoder = GenesisEncoder(spatial_dims, width=2).eval(), GenesisDecoder(spatial_dims, 2).eval()
    output = RestorationOutput(spatial_dims, 4).eval()
    state = {**encoder.state_dict(), **decoder.state_dict()}
    for key, value in state.items():
        if "running" in key or "bn1" in key:
            value.copy_(torch.rand(value.shape) + 0.5)
    conv, transposed, pool = (
        (F.conv2d, F.conv_transpose2d, F.max_pool2d),
        (F.conv3d, F.conv_transpose3d, F.max_pool3d),
    )[spatial_dims - 2]

    def block(x, name):
        for i in (0, 1):
            p = f"{name}.ops.{i}."
            x = conv(x, state[p + "conv1.weight"], state[p + "conv1.bias"], padding=1)
            norm = [state[f"{p}bn1.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
            x = F.relu(F.batch_norm(x, *norm, training=False, eps=1e-5))
        return x

    def up(x, skip, name):
        x = transposed(x, state[f"{name}.up_conv.weight"], state[f"{name}.up_conv.bias"], stride=2)
        return block(torch.cat([x, skip], 1), name)

    image = torch.rand(2, 1, *(16, 24, 8)[:spatial_dims])
    skips = [block(image, "down_tr64")]
    for name in ("down_tr128", "down_tr256", "down_tr512"):
        skips.append(block(pool(skips[-1], 2), name))
    decoded = up(up(up(skips[3], skips[2], "up_tr256"), skips[1], "up_tr128"), skips[0], "up_tr64")
    with torch.inference_mode():
        pyramid = encoder(image)
        for ours, theirs in zip(pyramid, skips, strict=True):
            torch.testing.assert_close(ours, theirs)
        ours = decoder(image, pyramid)[0]
        torch.testing.assert_close(ours, decoded)
        restored = output(ours)
    final = output.final_conv
    torch.testing.assert_close(restored, conv(decoded, final.weight, final.bias).sigmoid())


def test_decoder_declares_its_levels(spatial_dims):
    encoder, decoder = GenesisEncoder(spatial_dims, 3, width=2), GenesisDecoder(spatial_dims, 2)
    image = torch.rand(2, 3, *(16,) * spatial_dims)
    with torch.no_grad():
        decoded = decoder(image, encoder(image))
    for feature, level in zip(decoded, decoder.levels, strict=True):
        assert feature.shape[1:] == (level.channels, *(16 // level.stride[0],) * spatial_dims)


def test_halo_is_the_receptive_radius_of_a_stage(spatial_dims):
    torch.manual_seed(1)
    encoder = GenesisEncoder(spatial_dims, width=2).eval()
    for index, stage in enumerate(encoder.stages):
        channels = 1 if index == 0 else encoder.levels[index - 1].channels
        halo, step = encoder.halos[index][0], 1 if index == 0 else 2
        x = torch.rand(1, channels, *(8 * halo,) * spatial_dims)
        start = 2 * halo
        changed = x.clone()
        changed[..., : start - halo] += 9
        with torch.inference_mode():
            a, b = stage(x), stage(changed)
        torch.testing.assert_close(a[..., start // step :], b[..., start // step :])
        assert not torch.allclose(a[..., start // step - 1], b[..., start // step - 1])
