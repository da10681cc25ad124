from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from medssl.commands import finetune, predict
from medssl.config.finetune import FinetuneConfig
from medssl.config.predict import PredictConfig
from medssl.errors import InputError
from medssl.io import write_volume
from medssl.jobs.progress import Progress, drain
from medssl.store.runs import Run
from medssl.store.weights import resolve
from medssl.volume import Geometry, Volume


def image(folder: Path, name: str, spatial_dims: int, kind: str, seed: int) -> str:
    """Noise with stripes ("stripes"), with spots ("spots"), with both or with none."""
    rng = np.random.default_rng(seed)
    shape = (22, 32, 40)[-spatial_dims:]
    array = 300 + rng.normal(0, 40, shape)
    if "stripes" in kind:
        array += 300 * (np.arange(shape[-1]) // 3 % 2)
    if "spots" in kind:
        array += 400 * (rng.random(shape) > 0.9)
    geometry = Geometry.from_arrays(shape, (0.5,) * spatial_dims)
    write_volume(
        Volume(array.clip(0, 1000).astype(np.int16)[None], geometry, "MR", name), folder / f"{name}.mha"
    )
    return f"{name}.mha"


def table(folder: Path, spatial_dims: int, kinds: tuple[str, ...], held: int = 2) -> Path:
    path = folder / "data.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "class", "split", "modality"])
        for split, count in (("train", 3), ("val", held)):
            for number in range(count):
                for index, kind in enumerate(kinds):
                    name = f"{split}{number}{index}"
                    file = image(folder, name, spatial_dims, kind, seed=100 * number + index + len(split))
                    writer.writerow([file, kind, split, "MR"])
    return path


def settings(data: Path, out: Path, weights: object, **changes: object) -> FinetuneConfig:
    values = {
        "task": "classification",
        "data": data,
        "out": out,
        "init": str(weights),
        "steps": 4,
        "batch_size": 4,
        "evaluate_every": 2,
        "device": "cpu",
        "classification": {"bootstrap": 50, "size": 32},
        **changes,
    }
    return FinetuneConfig.model_validate(values)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_whole_road_of_one_class_in_two(tmp_path, tiny_weights, spatial_dims):
    data, out = table(tmp_path, spatial_dims, ("stripes", "spots")), tmp_path / "run"
    said: list[Progress] = []
    result = drain(finetune.run(settings(data, out, tiny_weights[spatial_dims])), said.append)
    assert (result.step, result.stopped, result.held_out) == (4, "", "4 scans of split val")
    assert result.use in ("network", "probe")
    scores = result.scores["probe"]
    assert scores["auc_low"] <= scores["auc"] <= scores["auc_high"]
    assert set(scores["auc_by_class"]) == {"stripes", "spots"}
    assert result.to_json() == json.loads((out / "result.json").read_text())
    assert any("held_out_auc" in progress.metrics for progress in said)

    file = tmp_path / "val00.mha"
    done = drain(predict.run(PredictConfig(model=str(out), input=file, out=tmp_path / "c.json")))
    written = json.loads((tmp_path / "c.json").read_text())["classes"]
    assert {entry["class"]: entry["probability"] for entry in written} == done.probabilities
    values = [entry["probability"] for entry in written]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-4)

    # A scan longer than all that was learned from is seen to its ends.
    found, shape = [], (40, 32, 22)[:spatial_dims]
    for end in (np.arange(shape[-1]) % 2, np.arange(shape[-1]) < shape[-1] // 2):  # as many of each value
        array = np.full(shape, 300, np.int16)
        array[::3], array[:2] = 700, 1000 * end
        write_volume(Volume(array[None], Geometry.from_arrays(shape, (0.5,) * spatial_dims), "MR"), file)
        found.append(drain(predict.run(PredictConfig(model=str(out), input=file, out=tmp_path / "c.json"))))
    assert found[0].probabilities != found[1].probabilities


def test_several_classes_at_once_and_the_probe_alone(tmp_path, tiny_weights):
    data = table(tmp_path, 2, ("stripes", "spots", "stripes;spots", ""))
    result = drain(finetune.run(settings(data, tmp_path / "run", tiny_weights[2], mode="probe")))
    assert (result.use, result.step, list(result.scores)) == ("probe", 0, ["probe"])
    assert result.scores["probe"]["auc"] > 0.6
    assert resolve(tmp_path / "run").metadata["task"]["settings"]["multi_label"] is True
    found = {}
    for name in ("val00", "val02", "val03"):
        config = PredictConfig(
            model=str(tmp_path / "run"), input=tmp_path / f"{name}.mha", out=tmp_path / "c.json"
        )
        found[name] = drain(predict.run(config)).probabilities
    assert found["val02"]["stripes"] > found["val03"]["stripes"]
    before, after = load_file(tiny_weights[2]), load_file(tmp_path / "run" / "exported" / "model.safetensors")
    for name, values in before.items():
        if name.startswith("backbone.encoder.") and "num_batches" not in name:
            np.testing.assert_array_equal(values, after[name], err_msg=name)


def test_where_one_kind_is_held_out_accuracy_decides(tmp_path):
    data = table(tmp_path, 2, ("stripes", "spots"))
    lines = data.read_text().splitlines()
    data.write_text("\n".join(line for line in lines if "spots,val" not in line) + "\n")
    said: list[Progress] = []
    result = drain(finetune.run(settings(data, tmp_path / "run", "none", encoder="tiny")), said.append)
    assert any("held_out_accuracy" in progress.metrics for progress in said)
    assert not any(": AUC " in progress.message for progress in said)
    assert "no AUC" in result.message


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    config = settings(table(tmp_path, 2, ("stripes", "spots")), tmp_path / "whole", "none", encoder="tiny")
    assert drain(finetune.run(config)).use == "network"

    def stop(progress: Progress) -> None:
        if (progress.phase, progress.step) == ("training", 1):
            (tmp_path / "cut" / "stop").touch()

    cut = config.model_copy(update={"out": tmp_path / "cut"})
    assert drain(finetune.run(cut), stop).stopped == "stop"
    assert drain(finetune.run(cut.model_copy(update={"resume": tmp_path / "cut"}))).step == 4
    paths = [Run(tmp_path / name).checkpoints()[-1].parent / "best.safetensors" for name in ("whole", "cut")]
    whole, resumed = (load_file(path) for path in paths)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, resumed[name], err_msg=name)


