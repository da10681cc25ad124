"""Checkpoints in the published key layouts, against networks written out with functional calls."""

from __future__ import annotations

import argparse
import re

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.nets.encoders import restore_encoder
from medssl.nets.transfer import IMAGENET_MEAN, IMAGENET_STD, fit_channels, load_foreign

BLOCKS, WIDTH = (2, 1, 1, 1), 4


def values(shapes):
    generator = torch.Generator().manual_seed(7)
    state = {}
    for key, shape in shapes.items():
        state[key] = torch.randn(shape, generator=generator) * (0.5 if len(shape) > 1 else 0.2)
        if key.endswith(("running_var", "norm.weight", "all_modules.1.weight")) or re.search(
            r"bn\d\.weight$", key
        ):
            state[key] = torch.rand(shape, generator=generator) + 0.5
    return state


def norm_shapes(name, width):
    return {f"{name}.{k}": (width,) for k in ("weight", "bias", "running_mean", "running_var")}


def resnet_state(in_channels=3):
    """The layout of torchvision and timm, of a narrow ResNet with bottlenecks."""
    shapes = {"conv1.weight": (WIDTH, in_channels, 7, 7), **norm_shapes("bn1", WIDTH)}
    before = WIDTH
    for layer, count in enumerate(BLOCKS):
        inner = WIDTH * 2**layer
        for block in range(count):
            p = f"layer{layer + 1}.{block}"
            shapes |= {f"{p}.conv1.weight": (inner, before, 1, 1), **norm_shapes(f"{p}.bn1", inner)}
            shapes |= {f"{p}.conv2.weight": (inner, inner, 3, 3), **norm_shapes(f"{p}.bn2", inner)}
            shapes |= {f"{p}.conv3.weight": (4 * inner, inner, 1, 1), **norm_shapes(f"{p}.bn3", 4 * inner)}
            if block == 0:
                shapes |= {f"{p}.downsample.0.weight": (4 * inner, before, 1, 1)}
                shapes |= norm_shapes(f"{p}.downsample.1", 4 * inner)
            before = 4 * inner
    return values(shapes)


def batch_norm(x, state, name):
    parts = [state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *parts, eps=1e-5)


def resnet_forward(state, x):
    x = F.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(batch_norm(x, state, "bn1")), 3, 2, 1)
    pyramid = []
    for layer, count in enumerate(BLOCKS):
        for block in range(count):
            p, step = f"layer{layer + 1}.{block}", 2 if layer and not block else 1
            y = F.relu(batch_norm(F.conv2d(x, state[f"{p}.conv1.weight"]), state, f"{p}.bn1"))
            y = F.conv2d(y, state[f"{p}.conv2.weight"], stride=step, padding=1)
            y = F.relu(batch_norm(y, state, f"{p}.bn2"))
            y = batch_norm(F.conv2d(y, state[f"{p}.conv3.weight"]), state, f"{p}.bn3")
            if block == 0:
                x = F.conv2d(x, state[f"{p}.downsample.0.weight"], stride=step)
                x = batch_norm(x, state, f"{p}.downsample.1")
            x = F.relu(x + y)
        pyramid.append(x)
    return pyramid


