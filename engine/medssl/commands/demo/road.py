"""The steps of the demo, each a command that a user could have typed."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medssl.commands import embed, finetune, predict, probe, prototypes, search
from medssl.commands.demo.case import REGIONS, Case, own_case, sample_case
from medssl.commands.demo.folder import RUN, fresh_project
from medssl.commands.demo.strokes import strokes
from medssl.commands.demo.viewer import can_open, open_viewer, save_screenshot
from medssl.commands.predict import PredictResult
from medssl.commands.probe import ProbeResult
from medssl.commands.workspace import Workspace
from medssl.config.demo import DemoConfig
from medssl.config.embed import EmbedConfig
from medssl.config.finetune import BRIEF_STEPS, FinetuneConfig
from medssl.config.predict import PredictConfig
from medssl.config.probe import ProbeConfig
from medssl.config.prototypes import PrototypesConfig
from medssl.config.resume import under_way
from medssl.config.search import SearchConfig
from medssl.config.segmentation import SegmentationConfig
from medssl.errors import InputError
from medssl.evaluation.metrics import Overlap
from medssl.io import read_volume, samples, write_volume
from medssl.jobs.progress import Progress, Steps
from medssl.store.atomic import write_atomically
from medssl.store.labels import LabelStore
from medssl.store.project import Project

T = TypeVar("T")
DECODER = (6, 16, 32, 48)
"""Channels of the decoder that is fine-tuned: a CPU spends most of a step on the finest ones."""
LOOKS = 2
"""Looks at held-out patches during fine-tuning, after the one at its start."""
STEPS = (
    "read",
    "embed",
    "prototypes",
    "search",
    "scribble",
    "probe",
    "fine-tune",
    "segment",
    "detect",
    "view",
)
DETECTOR = "phantom-lesions"
"""Weights that find boxes: fine-tuned on a phantom, since no public scans with lesions are bundled."""


@dataclass
class DemoResult:
    """What the demo did; the content of ``report.json``.

    Args:
        out: folder of the results.
        input: the scan.
        device: where the networks ran.
        weights: name and checksum of the encoder.
        seconds: per step, in order.
        figures: what was measured: voxels labelled, Dice where the truth is known, hits.
        notes: what differs from the usual road, in sentences.
    """

    out: Path
    input: Path
    device: str = ""
    weights: Mapping[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "input": str(self.input),
            "device": self.device,
            "weights": dict(self.weights),
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "total_seconds": round(sum(self.seconds.values()), 2),
            "figures": self.figures,
            "notes": self.notes,
        }

    def to_text(self) -> str:
        """For the terminal."""
        lines = [f"{name:<12}{value:6.1f} s" for name, value in self.seconds.items()]
        lines += [f"{'total':<12}{sum(self.seconds.values()):6.1f} s on {self.device}"]
        lines += [f"{name}: {json.dumps(value)}" for name, value in self.figures.items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, f"results: {self.out}"])


class Clock:
    """Times the steps of the road and says each when it is done."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    def step(self, name: str, steps: Steps[T], say: Callable[[T], str]) -> Steps[T]:
        """Drive one step; ``say`` puts its result into words."""
        begin = time.perf_counter()
        result = yield from steps
        taken = self.seconds[name] = time.perf_counter() - begin
        done = STEPS.index(name) + 1
        yield Progress(done, len(STEPS), "demo", message=f"{name:<10} {taken:6.1f} s  {say(result)}")
        return result


def run(config: DemoConfig, workspace: Workspace | None = None) -> Steps[DemoResult]:
    """Walk the road and leave everything in ``config.out``.

    Args:
        config: scan, folder, weights.
        workspace: keeps scan, weights and features between the steps.
    """
    with under_way(config):
        return (yield from _walk(config, workspace))