def test_a_frozen_encoder_thaws_in_a_resumed_run_too(tmp_path, tiny_weights, thaws_alike):
    thaws_alike(settings(table(tmp_path, 2, ("stripes", "spots")), tmp_path / "run", tiny_weights[2]))


def test_bad_input_is_one_line(tmp_path, tiny_weights):
    def refused(match: str, lines: list[str], **changes: object) -> None:
        data = tmp_path / "bad.csv"
        data.write_text("\n".join(["image,class,split,modality", *lines]) + "\n")
        with pytest.raises(InputError, match=match) as caught:
            drain(finetune.run(settings(data, tmp_path / match[:5], tiny_weights[2], **changes)))
        assert "\n" not in str(caught.value)

    a, b = (image(tmp_path, name, 2, "spots", seed) for seed, name in enumerate("ab"))
    refused("no training image has a class", [f"{a},,train,MR", f"{b},,val,MR"])
    refused("every training image", [f"{a},x,train,MR", f"{b},x,val,MR"])
    refused("'z' of a held-out image", [f"{a},x,train,MR", f"{b},z,val,MR"])
    solid = image(tmp_path, "s", 3, "spots", 1)
    refused("has 3 dimensions", [f"{solid},x,train,MR", f"{a},y,train,MR", f"{b},x,val,MR"])
    refused(
        "exactly one",
        [f"{a},x;y,train,MR", f"{b},x,val,MR"],
        classification={"multi_label": False},
    )


def test_unlabelled_scans_join_in(tmp_path, tiny_weights):
    data = table(tmp_path, 2, ("stripes", "spots"))
    swav = {
        "global_size": 16,
        "local_size": 16,
        "local_count": 1,
        "cells_per_crop": 8,
        "crops": {"prototypes": 8, "hidden": 16, "dim": 8, "queue_length": 0},
        "cells": {"prototypes": 8, "hidden": 16, "dim": 8, "weight": 1.0},
    }
    changes = {
        "hybrid": 0.5,
        "unlabelled": data,
        "hybrid_settings": swav,
        "hybrid_crop": 24,
        "hybrid_batch": 4,
    }
    said: list[Progress] = []
    config = settings(data, tmp_path / "run", tiny_weights[2], **changes)
    result = drain(finetune.run(config), said.append)
    assert result.step == 4
    last = [progress.metrics for progress in said if "self_supervised" in progress.metrics][-1]
    assert np.isfinite(last["self_supervised"])
    assert any(name.startswith("ssl_cells") for name in last)
    (tmp_path / "all.caches").write_text("run/cache\n")
    listed = settings(
        data, tmp_path / "listed", tiny_weights[2], **{**changes, "unlabelled": tmp_path / "all.caches"}
    )
    assert drain(finetune.run(listed)).scores == result.scores
    for bad, match in (({"unlabelled": None}, "go together"), ({"mode": "probe"}, "learns no encoder")):
        with pytest.raises(ValidationError, match=match):
            settings(data, tmp_path / "x", tiny_weights[2], **{**changes, **bad})
    unknown = settings(data, tmp_path / "y", tiny_weights[2], **{**changes, "hybrid_method": "magic"})
    with pytest.raises(InputError, match="magic"):
        drain(finetune.run(unknown))
