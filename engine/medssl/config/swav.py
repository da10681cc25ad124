"""Settings of SwAV-medical."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from medssl.config.augmentation import IntensityConfig, Range, TurnsConfig
from medssl.config.run import RunConfig


class ClusteringConfig(RunConfig):
    """Online clustering: projection, prototypes and codes (Caron et al. 2020, section 3)."""

    prototypes: int = Field(
        3000, ge=2, description="number of prototypes K, all modalities together (SwAV: 3000)"
    )
    hidden: int = Field(2048, ge=1, description="hidden width of the projection head (SwAV: 2048)")
    dim: int = Field(128, ge=1, description="dimension of the projections (SwAV: 128)")
    temperature: float = Field(0.1, gt=0, description="temperature of the prediction (SwAV: 0.1)")
    epsilon: float = Field(0.05, gt=0, description="entropy weight of the codes (SwAV: 0.05)")
    iterations: int = Field(3, ge=1, description="Sinkhorn iterations (SwAV: 3)")
    queue_length: int = Field(
        0,
        ge=0,
        description="earlier embeddings per view and modality that balance codes, once there are so many",
    )
    queue_start: int = Field(0, ge=0, description="step at which the queue is first used (SwAV: epoch 15)")
    weight: float = Field(1.0, ge=0, description="weight of this loss")


class SwavConfig(TurnsConfig):
    """SwAV-medical (Ghesu et al. 2022): defaults of SwAV where the paper is silent."""

    planar: ClassVar = {
        "global_size": 224,
        "local_size": 96,
        "global_scale": (0.14, 1.0),
        "local_scale": (0.05, 0.14),
        "aspect": (4 / 3) ** 0.5,
    }

    crops: ClusteringConfig = Field(
        ClusteringConfig(), description="clustering of pooled crops: the published form"
    )
    cells: ClusteringConfig = Field(
        ClusteringConfig(prototypes=256, hidden=256, weight=0.0),
        description="cell mode: swapped prediction of cells at the same place; gives the dense prototype map",
    )
    cells_per_crop: int = Field(256, ge=1, description="places sampled per pair of views in cell mode")
    modality_mode: Literal["shared", "partitioned", "per_modality_marginal"] = Field(
        "partitioned", description="how modalities share the prototypes (section A.3 of the method notes)"
    )
    prototype_split: Literal["equal", "sqrt", "log"] = Field(
        "equal",
        description="how many of the prototypes a modality has: equally many, or by the root or the "
        "logarithm of the number of its volumes",
    )
    modality_volumes: tuple[int, ...] = Field((), description="volumes per modality; taken from the data")
    softmax_over: Literal["all", "block"] = Field("all", description="prototypes a prediction competes with")
    freeze_prototypes_steps: int = Field(313, ge=0, description="steps before prototypes move (SwAV: 313)")
    global_size: int = Field(96, ge=16, description="edge of the two global crops, voxels (2D: 224)")
    local_size: int = Field(48, ge=16, description="edge of the local crops, voxels (2D: 96)")
    local_count: int = Field(6, ge=0, description="number of local crops (SwAV: 6)")
    global_scale: Range = Field((0.25, 1.0), description="volume fraction of a global crop (2D: 0.14 to 1)")
    local_scale: Range = Field((0.05, 0.25), description="volume fraction of a local crop (2D: 0.05 to 0.14)")
    aspect: float = Field(
        1.2, ge=1, description="largest stretch of an axis of a crop (2D: sides up to 4 : 3)"
    )
    rotation: float = Field(
        15.0, ge=0, le=180, description="largest random rotation of a crop, degrees (method notes: 10 to 20)"
    )
    intensity: IntensityConfig = Field(IntensityConfig(), description="intensity augmentation of every view")
    synthetic: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the samples replaced by generated volumes, a modality of their own whose two "
        "global crops show different contrasts (ours; the published form is 0)",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.crops.weight == 0 and self.cells.weight == 0:
            raise ValueError("crops.weight and cells.weight are both 0: nothing to learn")
        if self.softmax_over == "block" and self.modality_mode != "partitioned":
            raise ValueError(
                f"softmax_over block needs modality_mode partitioned: codes of {self.modality_mode} "
                "reach out of the block"
            )
        return self

    def too_few_samples(self, batch_size: int, modalities: int) -> str:
        """What to change where an assignment has fewer samples than a quarter of its prototypes.

        Most prototypes are then empty in it. Samples are those of the batch and the queue, per modality;
        modalities are drawn equally often, as they are by default.

        Args:
            batch_size: scans per step.
            modalities: number of modalities M.

        Returns:
            One sentence; empty where there are enough.
        """
        count = modalities + (self.synthetic > 0)
        parts = self.prototype_weights(count) if self.modality_mode == "partitioned" else [1.0] * count
        shares = [(1 - self.synthetic) / modalities] * modalities + [self.synthetic] * (count - modalities)
        for name, config, each in (("crops", self.crops, 1), ("cells", self.cells, self.cells_per_crop)):
            wanted = max(
                math.ceil(config.prototypes * part / sum(parts) / 4) - int(batch_size * each * share)
                for part, share in zip(parts, shares, strict=True)
            )
            if config.weight > 0 and wanted > config.queue_length:
                return (
                    f"{config.prototypes} prototypes of {name} are many for a batch of {batch_size}: most "
                    f"stay empty; take {name}.queue_length {wanted} or more (its {name}.queue_start at some "
                    "epochs, SwAV: 15), or fewer prototypes"
                )
        return ""

    def for_modalities(self, volumes: Sequence[int]) -> Self:
        """The same settings for data with so many volumes per modality."""
        return self.model_copy(update={"modality_volumes": tuple(volumes)})

    def prototype_weights(self, modalities: int) -> list[float]:
        """Relative number of prototypes per modality; generated volumes, counted last, have the mean.

        Args:
            modalities: number of modalities M, generated volumes included.

        Raises:
            ValueError: the volumes of the modalities are not known.
        """
        if self.prototype_split == "equal":
            return [1.0] * modalities
        counted = modalities - (self.synthetic > 0)
        if len(self.modality_volumes) != counted:
            raise ValueError(f"prototype_split needs modality_volumes of {counted} modalities")
        size = math.sqrt if self.prototype_split == "sqrt" else math.log1p
        weights = [size(max(1, volumes)) for volumes in self.modality_volumes]  # none in this split
        return [*weights, *[sum(weights) / counted] * (modalities - counted)]
