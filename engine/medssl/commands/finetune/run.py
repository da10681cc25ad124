"""The road of a fine-tuning: read, train, judge on what was held out, export."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from importlib import import_module
from typing import cast

from medssl.commands.finetune.result import FinetuneResult
from medssl.commands.finetune.start import Outcome, Start
from medssl.commands.workspace import Workspace
from medssl.config.finetune import FinetuneConfig
from medssl.data.table import read_data
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.store.atomic import write_atomically
from medssl.store.project import Project
from medssl.store.runs import Run
from medssl.store.scratch import scratch_folder
from medssl.store.weights import anchored

_ROADS = {
    "segmentation": "medssl.commands.finetune.segmentation",
    "detection": "medssl.commands.finetune.detection",
    "classification": "medssl.commands.finetune.classification",
}
"""Module of each task; its ``road`` does the work."""


def run(config: FinetuneConfig, workspace: Workspace | None = None) -> Steps[FinetuneResult]:
    """Fine-tune, judge on held-out scans or labels, export what is better.

    Args:
        config: task, table, weights, mode; with ``resume`` the run goes on from its last checkpoint.
        workspace: keeps weights and features warm.

    Raises:
        InputError: settings, table or weights that cannot be used; several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("medssl finetune trains in one process; leave torchrun out (it is for pretrain)")
    begin = time.perf_counter()
    yield Progress(0, None, "starting", message=f"reading {config.data}")
    project = None if config.project is None else Project.open(config.project)
    warm = workspace or Workspace(config.device, project=project)
    init = warm.suited(config.init, (row.image for row in read_data(config.data)))
    config = config.model_copy(update={"init": init})
    loaded = None if init == "none" else warm.encoder(init)
    folder = _run_folder(config)
    road = cast("Callable[[Start], Steps[Outcome]]", import_module(_ROADS[config.task]).road)
    with folder.until_begun(), scratch_folder(folder.folder) as scratch:
        outcome = yield from road(Start(config, folder, scratch, warm, loaded))
    fitted = outcome.fitted
    result = FinetuneResult(
        run=folder.folder,
        use=outcome.use,
        message=outcome.message,
        held_out=outcome.held_out,
        scores=outcome.scores,
        step=0 if fitted is None else fitted.step,
        best_step=outcome.best_step,
        stopped="" if fitted is None else fitted.stopped,
        seconds=time.perf_counter() - begin,
        weights=folder.exported if outcome.use else None,
    )
    if outcome.use:
        write_atomically(folder.folder / "result.json", json.dumps(result.to_json(), indent=1) + "\n")
        yield Progress(result.step, result.step, "done", message=result.message)
    return result


def _run_folder(config: FinetuneConfig) -> Run:
    if config.resume is not None:
        run = Run.open(config.resume)
        run.clear_stop()
        run.restate(config.training.model_dump(mode="json"))
        return run
    places = {name: getattr(config, name) for name in ("data", "unlabelled", "project")}
    resolved = config.model_copy(
        update={
            "init": config.init if config.init == "none" else anchored(config.init),
            **{name: path.resolve() for name, path in places.items() if path is not None},
        }
    )
    return Run.create(config.out, resolved, device=config.device, seed=config.seed, command="finetune")
