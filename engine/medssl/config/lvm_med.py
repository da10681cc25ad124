"""Settings of LVM-Med."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medssl.config.augmentation import IntensityConfig, Range, TurnsConfig


class LvmMedConfig(TurnsConfig):
    """LVM-Med (Nguyen et al., NeurIPS 2023): the paper's values, our choice where it is silent.

    The published training is in docs/published.md.
    """

    planar: ClassVar = {"size": 224}

    nodes: int = Field(16, ge=2, description="images per graph N (LVM-Med: 16); left-over images are dropped")
    neighbours: int = Field(5, ge=1, description="edges per node k (LVM-Med: 5), at most N - 1")
    dim: int = Field(128, ge=1, description="dimension of projection and message passing (LVM-Med: 128)")
    projector: Literal["linear", "mlp"] = Field(
        "linear", description="projection of the pooled feature; the paper gives a size, hence one layer"
    )
    centre: bool = Field(
        True,
        description="batch norm without scale behind the projection (the paper does not say): without it "
        "untrained embeddings share one direction and images are hard to tell apart",
    )
    layers: int = Field(2, ge=0, description="graph convolutions (LVM-Med: 2); 0 leaves message passing out")
    convolution: Literal["root", "self", "paper"] = Field(
        "root",
        description="graph convolution: root: a node has weights of its own (the group's later code); self, "
        "paper: the printed formula, degree with or without loop; from random weights it did not learn",
    )
    alpha: float = Field(
        0.8, ge=0, le=1, description="weight of the global affinity (LVM-Med: 0.8); 1 leaves the local out"
    )
    gamma: int = Field(20, ge=1, description="matched cells kept (VICRegL: 20; LVM-Med does not say)")
    cells: int = Field(
        64, ge=1, description="cells of the map compared at most, drawn anew (2D: all 49 in the paper)"
    )
    both_directions: bool = Field(
        True, description="local affinity both ways (equation 3) or from s to t only (the pseudo-code)"
    )
    coordinates: Literal["auto", "fraction", "mm"] = Field(
        "auto",
        description="where cells of two images are compared: fractions of each source, or mm; auto: "
        "fractions in 2D, mm in 3D (the paper has no 3D)",
    )
    matching: Literal["ipfp", "lap"] = Field(
        "ipfp", description="ipfp: second order; lap: without the edges (the paper's ablation)"
    )
    gumbel_scale: float = Field(
        1.0,
        ge=0,
        description="noise on all affinities (LVM-Med: 1); it acts as a temperature, with 0.1 the loss of "
        "separated images reaches 0",
    )
    lam: float = Field(80.0, gt=0, description="strength of the perturbed second solution (LVM-Med: 80)")
    starts: int | None = Field(
        None, ge=1, description="starts of the solver; default 3 up to gumbel_scale 0.25, else 10"
    )
    shortcut: bool = Field(
        True,
        description="skip the search where the first-order matching is provably the best; changes nothing "
        "but the time",
    )
    size: int = Field(96, ge=16, description="edge of both views, voxels (2D: 224)")
    scale: Range = Field((0.4, 1.0), description="volume fraction of a view (authors' code: 0.4 to 1)")
    aspect: float = Field(1.2, ge=1, description="largest stretch of an axis of a view")
    rotation: float = Field(
        0.0, ge=0, le=180, description="largest random rotation of a view, degrees (authors' code: none)"
    )
    intensity: IntensityConfig = Field(IntensityConfig(), description="intensity augmentation of every view")

    @property
    def solver_starts(self) -> int:
        """Starts of the solver: more where noise is as large as the affinities."""
        return self.starts or (3 if self.gumbel_scale <= 0.25 else 10)
