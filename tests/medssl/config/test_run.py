"""What holds for every settings model."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import medssl.config
from medssl.config.finetune import FinetuneConfig
from medssl.config.run import RunConfig
from medssl.config.swav import SwavConfig
from medssl.config.synthesis import SynthesisConfig

REQUIRED = {"method": "swav", "task": "segmentation", "data": "data", "out": "out", "protocol": "transfer"}
"""What a command does not do without."""


def sections() -> Iterator[tuple[type[RunConfig], str]]:
    """Every model of the package with the name of each section in it."""
    models: set[type[RunConfig]] = set()
    for module in pkgutil.iter_modules(medssl.config.__path__, "medssl.config."):
        held = vars(importlib.import_module(module.name)).values()
        models |= {thing for thing in held if isinstance(thing, type) and issubclass(thing, RunConfig)}
    for model in sorted(models, key=lambda m: m.__name__):
        for name, field in model.model_fields.items():
            if isinstance(field.default, RunConfig):
                yield model, name


@pytest.mark.parametrize(
    ("model", "name"), [pytest.param(*s, id=f"{s[0].__name__}.{s[1]}") for s in sections()]
)
def test_one_setting_of_a_section_leaves_the_others(model: type[RunConfig], name: str) -> None:
    """Given as it is by default, it changes nothing, where the section differs from its class too."""
    default = model.model_fields[name].default
    for leaf, value in default.model_dump().items():
        needed = {field: REQUIRED[field] for field in model.model_fields if field in REQUIRED}
        assert getattr(model(**needed, **{name: {leaf: value}}), name) == default


def test_a_section_differs_from_its_class() -> None:
    assert SynthesisConfig.for_dims({"intensity": {"noise_sd": 0.03}}, 3).intensity.energy_p == 0
    cells = SwavConfig.for_dims({"cells": {"epsilon": 0.03}}, 2).cells
    assert (cells.weight, cells.prototypes, cells.epsilon) == (0, 256, 0.03)
    run = FinetuneConfig(task="segmentation", data="d", out="o", training={"lr": 1e-4})
    assert (run.training.lr, run.training.batch_size, run.training.keep) == (1e-4, 2, 3)
