"""An imported network as weights of ours: the projection it lacks, its header and its card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch

from medssl.data.cache import Cache
from medssl.data.dataset import CropDataset, Loader
from medssl.data.sampler import FamilySampler
from medssl.errors import InputError
from medssl.nets.backbone import Backbone
from medssl.nets.dense import DENSE_CHANNELS, DenseFeatures
from medssl.nets.encoders import AnyEncoder
from medssl.nets.transfer import TransferReport
from medssl.store.sources import Source
from medssl.training.calibration import calibrate_projection

_CROP = {2: 128, 3: 96}
_BATCH = {2: 8, 3: 2}
_BATCHES = 16


def fit_on_scans(
    backbone: Backbone,
    encoder: AnyEncoder,
    cache: Cache,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> DenseFeatures:
    """The projection of the dense feature, fitted on crops of scans; the network stays as it is.

    Args:
        backbone: holds the encoder, in evaluation mode.
        encoder: the same encoder.
        cache: prepared scans, no labels needed.
        seed: of crops and places.
        device: does the work.

    Raises:
        InputError: the scans have too little that is not air.
    """
    n = encoder.spatial_dims
    crop = max(_CROP[n], 3 * max(encoder.levels[-1].stride))
    dataset = CropDataset(cache, n, (crop,) * n, zoom=(0.8, 1.25))
    sampler = FamilySampler(dataset.families(), _BATCH[n], seed=seed)
    loader = Loader(dataset, sampler, workers=0, prefetch=1)
    batches = [batch.to(device) for batch in islice(loader.batches(0), _BATCHES)]
    backbone.to(device)
    dense = DenseFeatures(encoder.levels).to(device)
    # Twice the cells that the fit needs at least; more of a wide encoder would not fit into memory.
    cells = min(1024, max(256, 4 * dense.in_channels // (_BATCHES * _BATCH[n])))
    try:
        calibrate_projection(dense, encoder, batches, cells=cells, seed=seed)
    except ValueError as error:
        raise InputError(f"--data: {error}; give more scans, or scans with less air") from error
    backbone.cpu()
    return dense.cpu()


def needs_projection(encoder: AnyEncoder) -> bool:
    """Whether its dense feature has more channels than are kept, so that a choice must be fitted."""
    return DenseFeatures(encoder.levels).in_channels > DENSE_CHANNELS


def header(
    backbone: Backbone, source: Source, report: TransferReport, file: Path, data: Path | None
) -> dict[str, Any]:
    """Metadata of the weights file."""
    config = cast("AnyEncoder", backbone.encoder).config
    decoder = {} if backbone.decoder is None else {"decoder": dict(cast("Any", backbone.decoder).config)}
    with file.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "method": source.method,
        "encoder": {"name": f"{report.format} (imported)", **config},
        **decoder,
        "preprocessing": {"spacing_range": list(source.spacing_range)},
        "modalities": list(source.modalities),
        "licence": source.licence,
        "source": {"format": report.format, "file": file.name, "sha256": checksum, "url": source.url},
        "transfer": str(report),
        "projection": "none" if data is None else f"fitted on {data.name}",
    }


def card(metadata: Mapping[str, Any], source: Source, *, has_projection: bool) -> str:
    """The model card of imported weights."""
    origin = metadata["source"]
    lines = [
        f"# {source.title}",
        "",
        f"Imported by `medssl weights import` from `{origin['file']}` (SHA-256 {origin['sha256']}).",
        "",
        f"Licence of the weights: **{source.licence}**. It binds whoever uses or passes on this file and "
        f"what is fine-tuned from it. Published at {source.url}; check the licence there.",
        "",
        "**Not for diagnostic use.**",
        "",
        f"Tensors: {metadata['transfer']}.",
        "",
        *(f"- {note}" for note in source.notes),
    ]
    lines.append(
        f"- The projection to the dense feature was {metadata['projection']}, without labels."
        if has_projection
        else "- No projection to the dense feature was fitted: for fine-tuning only, not for embedding."
    )
    return "\n".join(lines) + "\n"
