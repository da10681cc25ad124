"""Codes of a mixed-modality batch: which prototypes a sample may be assigned to, and in which shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from medssl.losses.sinkhorn import sinkhorn

CodeMode = Literal["shared", "partitioned", "per_modality_marginal"]
SoftmaxOver = Literal["all", "block"]


@torch.no_grad()
def prototype_codes(
    scores: Tensor,
    modality: Tensor,
    blocks: Mapping[int, slice],
    mode: CodeMode = "partitioned",
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    queue_scores: Tensor | None = None,
    queue_modality: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Sinkhorn codes of samples of several modalities.

    - ``shared``: one assignment over all samples and prototypes.
    - ``partitioned``: one assignment per modality, its samples to its block of prototypes; exactly zero
      elsewhere. The result for a modality does not depend on the samples of the others.
    - ``per_modality_marginal``: one assignment, but a prototype of modality m gets the share n_m / (n K_m).

    Modalities without samples take no part. Queued samples balance the assignment; their codes are dropped.

    Args:
        scores: (B, K) similarities of samples and prototypes.
        modality: (B,) integer modality of each sample.
        blocks: modality -> its columns of ``scores``; disjoint.
        mode: see above.
        epsilon: see `sinkhorn`.
        iterations: see `sinkhorn`.
        queue_scores: (L, K) similarities of earlier samples, or None.
        queue_modality: (L,) their modality; needed with ``queue_scores``.
        group: process group to balance over, a collective call; None for this process alone.

    Returns:
        (B, K) codes, float32, rows sum to 1.

    Raises:
        ValueError: if a sample's modality has no block, or the queue comes without its modality.
    """
    batch = scores.shape[0]
    if queue_scores is not None:
        if queue_modality is None or len(queue_modality) != len(queue_scores):
            raise ValueError("queue_scores (L, K) needs queue_modality (L,)")
        scores = torch.cat([scores, queue_scores.to(scores)])
        modality = torch.cat([modality, queue_modality.to(modality)])
    members = {m: modality == m for m in blocks}
    if mode == "shared":
        return sinkhorn(scores, epsilon, iterations, group=group)[:batch]
    _check_known(modality, blocks)
    if mode == "per_modality_marginal":
        marginals = _shares(members, blocks, scores, group)
        return sinkhorn(scores, epsilon, iterations, row_marginals=marginals, group=group)[:batch]
    if mode != "partitioned":
        raise ValueError(f"mode must be shared, partitioned or per_modality_marginal, got {mode!r}")
    codes = torch.zeros_like(scores, dtype=torch.promote_types(scores.dtype, torch.float32))
    for m, block in blocks.items():
        rows = members[m].nonzero().squeeze(1)
        if group is None and len(rows) == 0:
            continue
        codes[rows, block] = sinkhorn(scores[rows, block], epsilon, iterations, group=group)
    return codes[:batch]


def prediction_mask(
    modality: Tensor, blocks: Mapping[int, slice], prototypes: int, softmax_over: SoftmaxOver = "all"
) -> Tensor | None:
    """Which prototypes a prediction competes with, for `swapped_prediction_loss(softmax_mask=...)`.

    ``all`` makes the network place the sample in the right block too; ``block`` gives no gradient that tells
    modalities apart (they are trivially told apart, which is a shortcut).

    Args:
        modality: (B,) integer modality of each sample.
        blocks: modality -> its columns.
        prototypes: K, the number of columns.
        softmax_over: ``all`` or ``block``.

    Returns:
        (B, K) bool, or None for ``all``.
    """
    if softmax_over == "all":
        return None
    if softmax_over != "block":
        raise ValueError(f"softmax_over must be 'all' or 'block', got {softmax_over!r}")
    _check_known(modality, blocks)
    mask = torch.zeros(len(modality), prototypes, dtype=torch.bool, device=modality.device)
    for m, block in blocks.items():
        mask[:, block] |= (modality == m)[:, None]
    return mask


@torch.no_grad()
def code_statistics(codes: Tensor, loss: Tensor | None = None) -> dict[str, Tensor]:
    """Numbers that tell a healthy clustering from a collapsed one.

    Args:
        codes: (B, K), rows sum to 1.
        loss: the swapped-prediction loss, or None.

    Returns:
        ``code_entropy``: mean entropy of a code in nats (ln K when features have collapsed);
        ``prototype_usage``: share of prototypes that are some sample's first choice;
        ``prototype_perplexity``: exp of the entropy of the mean code, over K (1 = all used equally);
        ``ln_k_fraction``: loss / ln K, with ``loss`` only (stuck at 1 = collapsed).
    """
    prototypes = codes.shape[1]
    mean = codes.mean(dim=0)
    statistics = {
        "code_entropy": -torch.xlogy(codes, codes).sum(dim=1).mean(),
        "prototype_usage": torch.bincount(codes.argmax(dim=1), minlength=prototypes).gt(0).float().mean(),
        "prototype_perplexity": (-torch.xlogy(mean, mean).sum()).exp() / prototypes,
    }
    if loss is not None:
        statistics["ln_k_fraction"] = loss.detach() / math.log(max(prototypes, 2))
    return statistics


def _shares(
    members: Mapping[int, Tensor],
    blocks: Mapping[int, slice],
    scores: Tensor,
    group: dist.ProcessGroup | None,
) -> Tensor:
    """(K,) share of the samples per prototype: that of its modality, split evenly inside the block."""
    counts = torch.stack([members[m].sum() for m in blocks]).to(torch.float32)
    if group is not None and dist.is_initialized():
        dist.all_reduce(counts, op=dist.ReduceOp.SUM, group=group)
    shares = counts.new_zeros(scores.shape[1])
    for count, block in zip(counts, blocks.values(), strict=True):
        shares[block] = count / shares[block].numel()
    return shares / counts.sum()


def _check_known(modality: Tensor, blocks: Mapping[int, slice]) -> None:
    unknown = sorted(set(modality.tolist()) - set(blocks))
    if unknown:
        raise ValueError(f"no block of prototypes for modality {unknown}; blocks cover {sorted(blocks)}")
