"""An encoder from a weights file, ready to embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medssl.errors import InputError
from medssl.nets.backbone import Backbone
from medssl.nets.dense import DenseFeatures
from medssl.nets.encoders import AnyEncoder, restore_encoder
from medssl.nets.fuse import fused
from medssl.nets.heads import ProjectionHead, Prototypes
from medssl.protocols import FeatureLevel
from medssl.store.weights import WeightsRecord, resolve
from medssl.volume.working_grid import SPACING_RANGE


class LoadedEncoder(nn.Module):
    """A frozen encoder in evaluation mode, with what its weights file brings along.

    Args:
        backbone: holds the encoder; the decoder, if any, is not used here.
        dense: levels -> dense feature, projection included.
        head: projects cells to the space of the prototypes, None where the method has none.
        prototypes: learned prototypes, None where the method has none.
        metadata: header of the weights file.
        signature: checksum of the weights; features computed with it carry it.
        name: how the user called the weights.
        has_projection: whether the dense feature keeps what was fitted; without it there are no features.
    """

    def __init__(
        self,
        backbone: Backbone,
        dense: DenseFeatures,
        *,
        head: ProjectionHead | None,
        prototypes: Prototypes | None,
        metadata: Mapping[str, Any],
        signature: str,
        name: str,
        has_projection: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.features = dense
        self.head = head
        self.prototypes = prototypes
        self.metadata = metadata
        self.signature = signature
        self.name = name
        self.has_projection = has_projection
        self._fused: tuple[torch.device, list[nn.Module]] | None = None
        self.eval().requires_grad_(False)

    @property
    def encoder(self) -> AnyEncoder:
        """The bare network."""
        return cast("AnyEncoder", self.backbone.encoder)

    @property
    def levels(self) -> tuple[FeatureLevel, ...]:
        """Levels of the pyramid, finest first."""
        return self.encoder.levels

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.encoder.spatial_dims

    @property
    def in_channels(self) -> int:
        """Channels of the image."""
        return self.encoder.in_channels

    @property
    def spacing_range(self) -> tuple[float, float]:
        """Smallest and largest voxel spacing the weights are made for, mm."""
        low, high = self.metadata["preprocessing"].get("spacing_range", SPACING_RANGE)
        return float(low), float(high)

    def prototype_block(self, modality: str) -> slice:
        """The prototypes that cells of a modality may be assigned to: all where it has none of its own."""
        blocks: Mapping[str, Sequence[int]] = self.metadata.get("prototype_blocks", {})
        start, stop = blocks.get(modality, (0, None))
        return slice(start, stop)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def fused_stages(self) -> list[nn.Module]:
        """The stages of the encoder, each with its batch norm folded in; made once per device."""
        if self._fused is None or self._fused[0] != self.device:
            self._fused = self.device, [fused(stage) for stage in self.encoder.stages]
        return self._fused[1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> feature pyramid, S a multiple of the coarsest stride."""
        return cast("list[Tensor]", self.encoder(x))


def load_encoder(name_or_path: str | Path, device: str | torch.device = "cpu") -> LoadedEncoder:
    """Load frozen weights for embedding.

    Args:
        name_or_path: registry name, run folder or ``.safetensors`` file.
        device: "cpu", "cuda", "cuda:1".

    Raises:
        InputError: the weights cannot be found, checked or understood.
    """
    return load_record(resolve(name_or_path)).to(device)


def load_record(record: WeightsRecord) -> LoadedEncoder:
    """The encoder of weights that were resolved already; on the CPU.

    Raises:
        InputError: tensors and header of the file do not fit together.
    """
    tensors = load_file(record.path)
    try:
        encoder = restore_encoder(record.metadata["encoder"])
        encoder.load_state_dict(_below(tensors, "backbone.encoder."))
        dense = DenseFeatures(encoder.levels)
        if "projection.weight" in tensors:
            dense = DenseFeatures(encoder.levels, tensors["projection.weight"].shape[0])
            dense.load_state_dict(
                {"weight": tensors["projection.weight"], "mean": tensors["projection.mean"]}
            )
        head = _head(_below(tensors, "head."), dense.in_channels)
        prototypes = _prototypes(tensors.get("prototypes.weight")) if head is not None else None
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{record.path}: header and tensors do not fit ({reason}); export again") from error
    return LoadedEncoder(
        Backbone(encoder),
        dense,
        head=head,
        prototypes=prototypes,
        metadata=record.metadata,
        signature=record.sha256,
        name=record.name,
        has_projection="projection.weight" in tensors or dense.in_channels <= dense.out_channels,
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _head(state: Mapping[str, Tensor], in_channels: int) -> ProjectionHead | None:
    """The head of the cells; None where there is none, or one of whole crops, which cells do not fit."""
    if not state:
        return None
    hidden, inputs = state["first.weight"].shape
    if inputs != in_channels:
        return None
    head = ProjectionHead(inputs, hidden, state["second.weight"].shape[0])
    head.load_state_dict(state)
    return head


def _prototypes(weight: Tensor | None) -> Prototypes | None:
    if weight is None:
        return None
    prototypes = Prototypes(weight.shape[1], weight.shape[0])
    prototypes.load_state_dict({"weight": weight})
    prototypes.normalize_()
    return prototypes
