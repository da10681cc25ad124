"""Pre-train an encoder with any registered method."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from medssl.config.augmentation import TurnsConfig
from medssl.config.data_facts import check_batch, fitted_to, warning
from medssl.config.hssl import HsslConfig
from medssl.config.pretrain import PretrainConfig
from medssl.config.run import RunConfig, explain
from medssl.config.sampling import LEAST_CROP, view_size, wanted_sampling
from medssl.config.synthesis import SynthesisConfig
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps
from medssl.store.atomic import write_atomically
from medssl.store.runs import Run
from medssl.store.weights import anchored, inherited, resolve, suited

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from medssl.commands.workspace import Workspace
    from medssl.data.cache import Cache
    from medssl.data.dataset import CropDataset, Loader
    from medssl.methods import MethodEntry
    from medssl.nets.backbone import Backbone
    from medssl.protocols import Batch

_CALIBRATION_BATCHES = 16
_PROJECTION_CROPS = 96
_PROJECTION_EDGE = {2: 256, 3: 80}
"""Voxels, before two crops of four fifths of it are taken: in smaller ones most cells feel the border."""


@dataclass(frozen=True)
class PretrainResult:
    """How a pre-training ended.

    Args:
        run: run folder.
        step: finished steps.
        stopped: "" when all steps are done, else "stop" or "signal".
        metrics: the last logged means.
        weights: exported file; None after a signal, when only the checkpoint was saved.
    """

    run: Path
    step: int
    stopped: str
    metrics: Mapping[str, float]
    weights: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        weights = None if self.weights is None else str(self.weights)
        return {**asdict(self), "run": str(self.run), "metrics": dict(self.metrics), "weights": weights}

    def to_text(self) -> str:
        """For the terminal."""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        if self.weights is None:
            return f"stopped after step {self.step} ({numbers}); go on with --resume {self.run}"
        return f"{self.step} steps ({numbers})\nweights: {self.weights}"


def run(config: PretrainConfig, workspace: Workspace | None = None) -> Steps[PretrainResult]:
    """Train, then measure running statistics, fit the feature projection and export.

    Args:
        config: method, data, run folder; with ``resume`` the run goes on from its last checkpoint.
        workspace: not needed by this command.
    """
    from medssl.training.fabric import build_fabric

    entry, settings = _method(config)
    config = config.model_copy(update={"sampling": wanted_sampling(config.sampling, settings, config.dims)})
    if config.init is not None:
        config = config.model_copy(update={"init": suited(config.init, config.dims)})
    if config.init is not None and config.resume is None:
        _check_start(config)
    loop = config.loop()
    check_batch(settings, loop.batch_size)
    for part in (settings, getattr(settings, "views", None), config.hybrid, config.synthesis):
        if isinstance(part, TurnsConfig):
            part.check_dims(config.dims)
    yield Progress(0, loop.steps, "starting", message="loading Lightning Fabric")
    # a mixture leaves out methods, an attached map the blocks behind it
    partial = config.generated > 0 or isinstance(settings, HsslConfig)
    fabric = build_fabric(config.device, loop.precision, partial=partial)
    if loop.batch_size % fabric.world_size:
        raise InputError(
            f"--batch-size {loop.batch_size}: take a multiple of the {fabric.world_size} processes"
        )
    folder = _run_folder(config, settings, str(fabric.device), fabric.is_global_zero)
    with folder.until_begun():
        return (yield from _train(config, entry, settings, fabric, folder))


def _train(
    config: PretrainConfig, entry: MethodEntry, settings: RunConfig, fabric: Fabric, folder: Run
) -> Steps[PretrainResult]:
    import torch

    from medssl.data.dataset import CropDataset, Loader
    from medssl.data.sampler import FamilySampler
    from medssl.nets.backbone import Backbone
    from medssl.nets.encoders import build_encoder, set_drop_path
    from medssl.training.first_step import blame_settings
    from medssl.training.loop import fit
    from medssl.training.optim import build_optimizer

    loop, sampling = config.loop(), config.sampling
    cache = yield from _open_data(config, settings, folder, fabric.is_global_zero)
    fabric.barrier()
    dataset = CropDataset(
        cache if cache is not None else _cache_of(folder),
        config.dims,
        (sampling.crop or LEAST_CROP[config.dims],) * config.dims,
        splits=sampling.splits,
        zoom=sampling.zoom,
        foreground=sampling.foreground,
        padding=sampling.padding,
        labels=config.hybrid.dense_weight > 0,
        name="" if config.data is None else str(config.data),
    )
    sampler = FamilySampler(
        dataset.families(sampling.family or "group"),
        loop.batch_size,
        seed=config.seed,
        balance=sampling.balance,
        together=sampling.together or 1,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    loader = Loader(dataset, sampler, workers=sampling.workers, prefetch=sampling.prefetch)
    torch.manual_seed(config.seed)
    backbone = Backbone(build_encoder(config.encoder, config.dims, padding=config.padding))
    try:
        set_drop_path(backbone.encoder, config.drop_path)
    except ValueError as error:
        raise InputError(f"--drop-path: {error}; given --encoder {config.encoder}") from error
    is_new = not folder.checkpoints()  # a resumed run may have been killed before its first one
    if config.init is not None and is_new:
        yield from _initialised(backbone, config.init, folder, fabric)
    settings = fitted_to(settings, dataset)
    if said := warning(settings, loop.batch_size, loop.steps, len(dataset.modalities)):
        yield Progress(0, loop.steps, "starting", message=said, notice=True)
    try:
        method = cast("nn.Module", entry.build(settings, backbone, len(dataset.modalities)))
    except ValueError as error:
        raise InputError(f"settings of {config.method}: {error}; given --encoder {config.encoder}") from error
    if config.init is not None and is_new and backbone.decoder is not None:
        yield from _initialised(backbone, config.init, folder, fabric)
    trainable = _mixed(config, _hybrid(config, settings, method, dataset), backbone)
    rate = getattr(method, "encoder_rate", 1.0)
    optimizer = None if rate == 1 else build_optimizer(
        trainable, loop, lambda name: rate if "backbone.encoder." in name else 1.0
    )  # fmt: skip
    steps = fit(trainable, loader, loop, fabric=fabric, run=folder, seed=config.seed, optimizer=optimizer)
    result = yield from blame_settings(steps, f"--sampling.crop or the settings of {config.method}")
    weights = None
    if result.stopped != "signal":
        yield Progress(result.step, loop.steps, "exporting", message="measuring statistics and projection")
        weights = folder.exported
        # every process measures statistics, for they are those of all; the first one writes
        origin = folder.folder / "origin.json"
        handed_on = json.loads(origin.read_text(encoding="utf-8")) if origin.exists() else {}
        place = weights if fabric.is_global_zero else None
        _export(config, method, loader, place, result.step, handed_on=handed_on)
        fabric.barrier()
    return PretrainResult(folder.folder, result.step, result.stopped, result.metrics, weights)


def _method(config: PretrainConfig) -> tuple[MethodEntry, RunConfig]:
    from medssl.methods import METHODS
    from medssl.nets.encoders import ENCODERS

    if config.encoder not in ENCODERS:
        raise InputError(f"--encoder {config.encoder}: unknown; choose from {', '.join(ENCODERS)}")
    if config.method not in METHODS:
        raise InputError(f"METHOD {config.method}: unknown; choose from {', '.join(METHODS)}")
    entry = METHODS[config.method]
    try:
        return entry, entry.config_class().for_dims(config.settings, config.dims)
    except ValidationError as error:
        raise InputError(f"settings of {config.method}: {explain(error)}") from error


def _check_start(config: PretrainConfig) -> None:
    """Refuse weights that do not fit before scans are prepared."""
    from medssl.nets.backbone import Backbone
    from medssl.nets.encoders import build_encoder
    from medssl.training.initialise import initialise

    initialise(Backbone(build_encoder(config.encoder, config.dims)), str(config.init))


def _hybrid(
    config: PretrainConfig, settings: RunConfig, method: nn.Module, dataset: CropDataset
) -> nn.Module:
    """The method, with supervised losses beside it where they have a weight."""
    if not config.hybrid.is_on:
        return method
    from medssl.methods.hybrid import Hybrid

    cache, hybrid = dataset.cache, config.hybrid
    size = hybrid.size or view_size(settings) or config.sampling.crop or LEAST_CROP[config.dims]
    hybrid = hybrid.model_copy(update={"size": size})
    if hybrid.class_weight and len(cache.classes) < 2:
        raise InputError(
            f"--hybrid.class-weight: {cache.folder} knows {len(cache.classes)} classes and needs two; "
            "fill the column class of the data table and prepare it anew"
        )
    if hybrid.dense_weight and len(cache.label_values) < 2:
        raise InputError(
            f"--hybrid.dense-weight: {cache.folder} holds no masks of two classes; "
            "fill the column label of the data table and prepare it with --labels"
        )
    multilabel = any(";" in text for text in cache.column("class"))
    return Hybrid(
        method,
        hybrid,
        classes=len(cache.classes),
        labels=len(cache.label_values),
        multilabel=multilabel,
    )


def _mixed(config: PretrainConfig, method: nn.Module, backbone: Backbone) -> nn.Module:
    """The method, with randomised synthesis beside it where that has a share."""
    if config.generated == 0:
        return method
    from medssl.methods.mixture import Mixture
    from medssl.methods.synthesis import Synthesis

    return Mixture(method, Synthesis(backbone, config.synthesis), config.generated)


def _initialised(backbone: Backbone, init: str, folder: Run, fabric: Fabric) -> Steps[None]:
    """Put weights in; what matched is said, and kept with the run."""
    from medssl.training.initialise import initialise

    said = Progress(0, None, "starting", message=initialise(backbone, init), notice=True)
    if fabric.is_global_zero:
        write_atomically(folder.folder / "origin.json", json.dumps(inherited(resolve(init).metadata)))
        folder.log(said)
    yield said


def _run_folder(config: PretrainConfig, settings: RunConfig, device: str, first: bool) -> Run:
    if config.resume is not None:
        run = Run.open(config.resume)
        run.clear_stop()
        if first:
            run.restate(config.training.model_dump(mode="json"))
        return run
    if not first:
        return Run(config.out)
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and (config.out / "config.yaml").exists():
        return Run.open(config.out)  # torchrun began anew after a worker died: go on from the checkpoint
    resolved = config.model_copy(
        update={
            "settings": settings.model_dump(mode="json"),
            "data": None if config.data is None else config.data.resolve(),
            "init": None if config.init is None else anchored(config.init),
        }
    )
    return Run.create(config.out, resolved, device=device, seed=config.seed, command="pretrain")


def _open_data(config: PretrainConfig, settings: RunConfig, folder: Run, first: bool) -> Steps[Cache | None]:
    """The prepared cache; what is not prepared yet is brought into the run folder."""
    from medssl.data.cache import Cache
    from medssl.data.shards import is_prepared, open_cache

    if config.data is not None and is_prepared(config.data):
        return open_cache(config.data)
    if not first:
        return None
    if isinstance(settings, SynthesisConfig) and config.data is None:
        from medssl.training.generated import write_generated

        place, intensity = folder.folder / "cache", settings.intensity.model_dump()
        yield from write_generated(place, config.cache, config.dims, intensity, config.seed)
        return Cache.open(place)
    from medssl.data.preparation import prepare_cache
    from medssl.data.table import read_data

    rows = read_data(cast("Path", config.data), config.sampling.splits)
    stored = config.cache
    if config.hybrid.dense_weight:
        stored = stored.model_copy(update={"labels": True})
    summary = yield from prepare_cache(rows, folder.folder / "cache", stored)
    for remark in summary.remarks:
        yield Progress(0, None, "preparing", message=remark, notice=True)
    return Cache.open(folder.folder / "cache")


def _cache_of(folder: Run) -> Cache:
    from medssl.data.cache import Cache

    return Cache.open(folder.folder / "cache")


def _export(
    config: PretrainConfig,
    trainable: Any,
    loader: Loader,
    path: Path | None,
    step: int,
    *,
    handed_on: Mapping[str, Any],
) -> None:
    import torch

    from medssl.data.dataset import Loader
    from medssl.nets.dense import DenseFeatures
    from medssl.training.calibration import calibrate_norms, calibrate_projection
    from medssl.training.export import export_weights

    device = next(trainable.parameters()).device
    generator = torch.Generator(device=device).manual_seed(config.seed)
    # batches after the last one of training: crops that no step has seen
    later = loader.batches(config.loop().steps * config.loop().accumulate)
    batches = [batch.to(device) for batch in islice(later, _CALIBRATION_BATCHES)]
    calibrate_norms(trainable, lambda batch: trainable(trainable.views(batch, generator), step), batches)
    backbone = trainable.backbone
    if getattr(trainable, "sees_corrupted", False):  # whoever loads it shows it whole images

        def decode(batch: Batch) -> object:
            # views are checked against the stride, the crops that they are cut from are not
            image = batch.image
            for axis, stride in enumerate(backbone.encoder.levels[-1].stride, start=2):
                image = image.narrow(axis, 0, image.shape[axis] // stride * stride)
            pyramid = backbone.encoder(image)
            return pyramid if backbone.decoder is None else backbone.decoder(image, pyramid)

        calibrate_norms(backbone, decode, batches)
    if path is None:
        return
    dense = DenseFeatures(backbone.encoder.levels).to(device)
    dataset = loader.dataset
    wide = Loader(dataset.with_crop((_PROJECTION_EDGE[config.dims],) * config.dims), loader.sampler)
    count = -(-_PROJECTION_CROPS // config.loop().batch_size)
    plain = (batch.to(device) for batch in islice(wide.batches(0), count))
    calibrate_projection(dense, backbone.encoder, plain, seed=config.seed)
    family = config.sampling.family or "group"
    metadata = {
        "method": config.method,
        "encoder": {"name": config.encoder, **backbone.encoder.config},
        "preprocessing": {"spacing_range": list(dataset.cache.config.spacing_range)},
        "modalities": list(dataset.modalities),
        **handed_on,
        "training": {
            "steps": step,
            "batch_size": config.loop().batch_size,
            "seed": config.seed,
            "volumes": len(dataset),
            "families": [] if family == "subject" else dataset.cache.column(family),
            "settings": config.digest(),
        },
    }
    if backbone.decoder is not None:
        metadata["decoder"] = backbone.decoder.config
    if hasattr(trainable, "prototype_blocks"):
        metadata["prototype_blocks"] = dict(
            zip(dataset.modalities, map(list, trainable.prototype_blocks()), strict=False)
        )
    modules = trainable.exported() if hasattr(trainable, "exported") else {}
    export_weights(path, backbone, metadata, dense=dense, modules=modules)
