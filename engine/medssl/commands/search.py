"""A voxel or a painted region -> similar places in an index."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medssl.commands.workspace import Workspace, index_signature
from medssl.config.search import SearchConfig
from medssl.errors import InputError
from medssl.io.axes import lps_point
from medssl.io.outputs import check_place
from medssl.jobs.progress import Progress, Steps
from medssl.retrieval.index import FeatureIndex
from medssl.retrieval.search import SearchResult, centre_of, check_voxel, search, vector_at, vector_of
from medssl.store.atomic import write_atomically
from medssl.store.features import SignatureMismatchError
from medssl.volume import Volume

if TYPE_CHECKING:
    from medssl.inference.load import LoadedEncoder


def run(config: SearchConfig, workspace: Workspace | None = None) -> Steps[SearchResult]:
    """Search an index and write ``hits.json`` where asked to.

    Args:
        config: index, scan, voxel or region.
        workspace: keeps index, scan and weights for the next search.

    Raises:
        InputError: a place outside the scan, weights or a grid that do not fit, an output that is read.
    """
    if config.out is not None:
        read = (config.index, config.input, config.region)
        check_place(config.out, *(path for path in read if path is not None))
    workspace = workspace or Workspace(config.device)
    yield Progress(0, 3, "reading")
    index = workspace.index(config.index)
    volume = yield from workspace.scan_steps(config.input, config.series, config.frame)
    unknown = [name for name in config.within if name not in index.volumes]
    if unknown:
        known = ", ".join(sorted(index.volumes)[:5])
        raise InputError(f"--within {unknown[0]}: no such volume in {config.index}; it has {known}, ...")
    region = None
    if config.region is not None:
        mask = workspace.volume(config.region)
        if not mask.geometry.matches(volume.geometry):
            raise InputError(f"{config.region}: lies on another grid than {config.input}; paint on that scan")
        region = mask.array[0] != 0
    yield Progress(1, 3, "searching")
    result = yield from search_steps(
        index,
        volume,
        workspace,
        at=config.at,
        region=region,
        encoder=config.encoder,
        top=config.top,
        volumes=config.within or None,
        separation_mm=config.separation,
    )
    result = replace(result, notes=volume.notes)
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(config.out, json.dumps(result.to_json(), indent=1))
    return result


def search_steps(
    index: FeatureIndex,
    volume: Volume,
    workspace: Workspace,
    *,
    at: Sequence[int] | None = None,
    region: NDArray[np.bool_] | None = None,
    encoder: str | None = None,
    top: int = 10,
    volumes: Collection[str] | None = None,
    separation_mm: float | None = None,
) -> Steps[SearchResult]:
    """Search from a volume in memory.

    A voxel of an indexed volume takes its vector from the index; no network runs. Otherwise features
    come from the workspace where they are warm, or from a patch around the place.

    Args:
        index: where to look.
        volume: the scan of the query.
        workspace: gives weights and warm features.
        at: voxel of the query, array order; or
        region: (*S) painted voxels.
        encoder: weights; None takes those named in the index.
        top: most hits.
        volumes: ids to look in, all by default.
        separation_mm: least distance of two hits in one volume; None takes two cells of the index.

    Raises:
        InputError: the place lies outside, or the weights are not those of the index.
    """
    if at is None and region is None:
        raise InputError("give a voxel or a painted region to search for")
    voxel = tuple(at) if at is not None else centre_of(np.asarray(region))
    check_voxel(volume.geometry, voxel)
    sha256 = workspace.hash_of(volume)
    name = next((n for n, info in index.volumes.items() if info.get("sha256") == sha256), None)
    query = None
    if name is not None and region is None:
        reach = max(index.signature["settings"]["stride"]) * max(volume.geometry.spacing) / 2
        query = index.cell_at(name, lps_point(volume.geometry, voxel), reach)
    if query is None:
        loaded = _encoder_of(index, workspace, encoder, volume.spatial_dims)
        features = yield from _features(volume, workspace, loaded, voxel if region is None else region)
        if region is None:
            query = vector_at(features, volume.geometry, voxel)
        else:
            query = vector_of(features, volume.geometry, region)
    return search(
        index, query, name or volume.id, voxel, top=top, volumes=volumes, separation_mm=separation_mm
    )


def _features(
    volume: Volume, workspace: Workspace, encoder: LoadedEncoder, place: Sequence[int] | NDArray[np.bool_]
) -> Steps[Volume]:
    """Features of the volume where they are warm, else of a patch around a voxel or a painted region."""
    from medssl.inference.patch import patch_steps

    warm = workspace.warm_features(volume, encoder)
    if warm is not None:
        return warm.features
    if not isinstance(place, np.ndarray):
        return (yield from patch_steps(volume, encoder, place, place))
    painted = np.argwhere(place)
    return (yield from patch_steps(volume, encoder, painted.min(0).tolist(), painted.max(0).tolist()))


def _encoder_of(
    index: FeatureIndex, workspace: Workspace, name: str | None, spatial_dims: int
) -> LoadedEncoder:
    encoder = workspace.encoder(name or index.information.get("encoder", "default"), spatial_dims)
    held = len(index.signature["settings"]["stride"])
    if spatial_dims != held:
        kinds = {2: "pictures", 3: "volumes"}
        raise InputError(
            f"the index holds {kinds[held]}, this scan is one of {kinds[spatial_dims]}; search in an index "
            "of those"
        )
    if index_signature(encoder) != index.signature:
        raise SignatureMismatchError(
            f"the weights {encoder.name!r} are not those the index was made with; name those, or embed again"
        )
    return encoder
