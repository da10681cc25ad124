from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from medssl.config.hssl import HsslConfig
from medssl.errors import InputError
from medssl.losses.contrastive import nt_xent
from medssl.methods.hssl import default_attach
from medssl.protocols import Batch

VIEWS = {"size": 32, "scale": (0.5, 1.0), "turn_p": 0.0}
TINY = {
    "views": VIEWS,
    "dim": 8,
    "tasks": 3,
    "groups": 2,
    "group_of": (0, 1, 1),
    "decoder_channels": (4,) * 4,
}


def drawn(method, data, seed=0):
    return method.views(data, torch.Generator().manual_seed(seed))


@pytest.fixture
def images(blobs):
    """Four images, the last two of one volume, with tasks and groups."""

    def make(spatial_dims: int) -> Batch:
        task = torch.tensor([0, 1, 2, 2])
        return replace(blobs(spatial_dims), targets={"task": task, "group": (task > 0).long()})

    return make


def test_default_maps_are_bottleneck_first_and_last_but_one_block():
    assert default_attach("encoder", 4) == ("enc4",)
    assert default_attach("joint", 4) == ("enc4", "dec3", "dec1")
    assert default_attach("joint", 2) == ("enc2", "dec1")


def test_the_encoder_stage_has_no_decoder_and_classifiers_begin_at_chance(build_tiny, images, spatial_dims):
    method = build_tiny("hssl", spatial_dims, **TINY).train()
    losses = method(drawn(method, images(spatial_dims)), 0)
    assert method.backbone.decoder is None
    assert losses.metrics["enc4/task"].item() == pytest.approx(math.log(3), abs=1e-5)
    assert losses.metrics["enc4/group"].item() == pytest.approx(math.log(2), abs=1e-5)


def test_without_classifiers_it_is_plain_simclr(build_tiny, images, spatial_dims):
    method = build_tiny(
        "hssl", spatial_dims, **TINY, task_weight=0, group_weight=0, mask_same_volume=False
    ).eval()
    views = drawn(method, images(spatial_dims))
    pooled = method.backbone(torch.cat(views.pair.images))[-1].flatten(2).mean(2)
    za, zb = method.heads["enc4"].projection(pooled).chunk(2)
    torch.testing.assert_close(method(views, 0).total, nt_xent(za, zb, 0.1), rtol=0, atol=0)


def test_weights_add_up(build_tiny, images, spatial_dims):
    weights = {"image_weight": 2.0, "task_weight": 3.0, "group_weight": 0.25}
    maps = {"attach": ("enc4", "dec1"), "attach_weights": (3.0, 1.0)}
    method = build_tiny("hssl", spatial_dims, **TINY, stage="joint", **maps, **weights).eval()
    losses = method(drawn(method, images(spatial_dims)), 0)
    expected = sum(
        share * weight * losses.metrics[f"{name}/{level}"]
        for name, share in (("enc4", 0.75), ("dec1", 0.25))
        for level, weight in (("image", 2.0), ("task", 3.0), ("group", 0.25))
    )
    torch.testing.assert_close(losses.total.detach(), expected)


def touched(module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def test_gradients_go_where_the_map_is(build_tiny, images, spatial_dims):
    """The bottleneck teaches the encoder alone, a decoder map both; blocks behind it are left alone."""
    for name, reached in (("enc4", 0), ("dec3", 1), ("dec1", 3)):
        method = build_tiny("hssl", spatial_dims, **TINY, stage="joint", attach=("enc4", "dec1")).train()
        views = drawn(method, images(spatial_dims))
        maps = method._maps(torch.cat(views.pair.images))
        sum(scores.square().sum() for scores in (maps[name],)).backward()
        decoder = method.backbone.decoder
        assert touched(method.backbone.encoder) > 0
        assert [touched(block) > 0 for block in decoder.join] == [False] * (4 - reached) + [True] * reached
    assert [p.requires_grad for p in decoder.join[0].parameters()].count(True) == 0


def test_every_trained_parameter_gets_a_gradient(build_tiny, images, spatial_dims):
    method = build_tiny("hssl", spatial_dims, **TINY, stage="joint").train()
    method(drawn(method, images(spatial_dims)), 0).total.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize(
    ("settings", "partners"),
    [
        ({"mask_same_volume": False}, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]),
        ({}, [[1, 2, 3], [0, 2, 3], [0, 1], [0, 1]]),
        ({"negatives": "same_task", "mask_same_volume": False}, [[], [], [3], [2]]),
        ({"negatives": "same_task"}, [[], [], [], []]),
    ],
)
def test_negatives_are_those_of_other_volumes_or_of_the_task(build_tiny, images, settings, partners):
    method = build_tiny("hssl", 2, **TINY, **settings).train()
    data = images(2)
    mask = method._may_repel(data.index, data.targets["task"])
    assert [row.nonzero()[:, 0].tolist() for row in mask] == partners
    losses = method(drawn(method, data), 0)
    assert losses.metrics["negatives"] == sum(map(len, partners)) / 2
    if not any(partners):
        assert losses.metrics["enc4/image"] == 0


