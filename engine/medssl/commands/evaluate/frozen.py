"""Protocols that fit something small on frozen features: transfer, interactive, retrieval."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medssl.commands.evaluate.hits import retrieval
from medssl.commands.evaluate.kinds import DeepKind, FilterKind, Kind, RawKind
from medssl.commands.evaluate.random_weights import PROJECTION, RANDOM_PREFIX, random_encoder, random_twin
from medssl.commands.workspace import Workspace
from medssl.config.evaluate import SCRATCH, EvaluateConfig, shown_name
from medssl.errors import InputError
from medssl.evaluation.cells import Cell, CellStore, cache_folder
from medssl.evaluation.cohort import Cohort, read_cohort
from medssl.evaluation.environment import environment
from medssl.evaluation.protocols import interactive, transfer
from medssl.evaluation.report import Results
from medssl.inference.load import LoadedEncoder
from medssl.jobs.progress import Progress, Steps
from medssl.store.features import FeatureStore
from medssl.store.project import content_hash

_OF_PROTOCOL = {
    "transfer": ("voxels_per_class",),
    "interactive": ("clicks_per_class", "rounds", "goal"),
    "retrieval": ("queries", "top"),
}
"""Settings that the cells of each protocol depend on."""

_VERSIONS = {"transfer": 2, "interactive": 3, "retrieval": 1}
"""Raised when a protocol or the probe changes, so that cells of the old one are measured anew."""

_DESCRIPTIONS = {
    "transfer": "A classifier fitted on {voxels_per_class} voxels per class of one subject segments the "
    "other subjects; Dice averaged over the foreground classes, then over the subjects. All kinds of "
    "features see the same voxels.",
    "interactive": "A robot user labels {clicks_per_class} random voxels per class of one subject, then "
    "{rounds} times {clicks_per_class} voxels per class deep inside the largest errors; Dice of the "
    "foreground classes in that subject after every round. The goal is a Dice of {goal}.",
    "retrieval": "Share of the best {top} search hits in other subjects whose cell has the class of the "
    "query cell (majority of its voxels); {queries} queries per foreground class and subject, classes "
    "averaged.",
}


def measure(config: EvaluateConfig, workspace: Workspace) -> Steps[Results]:
    """All cells of one protocol on frozen features, from disk where they were made before.

    Raises:
        InputError: tables, weights or settings that cannot be used; each names the way out.
    """
    names = _named(config.encoder)
    yield Progress(0, None, "loading", message=f"loading {', '.join(config.encoder)}")
    subjects = 1 if config.protocol == "interactive" else 2
    cohorts = [
        read_cohort(
            table,
            tasks=config.tasks,
            margin_mm=config.margin_mm,
            max_voxels=config.max_voxels,
            subjects=subjects,
        )
        for table in config.data
    ]
    benches = {shown: Bench(config, _template(config, name, workspace, cohorts)) for shown, name in names}
    first = next(iter(benches))
    rows = [(shown, "weights") for shown in benches if "weights" in config.kinds]
    rows += [(first, kind) for kind in config.kinds if kind != "weights"]
    total = len(cohorts) * len(rows) * config.seeds
    cells: list[Cell] = []
    for cohort in cohorts:
        for shown, kind in rows:
            for seed in range(config.seed, config.seed + config.seeds):
                label = shown if kind == "weights" and len(benches) > 1 else kind
                yield Progress(
                    len(cells), total, config.protocol, message=f"{cohort.name}, {label}, seed {seed}"
                )
                cells.append(replace(benches[shown].cell(cohort, kind, seed), kind=label))
        for bench in benches.values():
            bench.forget()
    return _results(config, cohorts, list(benches.values()), cells)


def _named(encoders: Sequence[str]) -> list[tuple[str, str]]:
    """Every encoder under a name of its own for the tables."""
    if SCRATCH in encoders:
        raise InputError(f"--encoder {SCRATCH}: random weights are the kind random here; leave it out")
    shown = [shown_name(name) for name in encoders]
    if len(set(shown)) < len(shown):
        raise InputError(f"--encoder: two are called {', '.join(shown)}; rename a folder or file")
    return list(zip(shown, encoders, strict=True))


class Bench:
    """Makes feature kinds when they are needed, and cells that are not there yet.

    Args:
        config: settings.
        encoder: the weights under test.
    """

    def __init__(self, config: EvaluateConfig, encoder: LoadedEncoder) -> None:
        cache = cache_folder(config.out)
        self.encoder = encoder
        self._config = config
        self._cells = CellStore(cache / "cells")
        self._features = FeatureStore(cache / "features")
        self._kinds: dict[str, Kind] = {}

    def cell(self, cohort: Cohort, kind: str, seed: int) -> Cell:
        """One measurement, from disk where it was made before."""
        signature = self._signature(cohort, kind)
        protocol = self._config.protocol
        cell = self._cells.load(protocol, cohort.name, kind, seed, signature)
        if cell is None:
            begin = time.perf_counter()
            cell = self._measure(cohort, kind, seed)
            cell = replace(cell, seconds=round(time.perf_counter() - begin, 2))
            self._cells.save(cell, signature)
        return cell

    def forget(self) -> None:
        """Drop what is kept for one cohort."""
        self._kinds.clear()

    def _measure(self, cohort: Cohort, name: str, seed: int) -> Cell:
        config, kind = self._config, self._kind(cohort, name, seed)
        picked = cohort.pick(seed)
        case = cohort.cases[picked]
        cell = Cell(config.protocol, cohort.name, name, seed, case.subject, {})
        if config.protocol == "transfer":
            metrics, detail = transfer(
                kind,
                case,
                [*cohort.cases[:picked], *cohort.cases[picked + 1 :]],
                classes=cohort.classes,
                per_class=config.voxels_per_class,
                seed=seed,
            )
            return replace(cell, metrics=metrics, detail=detail)
        if config.protocol == "interactive":
            metrics, series = interactive(
                kind,
                case,
                classes=cohort.classes,
                per_class=config.clicks_per_class,
                rounds=config.rounds,
                goal=config.goal,
                seed=seed,
            )
            return replace(cell, metrics=metrics, series=series)
        metrics, detail = retrieval(cohort, kind.features, queries=config.queries, top=config.top, seed=seed)
        return replace(cell, subject="all", metrics=metrics, detail=detail)

    def _kind(self, cohort: Cohort, name: str, seed: int) -> Kind:
        key = f"random {seed}" if name == "random" else name
        if key not in self._kinds:
            self._kinds[key] = self._make(cohort, name, seed)
        return self._kinds[key]

    def _make(self, cohort: Cohort, name: str, seed: int) -> Kind:
        if name == "weights":
            return DeepKind(self.encoder, self._features)
        if name == "random":
            twin = random_twin(self.encoder, [case.volume for case in cohort.cases], seed)
            return DeepKind(twin, self._features)
        made = RawKind if name == "raw" else FilterKind
        return made(cohort, self.encoder.spacing_range)

    def _signature(self, cohort: Cohort, kind: str) -> dict[str, Any]:
        """Everything the numbers of a cell depend on, but for its protocol, table, kind and seed."""
        twin = {"encoder": dict(self.encoder.encoder.config), "projection": PROJECTION}
        return {
            "cases": [content_hash(case.volume) for case in cohort.cases],
            "labels": [hashlib.sha256(case.label.tobytes()).hexdigest() for case in cohort.cases],
            "encoder": self.encoder.signature if kind == "weights" else twin if kind == "random" else "",
            "spacing_range": list(self.encoder.spacing_range),
            "version": _VERSIONS[self._config.protocol],
            **{name: getattr(self._config, name) for name in _OF_PROTOCOL[self._config.protocol]},
        }


def _template(
    config: EvaluateConfig, name: str, workspace: Workspace, cohorts: Sequence[Cohort]
) -> LoadedEncoder:
    dims = {case.volume.spatial_dims for cohort in cohorts for case in cohort.cases}
    if len(dims) > 1:
        raise InputError("--data: images and volumes cannot be judged with one encoder; evaluate them apart")
    if not name.startswith(RANDOM_PREFIX):
        return workspace.encoder(name)
    if "weights" in config.kinds:
        kinds = ",".join(kind for kind in config.kinds if kind != "weights") or "random"
        raise InputError(f"--encoder {name}: has no weights to judge; add --kinds {kinds}")
    size = name.removeprefix(RANDOM_PREFIX)
    return random_encoder(size, dims.pop()).to(workspace.device)


def _results(
    config: EvaluateConfig, cohorts: Sequence[Cohort], benches: Sequence[Bench], cells: Sequence[Cell]
) -> Results:
    return Results(
        protocol=config.protocol,
        cells=cells,
        settings={
            name: getattr(config, name)
            for name in ("seed", "seeds", "margin_mm", "max_voxels", *_OF_PROTOCOL[config.protocol])
        },
        environment=environment(str(benches[0].encoder.device)),
        data={
            cohort.name: {
                "sha256": cohort.checksum,
                "subjects": len(cohort.cases),
                "notes": list(cohort.notes),
            }
            for cohort in cohorts
        },
        description=_DESCRIPTIONS[config.protocol].format(**config.model_dump()),
        weights={Path(bench.encoder.name).name: bench.encoder.signature for bench in benches},
        reference="random" if len(benches) > 1 else "",
    )
