"""Every method in small, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medssl.methods import METHODS
from medssl.nets.backbone import Backbone
from medssl.nets.encoders import ResidualEncoder
from medssl.protocols import Batch

CLUSTERS = {"prototypes": 8, "hidden": 16, "dim": 8}
PAIR = {"size": 32, "scale": [0.5, 1.0]}


class Tiny(NamedTuple):
    """Small settings of a method, the metric that shows collapse, and whether it can learn a fixed batch."""

    settings: dict[str, Any]
    signal: str
    steps: int = 10
    learns: bool = True


TINY = {
    "swav": Tiny(
        {
            "crops": {**CLUSTERS, "queue_length": 8},
            "cells": CLUSTERS,
            "cells_per_crop": 16,
            "global_size": 32,
            "local_size": 16,
            "local_count": 1,
            "freeze_prototypes_steps": 1,
        },
        signal="crops/feature_spread",
    ),
    "simclr": Tiny({"views": PAIR, "hidden": 16, "dim": 8}, signal="feature_spread"),
    "moco": Tiny(
        {"views": PAIR, "hidden": 16, "dim": 8, "queue_length": 16},
        signal="feature_spread",
        learns=False,  # its queue fills with the very images of the batch
    ),
    "byol": Tiny({"views": PAIR, "hidden": 16, "dim": 8}, signal="feature_spread"),
    "hssl": Tiny(
        {
            "stage": "joint",
            "views": PAIR,
            "dim": 8,
            "tasks": 2,
            "groups": 2,
            "decoder_channels": [4, 4, 4, 4],
        },
        signal="feature_spread",
    ),
    "lvm-med": Tiny(
        {"size": 32, "nodes": 4, "neighbours": 3, "dim": 8, "cells": 4, "gamma": 2, "gumbel_scale": 3.0},
        signal="match_accuracy",
        learns=False,  # its loss counts wrong rows under noise
    ),
    "synthesis": Tiny(
        {"global_size": 32, "cells_per_crop": 16, "hidden": 16, "dim": 8}, signal="feature_spread"
    ),
    "models-genesis": Tiny({"windows": 20}, signal="feature_spread"),
    "spark": Tiny({"width": 64}, signal="feature_spread"),
    "mae": Tiny({"width": 64, "ratio": 0.5}, signal="feature_spread"),
}


def make(name: str, spatial_dims: int, settings: Mapping[str, Any] | None = None) -> Any:
    """The method over a tiny encoder; ``settings`` in place of its tiny ones."""
    torch.manual_seed(0)
    entry = METHODS[name]
    config = entry.config_class().model_validate(TINY[name].settings if settings is None else settings)
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    return entry.build(config, Backbone(encoder), 2)


def make_batch(spatial_dims: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 1, *(8,) * spatial_dims, generator=generator)
    number = torch.arange(4)
    return Batch(
        image=nn.functional.interpolate(coarse, size=(32,) * spatial_dims),
        spacing=torch.ones(4, spatial_dims),
        modality=number % 2,
        index=number,
        targets={"task": number % 2, "group": number % 2},
    )


class SameBatch:
    """The same batch at every step."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def batches(self, start: int = 0) -> Iterator[Batch]:
        while True:
            yield self.batch


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors inside nested containers and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
