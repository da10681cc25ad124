"""Online clustering as a module: head, prototypes, queue, codes, swapped prediction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medssl.config.swav import ClusteringConfig
from medssl.losses.gathering import gather_rows, total_over_world, world_group, world_size
from medssl.losses.prototype_codes import (
    CodeMode,
    SoftmaxOver,
    code_statistics,
    prediction_mask,
    prototype_codes,
)
from medssl.losses.swapped_prediction import swapped_prediction_loss
from medssl.nets.heads import ProjectionHead, Prototypes
from medssl.protocols import Losses


class Clustering(nn.Module):
    """Swapped prediction of features against prototypes that are split by modality.

    Args:
        in_channels: channels of the features.
        weights: relative number of prototypes of each of the M modalities.
        config: sizes and temperatures.
        mode: how modalities share prototypes.
        softmax_over: prototypes a prediction competes with.

    Raises:
        ValueError: fewer prototypes than two per modality.
    """

    queue: Tensor
    queued: Tensor

    def __init__(
        self,
        in_channels: int,
        weights: Sequence[float],
        config: ClusteringConfig,
        mode: CodeMode = "partitioned",
        softmax_over: SoftmaxOver = "all",
    ) -> None:
        super().__init__()
        modalities, total = len(weights), sum(weights)
        bounds = [int(config.prototypes * sum(weights[:m]) / total + 1e-6) for m in range(modalities + 1)]
        if any(stop - start < 2 for start, stop in pairwise(bounds)):
            raise ValueError(f"{config.prototypes} prototypes are too few for {modalities} modalities")
        self.config = config
        self.mode = mode
        self.softmax_over = softmax_over
        self.head = ProjectionHead(in_channels, config.hidden, config.dim)
        self.prototypes = Prototypes(config.dim, config.prototypes)
        self.blocks = {m: slice(bounds[m], bounds[m + 1]) for m in range(modalities)}
        # Newest first, one queue per assigning view and modality; a counter tells how much of it is real.
        self.register_buffer("queue", torch.zeros(2, modalities, config.queue_length, config.dim))
        self.register_buffer("queued", torch.zeros(2, modalities, dtype=torch.long))

    def forward(self, views: Sequence[Tensor], modality: Tensor, step: int) -> Losses:
        """Loss of features of the same samples seen in several views.

        Args:
            views: (B, C) per view, the first two assign codes; any further view only predicts. B may
                differ between processes and be 0.
            modality: (B,) modality of each sample.
            step: global step: the queue is used from ``queue_start`` on.
        """
        config = self.config
        if _rows_of_all(len(modality), modality.device) == 0:
            return self._nothing(views)
        sizes = [len(view) for view in views]
        embeddings = self.head(torch.cat(list(views))).split(sizes)  # each (B, D), unit length
        scores = [self.prototypes(z) for z in embeddings]  # each (B, K)
        codes = [self._codes(scores[v], modality, v, use_queue=step >= config.queue_start) for v in range(2)]
        mask = prediction_mask(modality, self.blocks, config.prototypes, self.softmax_over)
        loss = swapped_prediction_loss(
            scores, config.temperature, codes=codes, softmax_mask=mask, group=world_group()
        )
        if self.training and config.queue_length:
            owners = gather_rows(modality)
            for v in range(2):
                self._enqueue(v, gather_rows(embeddings[v].detach()), owners)
        if len(modality) == 0:  # the rows of other processes are told by them
            return Losses(loss, {})
        metrics = code_statistics(codes[0], loss)
        spread = embeddings[0].detach().std(dim=0, correction=0).mean()
        return Losses(loss, {**metrics, "feature_spread": spread * config.dim**0.5})

    def _nothing(self, views: Sequence[Tensor]) -> Losses:
        """A loss of 0 that every parameter takes part in: batch norm has no statistics of no rows."""
        parts = [*views, *self.parameters()]
        return Losses(sum((part.sum() * 0 for part in parts), start=views[0].new_zeros(())), {})

    def _codes(self, scores: Tensor, modality: Tensor, view: int, use_queue: bool) -> Tensor:
        group = world_group()
        config = self.config
        earlier, owner = None, None
        if use_queue and config.queue_length:
            # The queue is equal in all processes: each brings its share, so that every row counts once.
            mine = slice(0, None) if group is None else slice(dist.get_rank(), None, dist.get_world_size())
            full = {m: int(self.queued[view, m]) == config.queue_length for m in self.blocks}
            rows = [self.queue[view, m, : config.queue_length * full[m]][mine] for m in self.blocks]
            owner = torch.cat(
                [modality.new_full((len(row),), m) for m, row in zip(self.blocks, rows, strict=True)]
            )
            earlier = self.prototypes(torch.cat(rows)).detach() if len(owner) else None
        return prototype_codes(
            scores,
            modality,
            self.blocks,
            self.mode,
            epsilon=config.epsilon,
            iterations=config.iterations,
            queue_scores=earlier,
            queue_modality=owner if earlier is not None else None,
            group=group,
        )

    @torch.no_grad()
    def _enqueue(self, view: int, embeddings: Tensor, modality: Tensor) -> None:
        length = self.config.queue_length
        for m in self.blocks:
            new = embeddings[modality == m][:length]
            if len(new) == 0:
                continue
            self.queue[view, m] = torch.cat([new, self.queue[view, m]])[:length]
            self.queued[view, m] = min(length, int(self.queued[view, m]) + len(new))


def _rows_of_all(count: int, device: torch.device) -> int:
    """Rows of all processes together; a collective call where there are several."""
    return count if world_size() == 1 else int(total_over_world(torch.tensor(count, device=device)))
