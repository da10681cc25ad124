"""Unlabelled scans beside the labelled ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from medssl.commands.finetune.start import Start
from medssl.config.data_facts import check_batch, fitted_to, warning
from medssl.config.prepare import CacheConfig
from medssl.config.pretrain import SamplingConfig
from medssl.config.run import explain
from medssl.config.sampling import wanted_sampling
from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps

if TYPE_CHECKING:
    from medssl.data.cache import Cache
    from medssl.training.loop import Batches


def with_unlabelled(start: Start, task: Any, loader: Batches) -> Steps[tuple[Any, Batches]]:
    """Task and loader as they are, or joined with the self-supervised method on the unlabelled scans.

    Raises:
        InputError: unknown method or settings, no readable scan.
    """
    config = start.config
    if config.unlabelled is None:
        return task, loader
    from medssl.data.dataset import CropDataset, Loader
    from medssl.data.sampler import FamilySampler
    from medssl.methods import METHODS
    from medssl.nets.backbone import Backbone
    from medssl.tasks.hybrid import HybridTask, PairedLoader

    if config.hybrid_method not in METHODS:
        raise InputError(f"--hybrid-method {config.hybrid_method}: unknown; choose from {', '.join(METHODS)}")
    entry, dims, loop = METHODS[config.hybrid_method], task.network.encoder.spatial_dims, config.loop()
    try:
        settings = entry.config_class().for_dims(config.hybrid_settings, dims)
    except ValidationError as error:
        raise InputError(f"--hybrid-settings of {config.hybrid_method}: {explain(error)}") from error
    check_batch(settings, config.hybrid_batch, "--hybrid-batch")
    cache = yield from _cache(start)
    sampling = wanted_sampling(SamplingConfig(crop=config.hybrid_crop), settings, dims)
    dataset = CropDataset(cache, dims, (sampling.crop or 0,) * dims)
    sampler = FamilySampler(
        dataset.families(sampling.family or "group"),
        config.hybrid_batch,
        seed=config.seed,
        together=sampling.together or 1,
    )
    settings = fitted_to(settings, dataset)
    if said := warning(settings, config.hybrid_batch, loop.steps, len(dataset.modalities)):
        yield Progress(0, loop.steps, "starting", message=f"unlabelled scans: {said}", notice=True)
    # on a backbone of its own: the decoder of the method is not that of the task
    try:
        method = entry.build(settings, Backbone(task.backbone.encoder), len(dataset.modalities))
    except ValueError as error:
        raise InputError(f"--hybrid-settings of {config.hybrid_method}: {error}") from error
    ramp = round(config.hybrid_ramp * loop.steps)
    hybrid = HybridTask(task, method, config.hybrid, ramp, config.hybrid_decay)  # type: ignore[arg-type]
    return hybrid, PairedLoader(loader, Loader(dataset, sampler))


def _cache(start: Start) -> Steps[Cache]:
    """The prepared cache or list of caches; other scans are brought into the run folder."""
    from medssl.data.preparation import prepare_cache
    from medssl.data.shards import is_prepared, open_cache
    from medssl.data.table import TRAINING_SPLITS, read_data

    path, folder = start.config.unlabelled, start.folder.folder / "cache"
    if path is None:
        raise ValueError("there are no unlabelled scans")
    if is_prepared(path):
        return open_cache(path)
    rows = read_data(path, TRAINING_SPLITS)
    # a resumed run reads what is new, or what it was killed before
    summary = yield from prepare_cache(rows, folder, CacheConfig(spacing_range=start.spacing_range))
    for image, reason in summary.failures:
        yield Progress(0, None, "preparing", message=f"left out {image}: {reason}", notice=True)
    return open_cache(folder)
