from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from safetensors.numpy import load_file

from medssl import cli
from medssl.commands import finetune, predict
from medssl.commands.finetune.judge import Score
from medssl.commands.finetune.segmentation import better, sentence
from medssl.config.finetune import FinetuneConfig
from medssl.config.predict import PredictConfig
from medssl.errors import InputError
from medssl.io import read_volume, write_volume
from medssl.jobs.progress import Progress, drain
from medssl.store.runs import Run
from medssl.store.weights import resolve
from medssl.training.loop import fit
from medssl.volume import Geometry, Volume

_SPLITS = (("t", "train"), ("u", "train"), ("v", "val"))
SMALL = {"decoder_channels": (4, 6, 8, 8), "crop": 32, "intensity": False, "rotation": 0, "scaling": 1}


def case(
    folder: Path, name: str, spatial_dims: int, *, seed: int = 0, scribbles: bool = False
) -> tuple[str, str]:
    """A bright block on grey with its mask (1, or 2 beside background 1 as scribbles), on disk."""
    rng = np.random.default_rng(seed)
    shape = (24, 32, 40)[-spatial_dims:]
    mask = np.zeros(shape, np.uint8)
    corner = rng.integers(4, 10, spatial_dims)
    mask[tuple(slice(c, c + 12) for c in corner)] = 1
    image = (300 + 500.0 * mask + rng.normal(0, 40, shape)).clip(0, 1000).astype(np.int16)
    if scribbles:
        mask = (mask + 1) * (rng.random(shape) < 0.1)
    geometry = Geometry.from_arrays(shape, (0.5,) * spatial_dims, (3.0,) * spatial_dims)
    files = f"{name}.mha", f"{name}_label.mha"
    for file, values in zip(files, (image, mask.astype(np.uint8)), strict=True):
        write_volume(Volume(values[None], geometry, "MR", name), folder / file)
    return files


