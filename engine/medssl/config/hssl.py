"""Settings of HSSL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from medssl.config.run import RunConfig
from medssl.config.two_views import TwoViewsConfig
from medssl.errors import InputError


class HsslViewsConfig(TwoViewsConfig):
    """The two crops of HSSL."""

    rotation: float = Field(15.0, ge=0, le=180, description="largest random rotation of a crop, degrees")


class HsslConfig(RunConfig):
    """HSSL (Zheng et al., MICCAI 2021): contrast within, classification between the domains of a collection.

    Established by the paper's abstract: the two kinds of loss, encoder and decoder, many domains. All numbers
    are ours. The published road is three runs, each starting from the one before: stage encoder, stage joint
    (``--init`` of the first), ``medssl finetune segmentation`` (``--init`` of the second). Stage joint
    without ``--init`` is the one-stage form. The data table gives task and group of every scan.
    """

    planar: ClassVar = {"views": {"size": 192}}

    stage: Literal["encoder", "joint"] = Field(
        "encoder", description="encoder: the encoder alone; joint: encoder and decoder together"
    )
    attach: tuple[str, ...] = Field(
        (),
        description="maps that get losses: encN level N of the encoder, finest first; decN the decoded map N "
        "levels above the finest one (of stride 2^N in the residual family); default: the bottleneck, in "
        "stage joint also first and last but one of the decoder",
    )
    attach_weights: tuple[float, ...] = Field(
        (), description="weight of each of these maps; default 1 (late ones hold little beside texture)"
    )
    image_weight: float = Field(1.0, ge=0, description="weight of the image level (contrastive)")
    task_weight: float = Field(0.5, ge=0, description="weight of the task level (classification)")
    group_weight: float = Field(0.5, ge=0, description="weight of the group level (classification)")
    temperature: float = Field(0.1, gt=0, description="temperature of the contrastive loss")
    dim: int = Field(128, ge=1, description="dimension of the projections")
    negatives: Literal["batch", "same_task"] = Field(
        "batch",
        description="images an image is told from: all of the batch, or those of its task (harder, no domain "
        "shortcut; draw tasks equally with sampling.family task and several images of each)",
    )
    mask_same_volume: bool = Field(
        True, description="images of one volume are no negatives of each other: they nearly look the same"
    )
    balance_classes: bool = Field(
        True, description="weight classes by the inverse of how often the sampler draws them"
    )
    encoder_rate: float = Field(
        1.0, gt=0, le=1, description="learning rate of the encoder relative to the rest; 0.1 after --init"
    )
    decoder_channels: tuple[int, ...] = Field(
        (12, 24, 48, 64), description="channels of the decoder, full resolution first (as in fine-tuning)"
    )
    views: HsslViewsConfig = Field(HsslViewsConfig(), description="the two crops (2D: 192)")
    tasks: int | None = Field(None, ge=1, description="number of tasks; taken from the data")
    groups: int | None = Field(None, ge=1, description="number of groups; taken from the data")
    group_of: tuple[int, ...] = Field((), description="group of each task; taken from the data")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attach_weights and len(self.attach_weights) != len(self.attach):
            raise ValueError("attach_weights needs one number per map of attach")
        if len(set(self.attach)) < len(self.attach):
            raise ValueError("attach names a map twice")
        if self.stage == "encoder" and any(name.startswith("dec") for name in self.attach):
            raise ValueError("attach names decoder maps: they need stage joint")
        if not self.image_weight + self.task_weight + self.group_weight:
            raise ValueError("image_weight, task_weight and group_weight are all 0: nothing to learn")
        return self

    def for_domains(
        self, tasks: Sequence[str], groups: Sequence[str], pairs: Iterable[tuple[int, int]]
    ) -> Self:
        """The same settings with the domains of a data set.

        Args:
            tasks: names of the tasks, in the order of their numbers.
            groups: names of the groups, alike.
            pairs: (task, group) numbers that occur.

        Raises:
            InputError: a task is in two groups.
        """
        group_of: dict[int, int] = {}
        for task, group in pairs:
            if group_of.setdefault(task, group) != group and tasks[task]:  # "" is no task
                both = f"{groups[group_of[task]]!r} and {groups[group]!r}"
                raise InputError(
                    f"task {tasks[task]!r} is in the groups {both}; a task has one group in the data table"
                )
        return self.model_copy(
            update={
                "tasks": len(tasks),
                "groups": len(groups),
                "group_of": tuple(group_of.get(task, 0) for task in range(len(tasks))),
            }
        )

    def levels_without_choice(self) -> str:
        """Levels with a weight and one class only, in words; "" where there is none."""
        counts = {"task": (self.tasks, self.task_weight), "group": (self.groups, self.group_weight)}
        return " and ".join(name for name, (count, weight) in counts.items() if count == 1 and weight)
