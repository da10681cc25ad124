from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from medssl.commands import finetune, predict
from medssl.config.finetune import FinetuneConfig
from medssl.config.predict import PredictConfig
from medssl.errors import InputError
from medssl.io import read_volume, write_volume
from medssl.io.tables import read_boxes, write_boxes
from medssl.jobs.progress import Progress, drain
from medssl.store.runs import Run
from medssl.store.weights import resolve
from medssl.volume import Geometry, Volume
from medssl.volume.regions import Box

SMALL = {"channels": 8, "depth": 1, "levels": 2, "crop": 32, "intensity": False, "least_score": 0.0}


def case(folder: Path, name: str, spatial_dims: int, seed: int, *, with_mask: bool = False) -> list[str]:
    """A bright block on grey with its box, or its mask, on disk: cells image, label, boxes."""
    rng = np.random.default_rng(seed)
    shape = (24, 32, 40)[-spatial_dims:]
    corner = rng.integers(4, 12, spatial_dims)
    box = Box(tuple(corner.tolist()), tuple((corner + 6).tolist()), "block")
    mask = np.zeros(shape, np.uint8)
    mask[tuple(map(slice, box.start, box.stop))] = 1
    image = (300 + 500.0 * mask + rng.normal(0, 40, shape)).clip(0, 1000).astype(np.int16)
    geometry = Geometry.from_arrays(shape, (0.5,) * spatial_dims, (3.0,) * spatial_dims)
    write_volume(Volume(image[None], geometry, "MR", name), folder / f"{name}.mha")
    if with_mask:
        write_volume(Volume(mask[None], geometry, "", name), folder / f"{name}_label.mha")
        return [f"{name}.mha", f"{name}_label.mha", ""]
    write_boxes([box], folder / f"{name}.csv")
    return [f"{name}.mha", "", f"{name}.csv"]


def table(folder: Path, rows: list[list[str]]) -> Path:
    path = folder / "data.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "boxes", "split", "modality"])
        writer.writerows([*row, "MR"] for row in rows)
    return path


def cohort(folder: Path, spatial_dims: int, *, with_mask: bool = False) -> Path:
    train = [[*case(folder, f"t{n}", spatial_dims, n, with_mask=with_mask), "train"] for n in range(2)]
    return table(folder, [*train, [*case(folder, "v", spatial_dims, 9), "val"]])