def table(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A data table of (image, label, split)."""
    path = folder / "data.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "split", "modality"])
        writer.writerows([*row, "MR"] for row in rows)
    return path


def cohort(folder: Path, spatial_dims: int) -> Path:
    train = [(*case(folder, f"t{n}", spatial_dims, seed=n), "train") for n in range(2)]
    return table(folder, [*train, (*case(folder, "v", spatial_dims, seed=9), "val")])


def settings(data: Path, out: Path, weights: object, **changes: object) -> FinetuneConfig:
    values = {
        "task": "segmentation",
        "data": data,
        "out": out,
        "init": str(weights),
        "steps": 4,
        "evaluate_every": 2,
        "device": "cpu",
        "segmentation": SMALL,
        **changes,
    }
    return FinetuneConfig.model_validate(values)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_whole_road(tmp_path, tiny_weights, spatial_dims):
    data = cohort(tmp_path, spatial_dims)
    said: list[Progress] = []
    out, weights = tmp_path / "run", tiny_weights[spatial_dims]
    result = drain(
        finetune.run(settings(data, out, weights, classes={1: "block", 9: "liver"})),
        said.append,
    )
    assert result.use in ("network", "probe")
    assert set(result.scores) == {"probe", "network"}
    assert (result.step, result.stopped) == (4, "")
    assert result.held_out == "1 scans of split val"
    assert result.to_json() == json.loads((out / "result.json").read_text())
    assert any("held_out_dice" in progress.metrics for progress in said)
    assert any(progress.message == "no label yet, left out: liver" for progress in said)
    count = sum("backbone.encoder." in key and "num_batches" not in key for key in load_file(weights))
    (line,) = [progress.message for progress in said if progress.message.startswith(f"{weights}: ")]
    assert f"encoder {count} of {count} tensors matched, 0 missing; 0 reshaped; new: decoder (" in line
    assert "segmentation (2 tensors), linear (3 tensors); not used: " in line
    assert line in [event["message"] for event in Run(out).events()]
    assert not list(out.glob("scratch-*")), "no voxels stay in the run folder"
    task = resolve(out).metadata["task"]
    assert task["classes"] == [{"value": 0, "name": "background"}, {"value": 1, "name": "block"}]

    source = read_volume(tmp_path / "v.mha")
    for model in (out, *(path for path in [out / "exported" / "network.safetensors"] if path.exists())):
        done = drain(
            predict.run(
                PredictConfig(model=str(model), input=tmp_path / "v.mha", out=tmp_path / "mask.nii.gz")
            )
        )
        mask = read_volume(tmp_path / "mask.nii.gz")
        assert mask.geometry.matches(source.geometry)
        assert sum(done.voxels.values()) == np.prod(source.geometry.shape)
        assert set(np.unique(mask.array)) <= {0, 1}


def test_a_scan_that_the_model_cannot_know_is_said(tmp_path, tiny_weights):
    out = tmp_path / "run"
    drain(finetune.run(settings(cohort(tmp_path, 2), out, tiny_weights[2], mode="probe")))
    scan = read_volume(tmp_path / "v.mha")
    config = PredictConfig(model=str(out), input=tmp_path / "ct.mha", out=tmp_path / "mask.mha")
    write_volume(Volume(2 * scan.array - 1024, scan.geometry, "CT"), config.input)
    assert resolve(out).metadata["modalities"] == ["MR"]
    said = "the scan is CT, the model learned from MR: do not trust it"
    assert said in drain(predict.run(config)).notes
    known = config.model_copy(update={"input": tmp_path / "v.mha"})
    assert not any("do not trust" in note for note in drain(predict.run(known)).notes)
    case(tmp_path, "solid", 3)
    solid = config.model_copy(update={"input": tmp_path / "solid.mha"})
    with pytest.raises(InputError, match=rf"^{solid.input}: has 3 dimensions, and {out} is for 2"):
        drain(predict.run(solid))


def test_a_probe_knows_modalities_from_the_files_where_the_table_names_none(tmp_path, tiny_weights):
    data = cohort(tmp_path, 2)
    lines = [line.rsplit(",", 1)[0] for line in data.read_text().splitlines()]
    data.write_text("\n".join(lines) + "\n")
    drain(finetune.run(settings(data, tmp_path / "run", tiny_weights[2], mode="probe")))
    assert resolve(tmp_path / "run").metadata["modalities"] == ["MR"]


def test_spellings_that_files_cannot_state_are_no_reason_for_distrust(tmp_path, tiny_weights):
    data = cohort(tmp_path, 2)
    data.write_text(data.read_text().replace(",MR\n", ",T1\n").replace(",MR\r\n", ",T1\r\n"))
    drain(finetune.run(settings(data, tmp_path / "run", tiny_weights[2], mode="probe")))
    assert resolve(tmp_path / "run").metadata["modalities"] == ["T1"]
    config = PredictConfig(model=str(tmp_path / "run"), input=tmp_path / "v.mha", out=tmp_path / "m.mha")
    assert not any("do not trust" in note for note in drain(predict.run(config)).notes)


def test_one_scan_with_one_small_structure_is_refused_with_a_way_out(tmp_path, tiny_weights):
    config = settings(table(tmp_path, [(*case(tmp_path, "t", 2), "")]), tmp_path / "run", tiny_weights[2])
    mask = read_volume(tmp_path / "t_label.mha")
    small = np.zeros_like(mask.array)
    small[:, 6:8, 6:8] = 1
    write_volume(mask.with_array(small), tmp_path / "t_label.mha")
    refused("each lies in one place, which is learned from; label another scan", config)


def test_a_probe_alone_segments_what_it_was_judged_on(tmp_path, tiny_weights):
    out = tmp_path / "run"
    result = drain(finetune.run(settings(cohort(tmp_path, 3), out, tiny_weights[3], mode="probe")))
    assert (result.use, result.step) == ("probe", 0)
    assert list(result.scores) == ["probe"]
    predict_config = PredictConfig(model=str(out), input=tmp_path / "v.mha", out=tmp_path / "mask.mha")
    assert drain(predict.run(predict_config)).kind == "probe"
    found, truth = read_volume(tmp_path / "mask.mha").array[0], read_volume(tmp_path / "v_label.mha").array[0]
    dice = 2 * ((found == 1) & (truth == 1)).sum() / ((found == 1).sum() + (truth == 1).sum())
    assert dice == pytest.approx(result.scores["probe"]["mean_dice"], abs=0.01)


def test_scribbles_of_one_scan_hold_out_blocks_and_say_so(tmp_path, tiny_weights):
    data = table(tmp_path, [(*case(tmp_path, "one", 2, scribbles=True), "")])
    config = settings(data, tmp_path / "run", tiny_weights[2], labels="scribbles")
    result = drain(finetune.run(config))
    assert "only scan" in result.held_out
    assert set(result.scores["probe"]["dice"]) == {"1", "2"}, "0 is no class here"
    assert [c["value"] for c in resolve(tmp_path / "run").metadata["task"]["classes"]] == [1, 2]


def test_a_stopped_run_exports_and_a_resumed_one_equals_an_uninterrupted_one(tmp_path, tiny_weights):
    data = cohort(tmp_path, 2)
    config = settings(data, tmp_path / "whole", tiny_weights[2])
    drain(finetune.run(config))

    def stop(progress: Progress) -> None:
        if (progress.phase, progress.step) == ("training", 1):
            (tmp_path / "cut" / "stop").touch()

    cut = config.model_copy(update={"out": tmp_path / "cut"})
    first = drain(finetune.run(cut), stop)
    assert (first.stopped, first.step) == ("stop", 2)
    assert first.weights is not None
    again = drain(finetune.run(cut.model_copy(update={"resume": tmp_path / "cut"})))
    assert (again.stopped, again.step) == ("", 4)
    paths = [Run(tmp_path / name).checkpoints()[-1].parent / "best.safetensors" for name in ("whole", "cut")]
    whole, resumed = (load_file(path) for path in paths)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, resumed[name], err_msg=name)


def test_the_command_that_an_interrupted_run_prints_continues_it(tmp_path, tiny_weights, capsys):
    config = settings(cohort(tmp_path, 2), tmp_path / "run", tiny_weights[2])
    steps = finetune.run(config)
    while next(steps).phase != "training":
        pass
    steps.close()
    assert cli.main(["finetune", "--resume", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 4


def test_a_run_of_relative_paths_goes_on_from_another_folder(tmp_path, tiny_weights, monkeypatch, capsys):
    cohort(tmp_path, 2)
    shutil.copy(tiny_weights[2], tmp_path / "w.safetensors")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    hybrid = {
        "unlabelled": Path("data.csv"),
        "hybrid": 0.1,
        "hybrid_method": "models-genesis",
        "hybrid_settings": {"decoder_channels": [5] * 4},
        "hybrid_crop": 32,
        "hybrid_batch": 2,
    }
    steps = finetune.run(settings(Path("data.csv"), Path("run"), "w.safetensors", **hybrid))
    while next(steps).phase != "training":
        pass
    steps.close()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["finetune", "--resume", "../run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 4
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["unlabelled"] == str(tmp_path / "data.csv")


@pytest.mark.parametrize("is_new", [True, False])
def test_statistics_are_kept_for_single_patches_where_they_were_learned(
    is_new, tmp_path, tiny_weights, monkeypatch
):
    # Those of a random network are not worth keeping: it learned next to nothing with them.
    kept = []

    def watched(task, *arguments, **options):
        kept.append(task.fix_statistics)
        return fit(task, *arguments, **options)

    monkeypatch.setattr("medssl.training.loop.fit", watched)
    init = {"encoder": "tiny"} if is_new else {}
    weights = "none" if is_new else tiny_weights[2]
    drain(finetune.run(settings(cohort(tmp_path, 2), tmp_path / "run", weights, batch_size=1, **init)))
    assert kept == [not is_new]


def test_a_patch_too_small_for_its_batch_is_refused_in_words(tmp_path):
    config = settings(
        cohort(tmp_path, 2),
        tmp_path / "run",
        "none",
        batch_size=1,
        encoder="resnet50",
        segmentation={"crop": 32},
    )
    with pytest.raises(
        InputError, match=r"more than 1 value per channel.*; change --batch-size or --segmentation.crop"
    ):
        drain(finetune.run(config))
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = FinetuneConfig(task="segmentation", data=tmp_path, out=tmp_path / "run", init="none")
    with pytest.raises(InputError, match="one process; leave torchrun out"):
        drain(finetune.run(config))
    assert not (tmp_path / "run").exists()


def test_a_frozen_encoder_thaws_in_a_resumed_run_too(tmp_path, tiny_weights, thaws_alike):
    thaws_alike(settings(cohort(tmp_path, 2), tmp_path / "run", tiny_weights[2]))


def test_from_nothing_there_is_no_probe(tmp_path):
    config = settings(cohort(tmp_path, 2), tmp_path / "run", "none", encoder="tiny")
    result = drain(finetune.run(config))
    assert (result.use, list(result.scores)) == ("network", ["network"])
    with pytest.raises(ValidationError, match="needs weights"):
        settings(tmp_path / "data.csv", tmp_path / "x", "none", mode="probe")


def test_the_probe_stays_unless_it_is_beaten():
    def score(mean: float) -> Score:
        return Score(mean, {1: mean}, {"scan": mean})

    for network, use in ((0.6, "network"), (0.5, "probe"), (0.4, "probe")):
        scores = {"probe": score(0.5), "network": score(network)}
        assert better(scores) == use
        assert ("does not beat" in sentence(scores, use)) == (use == "probe")
        assert ("the probe stays" in sentence(scores, use)) == (use == "probe")
    assert better({"probe": score(0.0)}) == "probe"
    assert better({"network": score(0.0)}) == "network"


@pytest.mark.parametrize(("gained", "lost", "use"), [(5, 0, "network"), (5, 3, "probe"), (16, 4, "network")])
def test_on_a_few_scribbled_voxels_the_network_must_beat_the_probe_clearly(gained, lost, use):
    """One standard deviation of a fair coin over the voxels that one model alone has right."""
    network, probe = np.ones(40, bool), np.ones(40, bool)
    probe[:gained] = False
    network[gained : gained + lost] = False
    scores = {"probe": Score(0.5, {}, {}, probe), "network": Score(0.6, {}, {}, network)}
    assert better(scores) == use
    assert ("does not clearly beat" in sentence(scores, use)) == (use == "probe")
    assert better({**scores, "network": Score(0.4, {}, {}, np.ones(40, bool))}) == "probe"


def refused(match: str, config: FinetuneConfig) -> None:
    with pytest.raises(InputError, match=match) as caught:
        drain(finetune.run(config))
    assert "\n" not in str(caught.value)


def test_bad_input_is_one_line(tmp_path, tiny_weights):
    train = (*case(tmp_path, "t", 2), "train")
    held = (*case(tmp_path, "v", 2, seed=3), "val")
    weights = tiny_weights[2]

    def config(rows: list[tuple[str, str, str]], name: str, **changes: object) -> FinetuneConfig:
        return settings(table(tmp_path, rows), tmp_path / name, weights, **changes)

    refused("no row has split train", config([held], "a"))

    mask = read_volume(tmp_path / "v_label.mha")
    write_volume(mask.with_array(mask.array * 3), tmp_path / "v3_label.mha")
    refused("class 3 is in no training subject", config([train, ("v.mha", "v3_label.mha", "val")], "b"))

    write_volume(mask.with_array(np.zeros_like(mask.array)), tmp_path / "empty.mha")
    refused("only class 0", config([("t.mha", "empty.mha", "train"), held], "c"))
    refused("nothing is labelled", config([("t.mha", "empty.mha", "train"), held], "d", labels="scribbles"))
    refused("no label", config([("t.mha", "", "train"), held], "e"))
    background = ("v.mha", "empty.mha", "val")
    refused("no mask that models are judged on", config([train, background], "g"))
    other = (*case(tmp_path, "w", 2, seed=4), "val")
    refused("with --judged-scans", config([train, background, other], "g", judged_scans=1))

    geometry = Geometry.from_arrays(mask.geometry.shape, (0.5, 0.5), (900.0, 0.0))
    write_volume(Volume(mask.array, geometry), tmp_path / "far.mha")
    refused("another grid", config([("t.mha", "far.mha", "train"), held], "f"))

    assert not list(tmp_path.glob("?")), "what was refused leaves its place to the corrected command"
    Run.create(tmp_path / "a", config([train, held], "a"))
    refused("holds a run already", config([train, held], "a"))
    refused("2 dimensions, the model 3", settings(table(tmp_path, [train]), tmp_path / "h", tiny_weights[3]))


@pytest.mark.parametrize(
    ("wrong", "words"), [("init", "nowhere"), ("label", "no label"), ("mask", "another grid")]
)
def test_a_refused_command_leaves_the_place_to_the_corrected_one(tmp_path, tiny_weights, wrong, words):
    rows = [(*case(tmp_path, name, 2, seed=seed), split) for seed, (name, split) in enumerate(_SPLITS)]
    (image, label, split), rest = rows[0], rows[1:]
    config = settings(table(tmp_path, rows), tmp_path / "run", tiny_weights[2], mode="probe")
    if wrong == "label":
        table(tmp_path, [(image, "", split), *rest])
    elif wrong == "mask":
        mask = read_volume(tmp_path / label)
        small = Geometry.from_arrays(tuple(n - 1 for n in mask.geometry.shape), mask.geometry.spacing)
        write_volume(Volume(mask.array[:, 1:, 1:], small), tmp_path / "small.mha")
        table(tmp_path, [(image, "small.mha", split), *rest])
    refused(words, config.model_copy(update={"init": "nowhere"}) if wrong == "init" else config)
    assert not config.out.exists()
    table(tmp_path, rows)
    assert drain(finetune.run(config)).use == "probe"