def _walk(config: DemoConfig, workspace: Workspace | None) -> Steps[DemoResult]:
    out = config.out
    workspace = workspace or Workspace(config.device)
    result = DemoResult(out, config.input or Path("MNI152 T1 template"))
    clock = Clock(result.seconds)
    case, project = yield from clock.step(
        "read", _read(config, workspace, result), lambda found: _about(found[0])
    )
    entry = project.add_volume(case.volume, case.path)
    store = LabelStore(project, entry.id)
    for name in case.names:
        project.add_class(name)
    encoder = workspace.encoder(config.encoder, case.volume.spatial_dims)
    result.device = str(encoder.device)
    result.weights = {"name": config.encoder, "sha256": encoder.signature}
    common: dict[str, Any] = {"seed": config.seed, "device": config.device}
    image: dict[str, Any] = {**common, "input": case.path}

    index = project.folder / "index"
    embedding = EmbedConfig(encoder=config.encoder, data=case.path, out=index, **common)
    yield from clock.step("embed", embed.run(embedding, workspace), lambda r: f"{r.vectors} vectors")

    mapping = PrototypesConfig(encoder=config.encoder, out=out / "prototypes.nii.gz", k=config.k, **image)
    found = yield from clock.step(
        "prototypes", prototypes.run(mapping, workspace), lambda r: f"{len(r.counts) - 1}, {r.source}"
    )
    result.figures["prototypes"] = found.to_json()["k"]

    query = SearchConfig(index=index, at=case.seed, out=out / "hits.json", top=10, **image)
    hits = yield from clock.step(
        "search", search.run(query, workspace), lambda r: f"{len(r.hits)} places like voxel {r.voxel}"
    )
    result.figures["best_hit"] = hits.hits[0].to_json() if hits.hits else None

    labels = yield from clock.step("scribble", _scribble(config, case, store), _count)
    result.figures["labelled_voxels"] = int(np.count_nonzero(labels))
    scribbles = project.folder / "scribbles.nii.gz"
    write_volume(case.volume.with_array(labels, modality=""), scribbles)

    fitting = ProbeConfig(encoder=config.encoder, labels=scribbles, out=out / "probe.nii.gz", **image)

    def judge(written: ProbeResult | PredictResult) -> str:
        return _agreement(written.path, case, result)

    yield from clock.step("probe", probe.run(fitting, workspace), judge)
    store.set_proposal("probe", read_volume(fitting.out).array[0], author="probe", source=config.encoder)

    run_folder = project.runs_folder / RUN
    table = _table(project.folder / "data.csv", case.path, scribbles)
    tuning = FinetuneConfig(
        task="segmentation",
        data=table,
        out=run_folder,
        init=config.encoder,
        labels="scribbles",
        classes=dict(enumerate(case.names, start=1)),
        brief=True,
        steps=config.steps,
        evaluate_every=max(1, (config.steps or BRIEF_STEPS) // LOOKS),
        segmentation=SegmentationConfig(decoder_channels=DECODER),
        **common,
    )
    tuned = yield from clock.step("fine-tune", finetune.run(tuning, workspace), lambda r: r.message)
    if tuned.weights is None:  # the training loop took the signal, saved its checkpoint and ended
        raise KeyboardInterrupt
    result.figures["fine_tuning"] = {"use": tuned.use, "held_out": tuned.held_out, **tuned.scores}

    final = PredictConfig(model=str(run_folder), out=out / "segmentation.nii.gz", **image)
    yield from clock.step(
        "segment", predict.run(final, workspace), lambda r: _agreement(r.path, case, result)
    )
    store.set_proposal("network", read_volume(final.out).array[0], author="network", source=str(run_folder))
    store.close()

    yield from clock.step("detect", _detect(case, out, image, workspace, result), str)

    yield from clock.step("view", _view(config, project, result), str)
    write_atomically(out / "report.json", json.dumps(result.to_json(), indent=1))
    return result


def _read(config: DemoConfig, workspace: Workspace, result: DemoResult) -> Steps[tuple[Case, Project]]:
    """The scan, and the project that takes the place of the earlier one once scan and weights are there."""
    path = samples.brain_template() if config.input is None else config.input
    volume = yield from workspace.scan_steps(path, config.series, config.frame)
    workspace.encoder(config.encoder, volume.spatial_dims)
    project, kept = fresh_project(config.out)
    result.notes += [*volume.notes, *([kept] if kept else [])]
    if kept:
        yield Progress(0, None, "making the project", message=kept, notice=True)
    workspace.use_project(project)
    if config.input is None:
        return sample_case(workspace), project
    if config.series is not None or config.frame:  # a file of its own, which every step reads as it is
        path = project.folder / f"scan_{volume.modality.lower() or 'image'}.nii.gz"
        write_volume(volume, path)
        volume = workspace.volume(path)
    found = yield from prototypes.prototype_steps(
        volume, config.encoder, workspace, k=REGIONS, seed=config.seed
    )
    return own_case(volume, path, found.labels.array[0]), project


def _scribble(config: DemoConfig, case: Case, store: LabelStore) -> Steps[NDArray[np.uint8]]:
    yield Progress(0, 1, "scribbling")
    for edit in strokes(case.sure, config.strokes, np.random.default_rng(config.seed)):
        store.journal.append(edit)
    return store.restore()


def _table(path: Path, image: Path, label: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split"])
        writer.writerow([image.resolve(), label.resolve(), "train"])
    return path


def _detect(
    case: Case, out: Path, image: dict[str, Any], workspace: Workspace, result: DemoResult
) -> Steps[str]:
    """Boxes of the bundled detector as they are, with what they are worth beside them."""
    dims = case.volume.spatial_dims
    if dims != 3:
        result.notes.append(f"no boxes: {DETECTOR} is for 3 dimensions, the scan has {dims}")
        return result.notes[-1]
    finding = PredictConfig(model=DETECTOR, out=out / "detections.json", **image)
    found = yield from predict.run(finding, workspace)
    result.figures["detections"] = {"model": DETECTOR, "note": found.note, "boxes": dict(found.boxes)}
    result.notes.append(f"the boxes are those of the detector {DETECTOR}: {found.note}")
    return f"{sum(found.boxes.values())} boxes of {DETECTOR}: {found.note}"


def _view(config: DemoConfig, project: Project, result: DemoResult) -> Steps[str]:
    yield Progress(0, 1, "opening the viewer")
    on_display = can_open(config.headless)
    try:
        save_screenshot(project.folder, config.out / "screenshot.png", on_display=on_display)
        if on_display:
            open_viewer(project.folder)
    except InputError as error:
        result.notes.append(f"no screenshot: {error}")
        return result.notes[-1]
    return "screenshot.png; the viewer stays open" if on_display else "screenshot.png"


def _about(case: Case) -> str:
    shape = " x ".join(map(str, case.volume.geometry.shape))
    return f"{case.path.name}: {shape} voxels, {case.volume.modality or 'modality unknown'}"


def _count(labels: NDArray[np.uint8]) -> str:
    counts = np.bincount(labels.ravel())[1:]
    return f"{', '.join(map(str, counts))} voxels of {len(counts)} classes"


def _agreement(path: Path, case: Case, result: DemoResult) -> str:
    """Dice with the known truth, also kept as a figure."""
    if case.truth is None:
        return path.name
    overlap = Overlap(range(1, len(case.names) + 1))
    overlap.add(read_volume(path).array[0], case.truth)
    dice = {case.names[value - 1]: round(score, 3) for value, score in overlap.dice().items()}
    result.figures[f"dice_{path.name.partition('.')[0]}"] = dice
    return "Dice " + ", ".join(f"{name} {score:.2f}" for name, score in dice.items())
