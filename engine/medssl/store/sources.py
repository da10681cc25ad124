"""What is known about the public checkpoints that can be imported."""

from __future__ import annotations

from dataclasses import dataclass

from medssl.volume.working_grid import SPACING_RANGE


@dataclass(frozen=True)
class Source:
    """Where a checkpoint comes from, and what its user must know.

    Args:
        title: network, training data and publication.
        url: where it is published.
        licence: of the weights, as published; the file itself says nothing about it.
        method: of our own, by which the weights were trained; for the header.
        modalities: it was trained on.
        spacing_range: voxel spacing in mm that scans are brought to.
        notes: how the source's input differs from ours.
    """

    title: str
    url: str
    licence: str
    method: str
    modalities: tuple[str, ...]
    spacing_range: tuple[float, float] = SPACING_RANGE
    notes: tuple[str, ...] = ()


_COLOUR = (
    "Trained on colour images, standardised per channel: a grey image in [0, 1] is standardised and "
    "repeated. It knows no Hounsfield units and no voxel spacing."
)

SOURCES: dict[str, Source] = {
    "genesis": Source(
        "Models Genesis, 3D U-Net, LUNA16 chest CT (Zhou et al., Medical Image Analysis 2021)",
        "https://github.com/MrGiovanni/ModelsGenesis",
        "non-commercial research licence of Arizona State University; patent pending",
        "models-genesis",
        ("CT",),
        notes=(
            "Trained on Hounsfield units from -1000 to 1000 mapped linearly to [0, 1], on native voxels; our "
            "map gives soft tissue more of the range.",
            "The published code evaluates with the statistics of the batch; here running statistics are "
            "used, so that no cell depends on its tile.",
        ),
    ),
    "swav": Source(
        "SwAV, ResNet-50, ImageNet-1k without labels (Caron et al., NeurIPS 2020)",
        "https://github.com/facebookresearch/swav",
        "CC BY-NC 4.0",
        "swav",
        (),
        notes=(_COLOUR,),
    ),
    "spark": Source(
        "SparK, ResNet-50, ImageNet-1k without labels (Tian et al., ICLR 2023)",
        "https://github.com/keyu-tian/SparK",
        "MIT",
        "spark",
        (),
        notes=(_COLOUR,),
    ),
    "lvm-med": Source(
        "LVM-Med, ResNet-50, 1.3 million medical images from 55 sets (Nguyen et al., NeurIPS 2023)",
        "https://github.com/duyhominhnguyen/LVM-Med",
        "CC BY-NC-ND 2.0 (README of the source) or CC BY-NC-SA 4.0 (its licence file): they disagree",
        "lvm-med",
        ("CT", "MR"),
        notes=(_COLOUR,),
    ),
    "openmind": Source(
        "OpenMind, ResEnc-L, 114 thousand head and neck MR volumes (Wald et al., arXiv:2412.17041)",
        "https://huggingface.co/AnonRes",
        "CC BY 4.0",
        "mae",
        ("MR",),
        (1.0, 1.0),
        (
            "Trained on volumes of zero mean and unit variance; instance norm after every convolution makes "
            "the features nearly the same for our range [0, 1], but for the border of the volume.",
            "Instance norm measures what it sees at once: volumes larger than a tile of about 160 voxels per "
            "axis show faint seams.",
        ),
    ),
}
