"""Protocols that fine-tune a network per cell: label-fraction, convergence, robustness."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.commands.evaluate.assay import Assay, read_assay
from medssl.commands.evaluate.random_weights import random_encoder, random_like, random_twin
from medssl.commands.evaluate.robust import robustness, search_robustness
from medssl.commands.evaluate.trial import Start, Trial, TrialStore, train_steps
from medssl.commands.workspace import Workspace
from medssl.config.evaluate import SCRATCH, EvaluateConfig, shown_name
from medssl.data.held_out import share_of
from medssl.errors import InputError
from medssl.evaluation.cells import Cell, CellStore, cache_folder
from medssl.evaluation.cohort import Cohort, read_cohort
from medssl.evaluation.convergence import convergence
from medssl.evaluation.environment import environment
from medssl.evaluation.perturbations import LARGEST
from medssl.evaluation.report import Results
from medssl.inference.load import LoadedEncoder
from medssl.jobs.progress import Progress, Steps
from medssl.store.scratch import scratch_folder
from medssl.training.fabric import build_fabric

if TYPE_CHECKING:
    from torch import nn

_VERSION = 4
"""Raised when training or judging changes, so that cells of the old form are made anew."""

_TRAINING = ("task", "steps", "seconds", "batch_size", "crop", "lr", "encoder_rate", "mode")
_THAW = ("frozen_share", "thaw_share")
_OF_PROTOCOL = {
    "label-fraction": ("fractions", "test_subjects"),
    "convergence": ("fractions", "look_every", "look_subjects"),
    "robustness": (
        "fractions",
        "families",
        "strengths",
        "test_subjects",
        "search",
        "queries",
        "top",
        "margin_mm",
        "max_voxels",
    ),
}
"""Settings that training depends on, and those that the cells of each protocol depend on beside."""

_DESCRIPTIONS = {
    "label-fraction": "Every encoder is fine-tuned on nested shares of the training subjects (a smaller "
    "share is part of a larger one) with equal budgets, batches and new layers, and judged on the held-out "
    "subjects after the last step, with running statistics measured anew on training batches. A seed draws "
    "the subjects, the batches and all new weights.",
    "convergence": "Every encoder is fine-tuned on {share} and judged on held-out "
    "subjects every {look_every} steps. The target is the best score of training from scratch with "
    "the same seed; the speed-up is 1 - T_pre / T_scratch, with T the first look that reaches the target.",
    "robustness": "Networks fine-tuned on {share} are judged on held-out scans that were "
    "changed in {strengths} grades, the same for every network; the loss is that of the score, as area under "
    "its curve over the grades. Grade 1 is: {largest}. Search: precision of the best {top} hits in clean "
    "scans of other subjects, asked from cells of the changed scan, with the frozen features of the encoder "
    "before fine-tuning (from scratch: random weights, calibrated on the scans).",
}


def measure(config: EvaluateConfig, workspace: Workspace) -> Steps[Results]:
    """All cells of one protocol, networks and cells from disk where they were made before.

    Raises:
        InputError: tables, weights or settings that cannot be used; each names the way out.
    """
    if config.protocol == "convergence" and SCRATCH not in config.encoder:
        raise InputError(
            f"--encoder: convergence compares with training from scratch; add {SCRATCH} to the list"
        )
    yield Progress(0, None, "loading", message=f"loading {', '.join(config.encoder)}")
    starts = read_starts(config, workspace)
    dims = None if not any(start.is_pretrained for start in starts) else starts[0].encoder.spatial_dims
    fractions = config.fractions if config.protocol == "label-fraction" else config.fractions[-1:]
    total = len(config.data) * len(starts) * config.seeds * len(fractions)
    cells: list[Cell] = []
    data: dict[str, Any] = {}
    folder = cache_folder(config.out)
    for table in config.data:
        with scratch_folder(folder) as scratch:
            yield Progress(len(cells), total, config.protocol, message=f"reading {table.name}")
            assays = read_assays(config, table, starts, dims, scratch)
            assay = next(iter(assays.values()))
            if dims is None:
                starts = [without_weights(config.size, assay.spatial_dims)]
            notes = [f"{assay.subjects} to train on, {assay.held_subjects} held out", *assay.notes]
            if alike := alike_shares(fractions, assay.subjects):
                yield Progress(len(cells), total, config.protocol, message=alike, notice=True)
                notes.append(alike)
            data[assay.name] = {
                "sha256": assay.checksum,
                "subjects": assay.subjects + assay.held_subjects,
                "notes": [*notes, *said_grids(starts)],
            }
            benches = {grid: Bench(config, table, own, folder) for grid, own in assays.items()}
            for seed in range(config.seed, config.seed + config.seeds):
                for start in starts:
                    for fraction in fractions:
                        share = f", {100 * fraction:g} % of the labels" if len(fractions) > 1 else ""
                        said = f"{assay.name}, {start.kind}, seed {seed}{share}"
                        yield Progress(len(cells), total, config.protocol, message=said)
                        bench = benches[start.encoder.spacing_range]
                        cells.append((yield from bench.cell(start, fraction, seed)))
    device = str(workspace.device)
    return _results(config, cells, data, device, {s.kind: s.signature for s in starts if s.is_pretrained})


def alike_shares(fractions: Sequence[float], subjects: int) -> str:
    """Shares of the labels that come to the same subjects, in words; "" where there are none.

    Args:
        fractions: ascending.
        subjects: training subjects.
    """
    counts: dict[int, list[str]] = {}
    for fraction in fractions:
        counts.setdefault(share_of(subjects, fraction), []).append(f"{100 * fraction:g}")
    return "; ".join(
        f"{' and '.join(shares)} % of the labels are the same {count} of {subjects} training subjects"
        for count, shares in counts.items()
        if len(shares) > 1
    )


def read_assays(
    config: EvaluateConfig, table: Path, starts: Sequence[Start], dims: int | None, scratch: Path
) -> dict[tuple[float, float], Assay]:
    """The table once for each range of voxel spacings: every encoder is judged on its own working grid.

    All are trained on patches of one size, a multiple of every encoder's coarsest stride.
    """
    assays: dict[tuple[float, float], Assay] = {}
    multiple = lcm(16, *(step for start in starts for step in start.encoder.encoder.levels[-1].stride))
    for start in starts:
        grid = start.encoder.spacing_range
        if grid not in assays:
            folder = scratch / str(len(assays))
            folder.mkdir()
            assays[grid] = read_assay(config, table, grid, dims, folder)
            assays[grid].multiple = multiple
    return assays


def said_grids(starts: Sequence[Start]) -> list[str]:
    """A note where the encoders of a table have different working grids."""
    kinds: dict[tuple[float, float], list[str]] = {}
    for start in starts:
        kinds.setdefault(start.encoder.spacing_range, []).append(start.kind)
    if len(kinds) < 2:
        return []
    own = [f"{', '.join(names)} {low:g} to {high:g} mm" for (low, high), names in kinds.items()]
    return [f"every encoder on a working grid of its own: {'; '.join(own)}"]


def read_starts(config: EvaluateConfig, workspace: Workspace) -> list[Start]:
    """Every encoder of ``--encoder`` under a name of its own.

    none has the architecture of the first weights, and the default range of spacings.

    Raises:
        InputError: weights that cannot be loaded, of different dimensions, or of one name.
    """
    loaded = {name: workspace.encoder(name) for name in config.encoder if name != SCRATCH}
    if len({encoder.spatial_dims for encoder in loaded.values()}) > 1:
        raise InputError(
            "--encoder: encoders of 2 and of 3 dimensions cannot share a table; evaluate them apart"
        )
    starts = []
    for name in config.encoder:
        if name != SCRATCH:
            starts.append(Start(shown_name(name), loaded[name], loaded[name].signature))
        elif loaded:
            starts.append(Start("scratch", random_like(next(iter(loaded.values()))), ""))
        else:
            starts.append(without_weights(config.size, 3))
    kinds = [start.kind for start in starts]
    if len(set(kinds)) < len(kinds):
        raise InputError(f"--encoder: two are called {', '.join(kinds)}; rename a folder or file")
    return starts


def without_weights(size: str, spatial_dims: int) -> Start:
    """An encoder of the family, to be trained from scratch."""
    return Start("scratch", random_encoder(size, spatial_dims), "")


class Bench:
    """Trains what is not trained yet, and makes the cells of one table.

    Args:
        config: settings.
        table: data table.
        assay: the table as a task.
        folder: of everything that is kept.
    """

    def __init__(self, config: EvaluateConfig, table: Path, assay: Assay, folder: Path) -> None:
        self._config = config
        self._assay = assay
        self._cells = CellStore(folder / "cells")
        self._trials = TrialStore(folder / "trained")
        self._table = table
        self._cohort: Cohort | None = None
        self._fabric: Any = None

    def cell(self, start: Start, fraction: float, seed: int) -> Steps[Cell]:
        """One measurement, from disk where it was made before."""
        config, assay = self._config, self._assay
        training = self._training(start, fraction, seed)
        signature = {**training, **{name: getattr(config, name) for name in _OF_PROTOCOL[config.protocol]}}
        signature.pop("fractions", None)
        if config.protocol == "robustness" and config.test_subjects == 1:
            signature["searched"] = 2  # earlier versions searched in no other subject
        cell = self._cells.load(config.protocol, assay.name, start.kind, seed, signature)
        if cell is None:
            begin = time.perf_counter()
            task = assay.task(start.fresh(seed), seed=seed, is_pretrained=start.is_pretrained)
            trial = yield from self._trained(task, start, fraction, seed, training)
            cell = Cell(config.protocol, assay.name, start.kind, seed, f"{trial.subjects} subjects", {})
            cell = self._measure(cell, task, trial, fraction, start)
            cell = replace(cell, seconds=round(time.perf_counter() - begin, 2))
            self._cells.save(cell, signature)
        return cell

    def _measure(self, cell: Cell, task: nn.Module, trial: Trial, fraction: float, start: Start) -> Cell:
        config, assay = self._config, self._assay
        facts = {key: value for key, value in asdict(trial).items() if key not in ("looks", "scores")}
        if config.protocol == "convergence":
            series = {"steps": trial.looks, assay.metric: trial.scores}
            return replace(cell, series=series, detail=facts)
        if config.protocol == "robustness":
            metrics, series, detail = robustness(assay, task, config, cell.seed)
            if config.search and config.task == "segmentation":
                metrics |= search_robustness(
                    self._searched(), self._features(start, cell.seed), config, cell.seed
                )
            return replace(cell, metrics=metrics, series=series, detail={**facts, **detail})
        score, parts = assay.score(task)
        metric = f"{assay.metric}@{100 * fraction:g}"
        return replace(
            cell, metrics={metric: score}, detail={**facts, "fraction": fraction, "scores": dict(parts)}
        )

    def _searched(self) -> Cohort:
        """Held-out cases to search in, cut to what matters."""
        if self._cohort is None:
            config = self._config
            cohort = read_cohort(
                self._table,
                tasks=config.tasks,
                margin_mm=config.margin_mm,
                max_voxels=config.max_voxels,
                subjects=2,
            )
            # hits are looked for in other subjects, so there are two at least
            count = config.test_subjects and max(2, config.test_subjects)
            self._cohort = replace(cohort, cases=cohort.cases[:count])
        return self._cohort

    def _features(self, start: Start, seed: int) -> LoadedEncoder:
        """Frozen features before fine-tuning."""
        if start.is_pretrained:
            return start.encoder
        return random_twin(start.encoder, [case.volume for case in self._searched().cases], seed)

    def _trained(
        self, task: nn.Module, start: Start, fraction: float, seed: int, signature: dict[str, Any]
    ) -> Steps[Trial]:
        """Train ``task``, or take its weights from disk; those of the largest share are kept there."""
        is_watched = self._config.protocol == "convergence"
        digest = hashlib.sha256(json.dumps({**signature, "seed": seed}, sort_keys=True).encode()).hexdigest()[
            :16
        ]
        trial = None if is_watched else self._trials.load(digest, task)
        if trial is None:
            if self._fabric is None:
                self._fabric = build_fabric(self._config.device)
            trial = yield from train_steps(
                self._assay,
                task,
                is_pretrained=start.is_pretrained,
                fraction=fraction,
                seed=seed,
                settings=self._config,
                fabric=self._fabric,
                is_watched=is_watched,
            )
            if fraction == self._config.fractions[-1]:
                self._trials.save(digest, task, trial)
        return trial

    def _training(self, start: Start, fraction: float, seed: int) -> dict[str, Any]:
        """Everything a trained network depends on, but for its seed."""
        return {
            "data": self._assay.digest,
            "encoder": start.signature or dict(start.encoder.encoder.config),
            "fraction": fraction,
            "multiple": self._assay.multiple,  # other encoders beside it may have made the patches larger
            "version": _VERSION,
            **{name: getattr(self._config, name) for name in _TRAINING},
            **{name: getattr(self._config, name) for name in _THAW if self._config.mode == "frozen"},
        }


def _results(
    config: EvaluateConfig, cells: Sequence[Cell], data: dict[str, Any], device: str, weights: dict[str, str]
) -> Results:
    finish = {"label-fraction": merge_fractions, "convergence": compare_speed}
    settings = ("seed", "seeds", *_TRAINING, *_OF_PROTOCOL[config.protocol])
    words = {
        "largest": "; ".join(LARGEST[family] for family in config.families),
        "share": f"{100 * config.fractions[-1]:g} % of the training subjects",
    }
    return Results(
        protocol=config.protocol,
        cells=finish.get(config.protocol, list)(cells),
        settings={name: getattr(config, name) for name in settings},
        environment=environment(device),
        data=data,
        description=_DESCRIPTIONS[config.protocol].format(**config.model_dump(), **words),
        weights=weights,
        reference="scratch",
    )


def merge_fractions(cells: Sequence[Cell]) -> list[Cell]:
    """One cell for all shares of a table, encoder and seed, with the curve over the shares as series."""
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.data, cell.kind, cell.seed), []).append(cell)
    merged = []
    for group in groups.values():
        metrics = {name: value for cell in group for name, value in cell.metrics.items()}
        name = next(iter(metrics)).split("@")[0]
        series = {"percent": [100 * cell.detail["fraction"] for cell in group], name: list(metrics.values())}
        detail = {f"{100 * cell.detail['fraction']:g} %": cell.detail for cell in group}
        seconds = round(sum(cell.seconds for cell in group), 2)
        merged.append(
            replace(group[0], subject="", metrics=metrics, series=series, detail=detail, seconds=seconds)
        )
    return merged


def compare_speed(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with their speed-up over the one from scratch of the same table and seed."""
    scratch = {(cell.data, cell.seed): cell for cell in cells if cell.kind == "scratch"}
    compared = []
    for cell in cells:
        other = scratch[cell.data, cell.seed]
        name = next(name for name in cell.series if name != "steps")
        metrics = convergence(
            cell.series["steps"], cell.series[name], other.series["steps"], other.series[name]
        )
        compared.append(replace(cell, metrics=metrics))
    return compared
