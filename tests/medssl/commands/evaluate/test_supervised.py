"""The protocols that fine-tune a network per cell, on tiny generated tables."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import SimpleITK as sitk
from safetensors import safe_open

from medssl.commands.evaluate import run
from medssl.commands.evaluate import supervised as supervised_module
from medssl.commands.evaluate.assay import some_subjects
from medssl.commands.evaluate.classification import ClassificationAssay
from medssl.commands.evaluate.segmentation import SegmentationAssay
from medssl.commands.evaluate.supervised import Bench, alike_shares, compare_speed, merge_fractions
from medssl.config.evaluate import EvaluateConfig
from medssl.data.table import read_data
from medssl.errors import InputError
from medssl.evaluation.cells import Cell
from medssl.jobs.progress import Progress, drain
from medssl.nets.encoders import ResidualEncoder
from medssl.store.weights import read_metadata, write_weights
from medssl.training.thaw import Thaw

BUDGET = {"steps": 3, "batch_size": 2, "crop": 16, "look_every": 2, "strengths": 2, "fractions": (0.25, 1.0)}


def config(table: Path, out: Path, protocol: str, *encoders: object, **more: object) -> EvaluateConfig:
    values = {
        "protocol": protocol,
        "data": (table,),
        "encoder": tuple(map(str, encoders)),
        "out": out,
        "seeds": 1,
        "device": "cpu",
    }
    return EvaluateConfig.model_validate({**values, **BUDGET, **more})


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, write_balls: Callable[..., Path]) -> dict[int, Path]:
    return {n: write_balls(tmp_path_factory.mktemp(f"balls{n}"), spatial_dims=n) for n in (2, 3)}


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_protocol_compares_weights_with_scratch(
    tables: dict[int, Path],
    tiny_weights: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spatial_dims: int,
) -> None:
    trained: list[str] = []
    train = supervised_module.train_steps

    def counted(*given: object, **named: object) -> object:
        trained.append(str(named["fraction"]))
        return train(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(supervised_module, "train_steps", counted)
    table, weights = tables[spatial_dims], tiny_weights[spatial_dims]

    result = drain(run(config(table, tmp_path, "label-fraction", weights, "none")))
    assert trained == ["0.25", "1.0"] * 2
    cells = {cell.kind: cell for cell in result.results.cells}
    assert list(cells) == [weights.stem, "scratch"]
    for cell in cells.values():
        assert list(cell.metrics) == ["dice@25", "dice@100"]
        assert cell.series["percent"] == [25, 100]
        assert all(0 <= value <= 1 for value in cell.metrics.values())
        assert [part["subjects"] for part in cell.detail.values()] == [1, 4]
        assert set(cell.detail["100 %"]["scores"]) == {"s4", "s5"}
    text = (tmp_path / "label-fraction" / "results.md").read_text()
    assert "Difference, paired by seed: mean Dice in the other subjects, 25 % of the labels" in text
    assert f"{weights.stem} - scratch" in text
    assert all(file.stat().st_size > 100 for file in result.files)

    result = drain(
        run(config(table, tmp_path, "robustness", weights, "none", families=("gamma", "rotation")))
    )
    assert len(trained) == 4, "the networks of all labels are on disk"
    assert "fine-tuned on 100 % of the training subjects" in result.results.description
    clean = cells["scratch"].metrics["dice@100"]
    (cell,) = [cell for cell in result.results.cells if cell.kind == "scratch"]
    assert cell.metrics["dice"] == pytest.approx(clean, abs=1e-9)
    families = ("gamma", "rotation")
    wanted = {"dice", "loss", "precision", "precision loss", *(f"loss in {name}" for name in families)}
    assert set(cell.metrics) == wanted | {f"precision loss in {name}" for name in families}
    assert 0 < cell.metrics["precision"] <= 1
    assert cell.series["strength"] == [0, 0.5, 1]
    assert len(cell.series["gamma"]) == 3

    result = drain(run(config(table, tmp_path, "convergence", weights, "none")))
    assert trained[4:] == ["1.0", "1.0"]
    (cell,) = [cell for cell in result.results.cells if cell.kind == "scratch"]
    assert cell.series["steps"] == [0, 2, 3]
    assert cell.metrics["best"] == cell.metrics["target"] == max(cell.series["dice"])
    assert cell.metrics.get("speed_up", 0) == 0


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_classes_of_whole_images_are_judged_by_auc(
    tables: dict[int, Path], tiny_weights: dict[int, Path], tmp_path: Path, spatial_dims: int
) -> None:
    given = {"task": "classification", "families": ("contrast", "scaling"), "fractions": (0.5, 1.0)}
    table, weights = tables[spatial_dims], tiny_weights[spatial_dims]
    result = drain(run(config(table, tmp_path, "label-fraction", weights, "none", **given)))
    for cell in result.results.cells:
        assert list(cell.metrics) == ["auc@50", "auc@100"]
        assert set(cell.detail["100 %"]["scores"]) == {"a", "b"}
    result = drain(run(config(table, tmp_path, "robustness", weights, **given)))
    (cell,) = result.results.cells
    assert set(cell.metrics) == {"auc", "loss in contrast", "loss in scaling", "loss"}
    refused("are of one kind", config(table, tmp_path, "label-fraction", weights, **given, test_subjects=1))


def test_whoever_has_none_of_several_classes_is_a_negative(
    write_balls: Callable[..., Path], tmp_path: Path
) -> None:
    table = write_balls(tmp_path / "balls", train=6, val=4, spatial_dims=2)
    lines = table.read_text().splitlines()

    def assay(*kinds: str) -> ClassificationAssay:
        """Of a table whose subjects have these classes in turn."""
        rows = [re.sub(",[ab],s", f",{kinds[n % len(kinds)]},s", line) for n, line in enumerate(lines[1:])]
        table.write_text("\n".join([lines[0], *rows]) + "\n")
        settings = config(table, tmp_path, "label-fraction", "none", task="classification")
        scratch = Path(tempfile.mkdtemp(dir=tmp_path))
        return ClassificationAssay(settings, table, (0.5, 1.25), 2, scratch)

    several = assay("a", "a;b", "")
    assert (several.multi_label, several.subjects, several.held_subjects) == (True, 6, 4)
    single = assay("a", "b", "")
    assert (single.multi_label, single.subjects, single.held_subjects) == (False, 4, 3)
    assert "3 rows without a class left out" in single.notes


def test_search_has_another_subject_to_look_in_however_few_are_judged(
    write_balls: Callable[..., Path], tmp_path: Path
) -> None:
    table = write_balls(tmp_path / "balls", val=3)
    for judged, searched in ((1, 2), (2, 2), (None, 3)):
        settings = config(table, tmp_path, "robustness", "none", test_subjects=judged)
        assert len(Bench(settings, table, None, tmp_path)._searched().cases) == searched  # type: ignore[arg-type]


def test_shares_that_are_the_same_subjects_are_named() -> None:
    assert alike_shares((0.05, 0.1, 0.25, 1.0), 4) == (
        "5 and 10 and 25 % of the labels are the same 1 of 4 training subjects"
    )
    assert alike_shares((0.05, 0.1, 0.25, 0.5, 1.0), 100) == ""


def test_runs_with_equal_seeds_are_equal_and_none_alone_has_the_dimensions_of_the_table(
    tables: dict[int, Path], tmp_path: Path
) -> None:
    runs = [
        drain(run(config(tables[2], tmp_path / name, "label-fraction", "none", size="tiny"))).results
        for name in "ab"
    ]
    first, second = ([cell.metrics for cell in results.cells] for results in runs)
    assert first == second
    assert runs[0].weights == {}


def test_scores_do_not_depend_on_the_order_of_encoders_with_different_grids(
    tables: dict[int, Path], tiny_weights: dict[int, Path], tmp_path: Path
) -> None:
    fine = tiny_weights[2]
    with safe_open(fine, "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  is no mapping
    metadata = {**read_metadata(fine), "preprocessing": {"spacing_range": [1.0, 1.5]}}
    coarse = tmp_path / "coarse.safetensors"
    write_weights(coarse, tensors, metadata)
    found = []
    for name, encoders in (("a", (fine, coarse, "none")), ("b", ("none", coarse, fine))):
        settings = config(tables[2], tmp_path / name, "label-fraction", *encoders, fractions=(1.0,))
        results = drain(run(settings)).results
        found.append({cell.kind: cell.metrics for cell in results.cells})
        (note,) = [note for note in results.data["balls"]["notes"] if "of its own" in note]
        assert "coarse 1 to 1.5 mm" in note
        assert "0.5 to 1.25 mm" in note
    assert found[0] == found[1]
    assert found[0]["coarse"] != found[0][fine.stem], "the same weights on another grid"


def test_patches_fit_the_coarsest_stride_of_all_encoders(
    tables: dict[int, Path], tiny_weights: dict[int, Path], tmp_path: Path
) -> None:
    encoder = ResidualEncoder(2, 1, (4, 8, 8, 8, 8), (1,) * 5)
    deep = tmp_path / "deep.safetensors"
    tensors = {f"backbone.encoder.{key}": value.numpy() for key, value in encoder.state_dict().items()}
    shape = {"name": "deep", **encoder.config}
    write_weights(deep, tensors, {**read_metadata(tiny_weights[2]), "encoder": shape})
    settings = config(
        tables[2], tmp_path, "label-fraction", deep, tiny_weights[2], "none", crop=32, fractions=(1.0,)
    )
    assert encoder.levels[-1].stride == (32, 32)
    cells = drain(run(settings)).results.cells
    assert [cell.kind for cell in cells] == ["deep", tiny_weights[2].stem, "scratch"]
    settings = settings.model_copy(update={"crop": 16, "encoder": (str(deep),), "out": tmp_path / "small"})
    drain(run(settings))  # 16 voxels are no whole cell: patches of 32
    beside, alone = (
        drain(run(config(tables[2], tmp_path / "two", "label-fraction", *given, fractions=(1.0,))))
        for given in ((tiny_weights[2], deep), (tiny_weights[2],))
    )
    (first, _), (second,) = beside.results.cells, alone.results.cells
    assert first.kind == second.kind == tiny_weights[2].stem
    assert first.metrics != second.metrics, "trained anew on patches of 16, not taken from those of 32"


def test_a_frozen_encoder_thaws_by_the_published_schedule(
    tables: dict[int, Path], tiny_weights: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    thaw = Thaw.__call__

    def watched(self: Thaw, step: int) -> None:
        thaw(self, step)
        (own,) = {group["lr_scale"] for group in self._optimizer.param_groups} - {1.0} or {1.0}
        rates.append(own)

    monkeypatch.setattr(Thaw, "__call__", watched)
    settings = config(
        tables[2],
        tmp_path,
        "label-fraction",
        tiny_weights[2],
        "none",
        mode="frozen",
        steps=8,
        fractions=(1.0,),
    )
    assert (settings.frozen_share, settings.thaw_share) == (10 / 70, 1 / 70)
    settings = settings.model_copy(update={"frozen_share": 0.5, "thaw_share": 1 / 8})
    drain(run(settings))
    assert rates == pytest.approx([0.1] * 5 + [0.2, 0.4, 0.8, 1.0]), "and none from scratch"
    drain(run(settings))
    assert len(rates) == 9, "the cell is on disk"
    drain(run(settings.model_copy(update={"frozen_share": 0.25})))
    assert len(rates) == 18, "another share is another cell"


def test_stopped_run_goes_on_with_the_cell_it_was_in(
    tables: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tables[2], tmp_path / "part", "label-fraction", "none", size="tiny", seeds=2)
    steps = run(settings)
    for progress in steps:
        if isinstance(progress, Progress) and (progress.phase, progress.step) == ("label-fraction", 2):
            break
    steps.close()
    scored: list[str] = []
    score = SegmentationAssay.score

    def counted(self: SegmentationAssay, *given: object, **named: object) -> object:
        scored.append("")
        return score(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(SegmentationAssay, "score", counted)
    resumed = drain(run(settings)).results.cells
    assert len(scored) == 2, "two of the four cells were there"
    whole = drain(run(settings.model_copy(update={"out": tmp_path / "whole"}))).results.cells
    assert [cell.metrics for cell in resumed] == [cell.metrics for cell in whole]


def test_a_budget_in_seconds_ends_training(tables: dict[int, Path], tmp_path: Path) -> None:
    settings = config(
        tables[2], tmp_path, "label-fraction", "none", size="tiny", steps=1000, seconds=0.05, fractions=(1.0,)
    )
    (cell,) = drain(run(settings)).results.cells
    facts = cell.detail["100 %"]
    assert 1 <= facts["steps"] < 1000
    assert facts["seconds"] >= 0.05


def test_speed_up_is_that_of_the_same_table_and_seed() -> None:
    def cell(kind: str, seed: int, scores: list[float]) -> Cell:
        return Cell("convergence", "knees", kind, seed, "", {}, {"steps": [0, 10, 20, 30], "dice": scores})

    cells = [
        cell("scratch", 0, [0, 0.2, 0.5, 0.4]),
        cell("swav", 0, [0, 0.5, 0.6, 0.7]),
        cell("scratch", 1, [0, 0.3, 0.4, 0.8]),
        cell("swav", 1, [0, 0.5, 0.6, 0.7]),
    ]
    found = [other.metrics for other in compare_speed(cells)]
    assert found[1] == {"best": 0.7, "target": 0.5, "reached": 1, "speed_up": 0.5, "steps_to_target": 10}
    assert found[3] == {"best": 0.7, "target": 0.8, "reached": 0}
    assert found[0]["speed_up"] == 0


def test_shares_of_one_seed_become_one_cell() -> None:
    cells = [
        Cell(
            "label-fraction",
            "knees",
            "swav",
            seed,
            "",
            {f"dice@{100 * share:g}": share},
            {},
            {"fraction": share},
        )
        for seed in (0, 1)
        for share in (0.05, 1)
    ]
    merged = merge_fractions(cells)
    assert [cell.metrics for cell in merged] == [{"dice@5": 0.05, "dice@100": 1}] * 2
    assert merged[0].series == {"percent": [5, 100], "dice": [0.05, 1]}


def refused(match: str, settings: EvaluateConfig) -> None:
    with pytest.raises(InputError, match=match) as caught:
        drain(run(settings))
    assert "\n" not in str(caught.value)


def test_bad_input_is_one_line(
    tables: dict[int, Path],
    tiny_weights: dict[int, Path],
    tmp_path: Path,
    write_balls: Callable[..., Path],
) -> None:
    table, weights = tables[2], tiny_weights[2]
    refused("add none", config(table, tmp_path, "convergence", weights))
    refused(
        "--task sculpture: cannot be evaluated",
        config(table, tmp_path, "label-fraction", "none", task="sculpture"),
    )
    refused("2 dimensions, the encoders 3", config(table, tmp_path, "label-fraction", tiny_weights[3]))
    refused("evaluate them apart", config(table, tmp_path, "label-fraction", weights, tiny_weights[3]))
    refused("two are called", config(table, tmp_path, "label-fraction", weights, weights))
    refused("no such size", config(table, tmp_path, "label-fraction", "none", size="huge"))
    refused("are the kind random here", config(table, tmp_path, "transfer", weights, "none"))
    refused("two are called", config(table, tmp_path, "transfer", weights, weights))
    dark = write_balls(tmp_path / "dark", spatial_dims=2)
    mask = sitk.ReadImage(str(dark.parent / "label4.nii.gz"))
    for name in ("label4", "label5"):  # of the val subjects
        sitk.WriteImage(mask * 0, str(dark.parent / f"{name}.nii.gz"))
    refused("no held-out mask that is judged holds a class", config(dark, tmp_path, "label-fraction", "none"))
    sitk.WriteImage(mask, str(dark.parent / "label4.nii.gz"))
    drain(run(config(dark, tmp_path, "label-fraction", "none")))
    looks = {"look_subjects": 1, "steps": 1}
    first = some_subjects(read_data(dark)[4:], None)[0].subject
    for name in ("label4", "label5"):
        sitk.WriteImage(mask * (name[-1] not in first), str(dark.parent / f"{name}.nii.gz"))
    refused("--look-subjects", config(dark, tmp_path, "convergence", "none", **looks))
    few = write_balls(tmp_path / "few", train=2, val=0, spatial_dims=2)
    refused("too few subjects", config(few, tmp_path, "label-fraction", "none"))
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        config(table, tmp_path, "label-fraction", "none", fractions=(5,))