def settings(data: Path, out: Path, weights: object, **changes: object) -> FinetuneConfig:
    values = {
        "task": "detection",
        "data": data,
        "out": out,
        "init": str(weights),
        "steps": 4,
        "evaluate_every": 2,
        "device": "cpu",
        "detection": SMALL,
        **changes,
    }
    return FinetuneConfig.model_validate(values)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_whole_road(tmp_path, tiny_weights, spatial_dims):
    out = tmp_path / "run"
    said: list[Progress] = []
    config = settings(cohort(tmp_path, spatial_dims), out, tiny_weights[spatial_dims], note="of blocks")
    result = drain(finetune.run(config), said.append)
    assert (result.use, result.step, result.held_out) == ("network", 4, "1 scans of split val")
    assert set(result.scores["network"]) == {
        "map_10", "map_50", "froc", "sensitivity_at_1", "scans", "boxes"
    }  # fmt: skip
    assert result.to_json() == json.loads((out / "result.json").read_text())
    assert any("held_out_map" in progress.metrics for progress in said)
    assert not list(out.glob("scratch-*"))
    assert resolve(out).metadata["task"]["classes"] == [{"value": 0, "name": "block"}]

    source = read_volume(tmp_path / "v.mha").geometry
    done = drain(
        predict.run(PredictConfig(model=str(out), input=tmp_path / "v.mha", out=tmp_path / "d.json"))
    )
    written = json.loads((tmp_path / "d.json").read_text())
    found = written["boxes"]
    assert (written["model"], written["note"], done.note) == (str(out), "of blocks", "of blocks")
    assert "of blocks" in done.to_text()
    assert done.task == "detection"
    assert done.boxes == {"block": len(found)}
    assert found
    for box in found:
        start, stop = np.array(box["voxel"]).reshape(2, -1)
        assert (start >= 0).all()
        assert (stop <= source.shape).all()
        corners = source.to_world(np.array([start, stop]) - 0.5)[:, ::-1]
        np.testing.assert_allclose(box["mm"], corners)
        assert 0 <= box["score"] <= 1
        assert box["class"] == "block"
    drain(predict.run(PredictConfig(model=str(out), input=tmp_path / "v.mha", out=tmp_path / "d.csv")))
    assert [[*box.start, *box.stop] for box in read_boxes(tmp_path / "d.csv")] == [
        box["voxel"] for box in found
    ]
    scores = sorted(box["score"] for box in found)
    middle = scores[len(scores) // 2]
    drain(
        predict.run(
            PredictConfig(
                model=str(out), input=tmp_path / "v.mha", out=tmp_path / "e.json", least_score=middle
            )
        )
    )
    best = json.loads((tmp_path / "e.json").read_text())["boxes"]
    assert sorted(box["score"] for box in best) == [score for score in scores if score >= middle]
    with pytest.raises(InputError, match="detection writes"):
        drain(predict.run(PredictConfig(model=str(out), input=tmp_path / "v.mha", out=tmp_path / "d.mha")))


def test_unlabelled_scans_join_in(tmp_path, tiny_weights):
    part = {"prototypes": 8, "hidden": 16, "dim": 8}
    hybrid = {
        "hybrid": 0.5,
        "unlabelled": tmp_path / "data.csv",
        "hybrid_settings": {"crops": part, "global_size": 16, "local_size": 16, "local_count": 1},
        "hybrid_crop": 24,
        "hybrid_batch": 4,
    }
    said: list[Progress] = []
    result = drain(
        finetune.run(settings(cohort(tmp_path, 2), tmp_path / "run", tiny_weights[2], **hybrid)), said.append
    )
    assert (result.use, result.step) == ("network", 4)
    last = [progress.metrics for progress in said if "self_supervised" in progress.metrics][-1]
    assert 0 < last["self_supervised"] < 10
    assert last["ssl_crops/code_entropy"] < 0.999 * np.log(8)


def test_masks_become_boxes_and_a_probe_leaves_the_encoder(tmp_path, tiny_weights):
    data = cohort(tmp_path, 2, with_mask=True)
    config = settings(data, tmp_path / "run", tiny_weights[2], mode="probe", classes={1: "block"})
    result = drain(finetune.run(config))
    assert result.use == "network"
    before, after = load_file(tiny_weights[2]), load_file(tmp_path / "run" / "exported" / "model.safetensors")
    for name, values in before.items():
        if name.startswith("backbone.encoder.") and "num_batches" not in name:
            np.testing.assert_array_equal(values, after[name], err_msg=name)
    assert resolve(tmp_path / "run").metadata["task"]["network"]["is_linear"] is True


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    config = settings(cohort(tmp_path, 2), tmp_path / "whole", "none", encoder="tiny")
    drain(finetune.run(config))

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
    thaws_alike(settings(cohort(tmp_path, 2), tmp_path / "run", tiny_weights[2]))


def test_bad_input_is_one_line(tmp_path, tiny_weights):
    def refused(match: str, rows: list[list[str]]) -> None:
        with pytest.raises(InputError, match=match) as caught:
            drain(finetune.run(settings(table(tmp_path, rows), tmp_path / match[:6], tiny_weights[2])))
        assert "\n" not in str(caught.value)

    train, held = [*case(tmp_path, "t", 2, 0), "train"], [*case(tmp_path, "v", 2, 9), "val"]
    refused("needs the column boxes", [[train[0], "", "", "train"], held])
    refused("3 dimensions|2 dimensions", [[*case(tmp_path, "s", 3, 1), "train"], held])
    write_boxes([], tmp_path / "none.csv", 2)
    refused("training scans have no box", [[train[0], "", "none.csv", "train"], held])
    refused("held-out scans have no box", [train, [held[0], "", "none.csv", "val"]])
    write_boxes([Box((1, 1), (4, 4), "cyst")], tmp_path / "other.csv")
    refused("'cyst' of a held-out scan", [train, [held[0], "", "other.csv", "val"]])
