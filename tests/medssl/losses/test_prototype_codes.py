from __future__ import annotations

import math

import pytest
import torch

from medssl.losses.prototype_codes import code_statistics, prediction_mask, prototype_codes
from medssl.losses.sinkhorn import sinkhorn

BLOCKS = {0: slice(0, 2), 1: slice(2, 4)}


@pytest.fixture
def modality() -> torch.Tensor:
    return torch.tensor([0, 0, 0, 1, 1, 1])


def test_partitioned_reference_values(reference, modality):
    codes = prototype_codes(reference.scores[0], modality, BLOCKS, "partitioned")
    expected = [[0, 0, 0.407875, 0.592125], [0, 0, 0.401704, 0.598296], [0, 0, 0.691752, 0.308248]]
    torch.testing.assert_close(codes[3:], torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    assert (codes[:3, 2:] == 0).all()


def test_partitioned_blocks_have_equal_shares(reference, modality):
    codes = prototype_codes(reference.scores[0], modality, BLOCKS, "partitioned", epsilon=0.5, iterations=200)
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 1.5).double(), atol=1e-4, rtol=0)


def test_partitioned_ignores_samples_of_other_modalities(reference, modality):
    alone = prototype_codes(reference.scores[0][:3], modality[:3], BLOCKS, "partitioned")
    mixed = prototype_codes(reference.scores[0], modality, BLOCKS, "partitioned")
    torch.testing.assert_close(alone, mixed[:3])


def test_shared_is_plain_sinkhorn(reference, modality):
    codes = prototype_codes(reference.scores[0], modality, BLOCKS, "shared")
    torch.testing.assert_close(codes, sinkhorn(reference.scores[0]))


def test_per_modality_marginal_follows_the_batch(reference):
    modality = torch.tensor([0, 0, 0, 0, 0, 1])
    codes = prototype_codes(
        reference.scores[0], modality, BLOCKS, "per_modality_marginal", epsilon=0.5, iterations=300
    )
    expected = torch.tensor([2.5, 2.5, 0.5, 0.5]).double()
    torch.testing.assert_close(codes.sum(0), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("mode", ["partitioned", "per_modality_marginal"])
def test_absent_modality_is_skipped(reference, mode):
    codes = prototype_codes(reference.scores[0], torch.zeros(6, dtype=torch.long), BLOCKS, mode)
    assert codes.isfinite().all()
    assert (codes[:, 2:] == 0).all()
    torch.testing.assert_close(codes.sum(1), torch.ones(6).double())


@pytest.mark.parametrize("mode", ["shared", "partitioned", "per_modality_marginal"])
def test_queue_balances_but_is_dropped(reference, modality, mode):
    first, queue, _ = reference.scores
    codes = prototype_codes(first, modality, BLOCKS, mode, queue_scores=queue, queue_modality=modality)
    both = prototype_codes(torch.cat([first, queue]), modality.repeat(2), BLOCKS, mode)
    assert codes.shape == first.shape
    torch.testing.assert_close(codes, both[:6])


def test_prediction_mask(modality):
    assert prediction_mask(modality, BLOCKS, 4, "all") is None
    mask = prediction_mask(modality, BLOCKS, 4, "block")
    assert mask is not None
    assert mask.tolist() == [[True, True, False, False]] * 3 + [[False, False, True, True]] * 3


def test_bad_input_is_refused(reference, modality):
    with pytest.raises(ValueError, match="no block"):
        prototype_codes(reference.scores[0], modality + 1, BLOCKS)
    with pytest.raises(ValueError, match="queue_modality"):
        prototype_codes(reference.scores[0], modality, BLOCKS, queue_scores=reference.scores[1])
    with pytest.raises(ValueError, match="softmax_over"):
        prediction_mask(modality, BLOCKS, 4, "none")


def test_statistics_tell_collapse_from_health():
    collapsed = code_statistics(torch.full((8, 4), 0.25), loss=torch.tensor(math.log(4)))
    healthy = code_statistics(torch.eye(4).repeat(2, 1))
    dead = code_statistics(torch.eye(4)[:1].repeat(8, 1))
    assert collapsed["ln_k_fraction"].item() == pytest.approx(1)
    assert collapsed["code_entropy"].item() == pytest.approx(math.log(4))
    assert collapsed["prototype_usage"].item() == pytest.approx(0.25)
    assert healthy["code_entropy"].item() == 0
    assert healthy["prototype_usage"].item() == 1
    assert healthy["prototype_perplexity"].item() == pytest.approx(1)
    assert dead["prototype_perplexity"].item() == pytest.approx(0.25)