def test_rare_classes_weigh_more(build_tiny, images):
    method = build_tiny("hssl", 2, **TINY).train()
    for _ in range(400):
        weights = method._class_weights(method.task_share, torch.tensor([0, 0, 0, 1]))
    torch.testing.assert_close(method.task_share, torch.tensor([0.75, 0.25, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights, torch.tensor([4 / 9, 4 / 3, 10.0]), atol=1e-3, rtol=1e-3)
    method.eval()
    method._class_weights(method.task_share, torch.tensor([2, 2, 2, 2]))
    assert method.task_share[2] < 1e-4
    plain = build_tiny("hssl", 2, **TINY, balance_classes=False)
    assert plain._class_weights(plain.task_share, torch.tensor([0])) is None


def test_tasks_agree_with_their_groups(build_tiny, images):
    from medssl.nets.domains import DomainScores

    method = build_tiny("hssl", 2, **TINY)
    # tasks 1 and 2 are of group 1: together they outweigh task 0
    task = torch.tensor([[1.0, 0.8, 0.8], [5.0, 0.0, 0.0]])
    group = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    found = method._domain_accuracy(
        DomainScores(torch.zeros(2, 8), task, group),
        {"task": torch.tensor([0, 1]), "group": torch.tensor([1, 1])},
    )
    assert {name: float(value) for name, value in found.items()} == {
        "task_accuracy": 0.5,
        "group_accuracy": 1.0,
        "hierarchy_agreement": 0.5,
    }


def test_domains_come_from_the_data_and_a_task_has_one_group():
    config = HsslConfig().for_domains(["a", "b", "c"], ["x", "y"], [(0, 1), (2, 0)])
    assert (config.tasks, config.groups, config.group_of) == (3, 2, (1, 0, 0))
    with pytest.raises(InputError, match="task 'b' is in the groups 'x' and 'y'"):
        HsslConfig().for_domains(["a", "b"], ["x", "y"], [(0, 0), (1, 0), (1, 1)])
    unnamed = HsslConfig().for_domains([""], ["x", "y"], [(0, 0), (0, 1)])
    assert (unnamed.tasks, unnamed.groups) == (1, 2)
    assert unnamed.levels_without_choice() == "task"
    assert HsslConfig(task_weight=0, groups=1, tasks=1).levels_without_choice() == "group"
    assert config.levels_without_choice() == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attach": ("dec1",)}, "stage joint"),
        ({"attach": ("enc4", "enc4")}, "twice"),
        ({"attach": ("enc4",), "attach_weights": (1.0, 1.0)}, "one number per map"),
        ({"image_weight": 0, "task_weight": 0, "group_weight": 0}, "nothing to learn"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        HsslConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"attach": ("enc7",)}, "no such map"), ({"stage": "joint", "decoder_channels": (4,) * 9}, "channels")],
)
def test_maps_that_are_not_there_are_refused(build_tiny, settings, words):
    with pytest.raises(InputError, match=words):
        build_tiny("hssl", 2, **{**TINY, **settings})


def test_overfits_a_tiny_batch(build_tiny, images, spatial_dims):
    method = build_tiny("hssl", spatial_dims, **TINY, stage="joint").train()
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    views = drawn(method, images(spatial_dims))
    history = []
    for step in range(30):
        losses = method(views, step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(float(losses.total.detach()))
    assert history[-1] < 0.75 * history[0]
    assert losses.metrics["feature_spread"] > 0.3
    assert min(losses.metrics["task_accuracy"], losses.metrics["group_accuracy"]) > 0.7


def test_domains_that_differ_in_brightness_are_told_apart_within_few_steps(build_tiny, spatial_dims):
    """B.4-3: both classification losses fall from the logarithm of their classes to nearly 0."""
    task = torch.tensor([0, 0, 1, 1, 2, 2])
    noise = torch.rand(6, 1, *(40,) * spatial_dims, generator=torch.Generator().manual_seed(0))
    image = 0.1 + 0.35 * task.view(-1, 1, *(1,) * spatial_dims) + 0.1 * noise
    data = Batch(
        image,
        torch.ones(6, spatial_dims),
        torch.zeros(6).long(),
        torch.arange(6),
        targets={"task": task, "group": (task > 0).long()},
    )
    views = {**VIEWS, "intensity": {name: 0.0 for name in ("energy_p", "gamma_p", "linear_p")}}
    method = build_tiny("hssl", spatial_dims, **{**TINY, "views": views}, image_weight=0).train()
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    for step in range(60):
        losses = method(drawn(method, data, seed=step), step)
        if step == 0:
            assert losses.metrics["enc4/task"].item() == pytest.approx(math.log(3), abs=1e-5)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.metrics["enc4/task"] < 0.05
    assert losses.metrics["enc4/group"] < 0.05
    assert losses.metrics["task_accuracy"] == losses.metrics["group_accuracy"] == 1