def below(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def resnet_file(layout, state):
    """What the projects publish: (format, contents of the file, keys that our encoder has no place for)."""
    junk = {"fc.weight": torch.rand(10, 8), "fc.bias": torch.rand(10)}
    other = {key: torch.rand_like(value) for key, value in state.items()}
    head = {"module.projection_head.0.weight": torch.rand(8, 8), "module.prototypes.weight": torch.rand(5, 8)}
    spark = {"dense_decoder.proj.weight": torch.rand(3, 4, 1, 1), "mask_tokens.0": torch.rand(1, 4, 1, 1)}
    counters = {"bn1.num_batches_tracked": torch.tensor(5)}
    return {
        "swav": ("swav", {**below("module.", {**state, **counters}), **head}, 2),
        "swav-training": ("swav", {"epoch": 3, "state_dict": {**below("module.", state), **head}}, 2),
        "spark-timm": ("spark", {**state, **junk}, 2),
        "spark-training": (
            "spark",
            {"args": "{}", "arch": "r", "module": {**below("sparse_encoder.sp_cnn.", state), **spark}},
            2,
        ),
        "lvm-med": ("lvm-med", {**state, **junk}, 2),
        "momentum": (
            "swav",
            {"state_dict": {**below("module.encoder_k.", other), **below("module.encoder_q.", state)}},
            len(other),
        ),
    }[layout]


@pytest.mark.parametrize(
    "layout", ["swav", "swav-training", "spark-timm", "spark-training", "lvm-med", "momentum"]
)
def test_resnets_give_the_features_of_their_source(layout, tmp_path):
    state = resnet_state()
    format_, contents, unused = resnet_file(layout, state)
    path = tmp_path / "model.pth.tar"
    torch.save(contents, path)
    module, report = load_foreign(path, format_)
    colour, grey = torch.rand(2, 3, 64, 96), torch.rand(2, 1, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        for x, source in ((colour, colour), (grey, (grey - mean) / std)):
            for ours, theirs in zip(module(x), resnet_forward(state, source), strict=True):
                torch.testing.assert_close(ours, theirs)
    assert len(report.matched) == len(state)
    assert (report.missing, report.reshaped) == ((), ())
    assert len(report.unused) == unused
    assert module.encoder.in_channels == 1


def test_resnet50_has_the_names_and_shapes_of_torchvision():
    with torch.device("meta"):
        config = {"architecture": "resnet", "spatial_dims": 2, "in_channels": 3}
        state = restore_encoder(config).state_dict()
    counts = [key for key in state if key.endswith("num_batches_tracked")]
    assert len(state) == 318  # torchvision's resnet50 has 320, two of them of its classifier
    assert len(counts) == 53
    assert state["layer3.5.conv2.weight"].shape == (256, 256, 3, 3)
    assert state["layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)
    weights = [v for k, v in state.items() if k not in counts and "running" not in k]
    assert sum(v.numel() for v in weights) == 25_557_032 - 2_049_000


def genesis_state():
    shapes = {}

    def block(name, before, between, after):
        for i, (a, b) in enumerate(((before, between), (between, after))):
            p = f"{name}.ops.{i}"
            shapes.update({f"{p}.conv1.weight": (b, a, 3, 3, 3), f"{p}.conv1.bias": (b,)})
            shapes.update(norm_shapes(f"{p}.bn1", b))

    for name, *widths in (
        ("down_tr64", 1, 2, 4), ("down_tr128", 4, 4, 8), ("down_tr256", 8, 8, 16), ("down_tr512", 16, 16, 32),
        ("up_tr256", 48, 16, 16), ("up_tr128", 24, 8, 8), ("up_tr64", 12, 4, 4),
    ):  # fmt: skip
        block(name, *widths)
    for name, width in (("up_tr256", 32), ("up_tr128", 16), ("up_tr64", 8)):
        shapes |= {f"{name}.up_conv.weight": (width, width, 2, 2, 2), f"{name}.up_conv.bias": (width,)}
    return values({**shapes, "out_tr.final_conv.weight": (1, 4, 1, 1, 1), "out_tr.final_conv.bias": (1,)})


def genesis_block(x, state, name, training):
    for i in (0, 1):
        p = f"{name}.ops.{i}"
        x = F.conv3d(x, state[f"{p}.conv1.weight"], state[f"{p}.conv1.bias"], padding=1)
        mean, var = (state[f"{p}.bn1.running_{k}"].clone() for k in ("mean", "var"))
        x = F.batch_norm(x, mean, var, state[f"{p}.bn1.weight"], state[f"{p}.bn1.bias"], training)
        x = F.relu(x)
    return x


@pytest.mark.parametrize("training", [False, True])
def test_models_genesis_gives_encoder_and_decoder(training, tmp_path):
    state = genesis_state()
    contents = {"epoch": 99, "state_dict": below("module.", state), "optimizer_state_dict": {"state": {}}}
    torch.save(contents, tmp_path / "Genesis_Chest_CT.pt")
    module, report = load_foreign(tmp_path / "Genesis_Chest_CT.pt", "genesis")
    assert report.unused == ("module.out_tr.final_conv.weight", "module.out_tr.final_conv.bias")
    assert len(report.matched) == len(state) - 2
    assert not report.missing
    module.double()  # a turned kernel adds in another order
    state = {key: value.double() for key, value in state.items()}
    x = torch.rand(2, 1, 16, 24, 8, dtype=torch.float64)  # x, y, z as published
    skips = [genesis_block(x, state, "down_tr64", training)]
    for name in ("down_tr128", "down_tr256", "down_tr512"):
        skips.append(genesis_block(F.max_pool3d(skips[-1], 2), state, name, training))
    decoded = skips[3]
    for name, skip in zip(("up_tr256", "up_tr128", "up_tr64"), skips[2::-1], strict=True):
        weight, bias = state[f"{name}.up_conv.weight"], state[f"{name}.up_conv.bias"]
        up = F.conv_transpose3d(decoded, weight, bias, stride=2)
        decoded = genesis_block(torch.cat([up, skip], 1), state, name, training)
    assert not module.training
    module.train(training)  # the published network never leaves training mode
    with torch.no_grad():
        ours = x.permute(0, 1, 4, 3, 2)  # z, y, x
        pyramid = module(ours)
        for level, theirs in zip(pyramid, skips, strict=True):
            torch.testing.assert_close(level.permute(0, 1, 4, 3, 2), theirs)
        restored = module.decoder(ours, pyramid)[0].permute(0, 1, 4, 3, 2)
        torch.testing.assert_close(restored, decoded)


CHANNELS, COUNTS = (4, 6, 6), (1, 2, 1)


def openmind_state():
    """Canonical keys only: ``conv`` and ``norm`` of every unit, below ``stem`` and ``stages``."""
    shapes = {}

    def unit(name, before, after, size=3, bias=True):
        shapes[f"{name}.conv.weight"] = (after, before, size, size, size)
        if bias:
            shapes[f"{name}.conv.bias"] = (after,)
        shapes.update({f"{name}.norm.weight": (after,), f"{name}.norm.bias": (after,)})

    unit("stem.convs.0", 1, CHANNELS[0])
    before = CHANNELS[0]
    for s, (after, count) in enumerate(zip(CHANNELS, COUNTS, strict=True)):
        for b in range(count):
            unit(f"stages.{s}.blocks.{b}.conv1", before, after)
            unit(f"stages.{s}.blocks.{b}.conv2", after, after)
            if before != after:
                unit(f"stages.{s}.blocks.{b}.skip.1", before, after, 1, bias=False)
            before = after
    return values(shapes)


def openmind_forward(state, x):
    def unit(x, name, step=1):
        weight, bias = state[f"{name}.conv.weight"], state.get(f"{name}.conv.bias")
        x = F.conv3d(x, weight, bias, stride=step, padding=weight.shape[2] // 2)
        return F.instance_norm(x, weight=state[f"{name}.norm.weight"], bias=state[f"{name}.norm.bias"])

    x = F.leaky_relu(unit(x, "stem.convs.0"), 0.01)
    pyramid = []
    for s, count in enumerate(COUNTS):
        for b in range(count):
            p, step = f"stages.{s}.blocks.{b}", 2 if s and not b else 1
            y = unit(F.leaky_relu(unit(x, f"{p}.conv1", step), 0.01), f"{p}.conv2")
            x = F.avg_pool3d(x, step) if step > 1 else x
            x = unit(x, f"{p}.skip.1") if f"{p}.skip.1.conv.weight" in state else x
            x = F.leaky_relu(x + y, 0.01)
        pyramid.append(x)
    return pyramid


@pytest.mark.parametrize("aliases", ["equal", "poisoned", "none"])
def test_openmind_prefers_the_aliases_that_were_trained(aliases, tmp_path):
    state = openmind_state()
    encoder = dict(state)
    if aliases != "none":
        encoder |= {k.replace(".conv.", ".all_modules.0."): v for k, v in state.items() if ".conv." in k}
        encoder |= {k.replace(".norm.", ".all_modules.1."): v for k, v in state.items() if ".norm." in k}
    if aliases == "poisoned":  # S3D checkpoints: these copies were never trained
        encoder |= {key: torch.rand_like(value) for key, value in state.items()}
    weights = {
        **below("encoder.", encoder),
        **below("decoder.encoder.", {key: torch.rand_like(value) for key, value in encoder.items()}),
        "decoder.seg_layers.0.weight": torch.rand(1, 4, 1, 1, 1),
    }
    contents = {"network_weights": weights, "current_epoch": 4, "trainer_name": "t", "_best_ema": None}
    torch.save(contents, tmp_path / "checkpoint_final.pth")
    module, report = load_foreign(tmp_path / "checkpoint_final.pth", "openmind")
    assert len(report.matched) == len(state)
    assert not report.missing
    assert module.encoder.config["channels"] == list(CHANNELS)
    assert module.encoder.config["blocks"] == list(COUNTS)
    x = torch.rand(2, 1, 8, 16, 12)
    with torch.no_grad():
        for ours, theirs in zip(module(x), openmind_forward(state, x), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_resenc_l_has_the_published_size():
    with torch.device("meta"):
        encoder = restore_encoder({"architecture": "resenc", "spatial_dims": 3})
    assert sum(p.numel() for p in encoder.parameters()) == 90_296_576


def test_more_channels_share_the_first_kernel(tmp_path):
    state = openmind_state()
    torch.save({"network_weights": below("encoder.", state)}, tmp_path / "c.pth")
    one, _ = load_foreign(tmp_path / "c.pth", "openmind")
    four, report = load_foreign(tmp_path / "c.pth", "openmind", in_channels=4)
    assert report.reshaped == ("encoder.stages.0.stem.0.conv.weight",)
    x = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        for a, b in zip(one(x), four(x.expand(1, 4, 8, 8, 8)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    kernel = torch.rand(5, 3, 7, 7)
    torch.testing.assert_close(fit_channels(kernel, 1), kernel.sum(1, keepdim=True))


def test_what_the_file_lacks_is_reported(tmp_path):
    state = resnet_state()
    del state["layer2.0.conv2.weight"]
    save_file(state, tmp_path / "partial.safetensors")
    _, report = load_foreign(tmp_path / "partial.safetensors", "lvm-med")
    assert report.missing == ("encoder.layer2.0.conv2.weight",)
    assert "1 missing (encoder.layer2.0.conv2.weight)" in str(report)


def test_a_file_that_lacks_most_of_the_encoder_is_refused(tmp_path):
    whole = genesis_state()
    for blocks, is_refused in ((("down_tr64", "down_tr128", "down_tr256"), False), (("down_tr64",), True)):
        state = {key: value for key, value in whole.items() if key.startswith(blocks)}
        save_file(state, tmp_path / "rest.safetensors")
        if is_refused:
            with pytest.raises(
                InputError, match=r"rest\.safetensors: 6 of 8 kernels of a genesis encoder are"
            ):
                load_foreign(tmp_path / "rest.safetensors", "genesis")
        else:
            assert load_foreign(tmp_path / "rest.safetensors", "genesis")[1].missing


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value, tmp_path):
    state = resnet_state()
    state["layer2.0.conv2.weight"][0, 0] = value
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match=r"not finite \(encoder.layer2.0.conv2.weight\); get it again"):
        load_foreign(tmp_path / "broken.safetensors", "lvm-med")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(Bomb(), "GLOBAL .*exec"), (argparse.Namespace(lr=1.0), "GLOBAL argparse.Namespace")],
    ids=["code", "object"],
)
def test_files_that_hold_more_than_tensors_are_refused(content, reason, tmp_path):
    torch.save({"state_dict": resnet_state(), "extra": content}, tmp_path / "evil.pth")
    # the reason alone: torch's own text tells how to run the code after all
    words = rf"evil\.pth: holds more than tensors[^(]*\([^)]*{reason}[^)]*\); [^(]* can run code"
    with pytest.raises(InputError, match=words):
        load_foreign(tmp_path / "evil.pth", "swav")


@pytest.mark.parametrize(
    ("contents", "format_", "words"),
    [
        (resnet_state, "genesis", r"nothing in it fits a genesis network .* check --format"),
        (genesis_state, "openmind", "nothing in it fits a openmind network"),
        (lambda: {"patch_embed.proj.weight": torch.rand(8, 3, 16, 16)}, "lvm-med", "a vision transformer"),
        (lambda: {"eva.pos_embed": torch.rand(1, 4, 8)}, "openmind", "a Primus transformer"),
        (lambda: {"epoch": 3}, "swav", "holds no tensors by name"),
        (resnet_state, "dino", "--format dino: unknown; choose from genesis, swav"),
    ],
)
def test_files_that_do_not_fit_are_refused(contents, format_, words, tmp_path):
    torch.save(contents(), tmp_path / "c.pt")
    with pytest.raises(InputError, match=words) as caught:
        load_foreign(tmp_path / "c.pt", format_)
    assert "\n" not in str(caught.value)


def test_damaged_and_absent_files_are_refused(tmp_path):
    torch.save(resnet_state(), tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.pt").write_text("hello")
    for name in ("cut.pt", "text.pt", "absent.pt"):
        with pytest.raises(InputError, match=name) as caught:
            load_foreign(tmp_path / name, "swav")
        assert "\n" not in str(caught.value)
        assert name != "text.pt" or "not what torch.save writes" in str(caught.value)
