"""`medssl evaluate` on tiny generated tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medssl import cli
from medssl.commands.evaluate import run
from medssl.commands.evaluate.frozen import Bench
from medssl.config.evaluate import EvaluateConfig
from medssl.errors import InputError
from medssl.evaluation.cells import Cell
from medssl.jobs.progress import Progress, drain

SPEED = {"seeds": 2, "voxels_per_class": 30, "clicks_per_class": 3, "rounds": 2, "queries": 4, "top": 3}


def write_table(folder: Path, subjects: int = 3, spatial_dims: int = 3, split: str = "val") -> Path:
    """A table of noisy images with a bright ball whose place differs by subject."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["image,label,subject,modality,task,split"]
    for number in range(subjects):
        rng = np.random.default_rng(number)
        shape = (32, 40, 36)[:spatial_dims]
        centre = np.array([15, 18, 17][:spatial_dims]) + rng.integers(-3, 4, spatial_dims)
        distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1)
        label = (distance < 10).astype(np.uint8)
        image = (300 + 400.0 * label + rng.normal(0, 20, shape)).astype(np.float32)
        for name, array in (("image", image), ("label", label)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{name}{number}.nii.gz"))
        rows.append(f"image{number}.nii.gz,label{number}.nii.gz,s{number},MR,balls,{split}")
    table = folder / "balls.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


def config(
    table: Path, weights: Path, out: Path, protocol: str = "transfer", **more: object
) -> EvaluateConfig:
    values = {"protocol": protocol, "data": (table,), "encoder": str(weights), "out": out, "device": "cpu"}
    return EvaluateConfig.model_validate({**values, **SPEED, **more})


@pytest.mark.parametrize("protocol", ["transfer", "interactive", "retrieval"])
def test_every_protocol_reports_every_kind(
    table: Path, tiny_weights: dict[int, Path], tmp_path: Path, protocol: str
) -> None:
    result = drain(run(config(table, tiny_weights[3], tmp_path, protocol)))
    assert [file.name for file in result.files] == ["results.json", "results.csv", "results.md", "plot.png"]
    assert all(file.stat().st_size > 100 for file in result.files)
    kinds = {cell.kind for cell in result.results.cells}
    assert kinds == {"weights", "random", "raw", "filters"}
    assert len(result.results.cells) == 8
    for cell in result.results.cells:
        assert all(0 <= value <= 1 for name, value in cell.metrics.items() if name != "voxels_to_goal")
    values = result.to_json()
    assert values["data"]["balls"]["subjects"] == 3
    assert len(values["data"]["balls"]["sha256"]) == 64
    assert values["environment"]["versions"]["torch"]
    if protocol != "retrieval":  # a bright ball: intensity alone finds it
        raw = [cell.metrics for cell in result.results.cells if cell.kind == "raw"]
        assert min(metrics.get("dice", metrics.get("last", 0)) for metrics in raw) > 0.9


def test_an_interrupted_evaluation_is_resumed_from_its_folder(table, tiny_weights, tmp_path, capsys) -> None:
    steps = run(config(table, tiny_weights[3], tmp_path / "out", "retrieval", kinds=("raw", "filters")))
    while next(steps).step < 1:
        pass
    steps.close()
    assert cli.main(["evaluate", "--resume", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"] == "retrieval"
    assert len(json.loads((tmp_path / "out" / "retrieval" / "results.json").read_text())["cells"]) == 4


def test_runs_with_equal_seeds_are_equal(table: Path, tiny_weights: dict[int, Path], tmp_path: Path) -> None:
    kinds = ("random", "filters")
    runs = [
        drain(run(config(table, tiny_weights[3], tmp_path / name, kinds=kinds, seeds=1))).results.cells
        for name in "ab"
    ]
    assert [cell.metrics for cell in runs[0]] == [cell.metrics for cell in runs[1]]
    other = drain(run(config(table, tiny_weights[3], tmp_path / "c", kinds=kinds, seeds=1, seed=7)))
    assert [cell.metrics for cell in other.results.cells] != [cell.metrics for cell in runs[0]]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds and seeds that are measured from now on."""
    measured: list[str] = []
    measure = Bench._measure

    def noted(self: Bench, cohort: object, name: str, seed: int) -> Cell:
        measured.append(f"{name} {seed}")
        return measure(self, cohort, name, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(Bench, "_measure", noted)
    return measured


def test_stopped_run_goes_on_and_equals_a_whole_one(
    table: Path, tiny_weights: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("weights", "random", "raw")
    whole = drain(run(config(table, tiny_weights[3], tmp_path / "whole", kinds=kinds)))
    steps = run(config(table, tiny_weights[3], tmp_path / "part", kinds=kinds))
    for progress in steps:
        if isinstance(progress, Progress) and progress.step == 3:
            break
    steps.close()
    assert not (tmp_path / "part" / "transfer").exists()
    measured = counted(monkeypatch)
    resumed = drain(run(config(table, tiny_weights[3], tmp_path / "part", kinds=kinds)))
    assert measured == ["random 1", "raw 0", "raw 1"]
    assert [c.metrics for c in resumed.results.cells] == [c.metrics for c in whole.results.cells]


def test_other_settings_are_measured_anew(
    table: Path, tiny_weights: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = counted(monkeypatch)
    for voxels, times in ((20, 1), (5, 2), (20, 2), (5, 2)):
        settings = config(table, tiny_weights[3], tmp_path, kinds=("random",), voxels_per_class=voxels)
        drain(run(settings))
        assert measured == ["random 0", "random 1"] * times


def test_random_architecture_needs_no_weights(table: Path, tmp_path: Path) -> None:
    settings = config(table, Path("random:tiny"), tmp_path, kinds=("random",), seeds=1)
    (cell,) = drain(run(settings)).results.cells
    assert cell.metrics["dice"] > 0.5


@pytest.mark.parametrize("encoder", ["random:huge", "random:tiny"])
def test_random_architecture_that_cannot_be_judged(table: Path, tmp_path: Path, encoder: str) -> None:
    kinds = ("random",) if encoder == "random:huge" else ("weights", "random")
    with pytest.raises(InputError, match="--encoder random"):
        drain(run(config(table, Path(encoder), tmp_path, kinds=kinds)))


def test_several_weights_share_a_table_and_its_references(
    tiny_weights: dict[int, Path], tmp_path: Path
) -> None:
    table = write_table(tmp_path / "flat", spatial_dims=2)
    other = tmp_path / "other.safetensors"
    shutil.copy(tiny_weights[2], other)
    both = (str(tiny_weights[2]), str(other))
    settings = config(table, tiny_weights[2], tmp_path / "out", kinds=("weights", "random"), seeds=1)
    results = drain(run(settings.model_copy(update={"encoder": both}))).results
    cells = {cell.kind: cell for cell in results.cells}
    assert list(cells) == [tiny_weights[2].stem, "other", "random"]
    assert cells["other"].metrics == cells[tiny_weights[2].stem].metrics, "equal weights"
    assert [row.kind for row in results.gains()] == [f"{tiny_weights[2].stem} - random", "other - random"]
    alone = drain(run(settings)).results
    assert alone.cells[0].metrics == cells["other"].metrics


def test_images_are_judged_like_volumes(tiny_weights: dict[int, Path], tmp_path: Path) -> None:
    table = write_table(tmp_path / "flat", spatial_dims=2)
    result = drain(run(config(table, tiny_weights[2], tmp_path / "out", seeds=1)))
    assert {cell.kind for cell in result.results.cells} == {"weights", "random", "raw", "filters"}


def test_too_few_val_subjects_take_others_and_say_so(tiny_weights: dict[int, Path], tmp_path: Path) -> None:
    table = write_table(tmp_path / "data")
    text = (
        table.read_text()
        .replace("s0,MR,balls,val", "s0,MR,balls,train")
        .replace("s1,MR,balls,val", "s1,MR,balls,train")
    )
    table.write_text(text)
    result = drain(run(config(table, tiny_weights[3], tmp_path / "out", kinds=("raw",))))
    assert result.results.data["balls"]["subjects"] == 3
    assert "too few val subjects" in (tmp_path / "out" / "transfer" / "results.md").read_text()


def test_bad_tables_give_one_reason(tiny_weights: dict[int, Path], tmp_path: Path) -> None:
    lonely = write_table(tmp_path / "lonely", subjects=1)
    with pytest.raises(InputError, match=r"1 labelled subject.*2 are needed"):
        drain(run(config(lonely, tiny_weights[3], tmp_path / "out")))
    unlabelled = write_table(tmp_path / "unlabelled")
    unlabelled.write_text("image,split\nimage0.nii.gz,val\n")
    with pytest.raises(InputError, match="no row has a label"):
        drain(run(config(unlabelled, tiny_weights[3], tmp_path / "out")))
    empty = write_table(tmp_path / "empty")
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((32, 40, 36), np.uint8)), str(empty.parent / "label1.nii.gz")
    )
    with pytest.raises(InputError, match="marks no voxel"):
        drain(run(config(empty, tiny_weights[3], tmp_path / "out")))
    shifted = write_table(tmp_path / "shifted")
    sitk.WriteImage(
        sitk.GetImageFromArray(np.ones((30, 40, 36), np.uint8)), str(shifted.parent / "label1.nii.gz")
    )
    with pytest.raises(InputError, match="does not lie on the grid"):
        drain(run(config(shifted, tiny_weights[3], tmp_path / "out")))


def test_tables_of_one_name_are_refused(table: Path, tiny_weights: dict[int, Path], tmp_path: Path) -> None:
    copy = tmp_path / "other" / table.name
    shutil.copytree(table.parent, copy.parent)
    with pytest.raises(InputError, match="own file name"):
        drain(run(config(table, tiny_weights[3], tmp_path / "out", data=(table, copy))))


@pytest.mark.parametrize(("spatial_dims", "name"), [(2, "default-2d"), (3, "default")])
def test_the_bundled_encoder_is_that_of_the_table(tmp_path: Path, spatial_dims: int, name: str) -> None:
    table = write_table(tmp_path, subjects=2, spatial_dims=spatial_dims)
    config = EvaluateConfig(protocol="transfer", data=(table,), out=tmp_path / "out", **SPEED, device="cpu")
    steps = run(config.model_copy(update={"kinds": ("weights",), "seeds": 1}))
    results = drain(steps).results
    assert set(results.weights) == {name}
    assert {cell.kind for cell in results.cells} == {"weights"}
