from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from medssl.losses.sinkhorn import exponentials, sinkhorn


@pytest.fixture
def scores() -> Tensor:
    return torch.nn.functional.normalize(
        torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), dim=1
    )


def test_reference_values(reference):
    scores = reference.scores[0]
    row = torch.tensor([0.762854, -0.771596, -0.257740, -0.293222], dtype=torch.float64)
    torch.testing.assert_close(scores[0], row, atol=1e-6, rtol=0)
    row = torch.tensor([-0.591913, -0.047984, -0.086683, -0.065039], dtype=torch.float64)
    torch.testing.assert_close(scores[4], row, atol=1e-6, rtol=0)
    expected = torch.tensor(
        [
            [1, 0, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 0.576665, 0.423335],
            [0, 0.999863, 0.000052, 0.000085],
            [0, 0.169239, 0.311990, 0.518770],
            [1, 0, 0, 0],
        ],
        dtype=torch.float64,
    )
    codes = sinkhorn(scores)
    torch.testing.assert_close(codes, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        codes.sum(0), torch.tensor([2.0, 2.17, 0.89, 0.94]).double(), atol=5e-3, rtol=0
    )


def test_reference_values_at_convergence(reference):
    codes = sinkhorn(reference.scores[0], iterations=200)
    row = torch.tensor([0.502605, 0, 0.329769, 0.167627], dtype=torch.float64)
    torch.testing.assert_close(codes[0], row, atol=1e-6, rtol=0)
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 1.5).double(), atol=1.5e-4, rtol=0)


def test_matches_the_textbook_iteration(scores):
    q = (scores.double() / 0.05).exp().T
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(dim=1, keepdim=True) * q.shape[0]
        q /= q.sum(dim=0, keepdim=True) * q.shape[1]
    torch.testing.assert_close(sinkhorn(scores.double()), (q * q.shape[1]).T)


@pytest.mark.parametrize("iterations", [0, 1, 3, 10])
def test_samples_sum_to_one_at_any_iteration(scores, iterations):
    assert torch.allclose(sinkhorn(scores, iterations=iterations).sum(1), torch.ones(12), atol=1e-6, rtol=0)


def test_invariant_to_constants_per_prototype_and_at_convergence_per_sample(scores):
    scores = scores.double()
    per_prototype = torch.linspace(-1, 1, 5).double()
    per_sample = torch.linspace(-1, 1, 12).double()[:, None]
    for iterations in (1, 3):
        torch.testing.assert_close(
            sinkhorn(scores, iterations=iterations),
            sinkhorn(scores + per_prototype + 7, iterations=iterations),
        )
    shifted = sinkhorn(scores + per_sample, iterations=3000)
    torch.testing.assert_close(sinkhorn(scores, iterations=3000), shifted, atol=1e-6, rtol=0)


def test_permuting_samples_and_prototypes_permutes_codes(scores):
    rows, columns = torch.randperm(12), torch.randperm(5)
    permuted = sinkhorn(scores[rows][:, columns])
    torch.testing.assert_close(permuted, sinkhorn(scores)[rows][:, columns])


def test_epsilon_goes_from_one_hot_to_uniform(scores):
    assert torch.allclose(sinkhorn(scores, epsilon=1e4), torch.full((12, 5), 0.2), atol=1e-3)
    assert sinkhorn(scores, epsilon=1e-3).max(dim=1).values.mean() > 0.95


def test_collapsed_features_give_uniform_codes(scores):
    torch.testing.assert_close(sinkhorn(scores[:1].expand(12, 5)), torch.full((12, 5), 0.2))


@pytest.mark.parametrize("epsilon", [1e-4, 0.01])
def test_extreme_scores_stay_finite(epsilon):
    scores = torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]])
    codes = sinkhorn(scores, epsilon=epsilon)
    assert codes.isfinite().all()
    assert torch.allclose(codes.sum(1), torch.ones(3))


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_row_whose_best_prototype_has_no_share_stays_finite(iterations):
    scores = torch.tensor([[-0.9, -0.95, 0.95], [0.2, 0.1, 0.3], [0.5, -0.5, 0.1]])
    share = torch.tensor([1.0, 1.0, 0.0])
    codes = sinkhorn(scores, 0.01, iterations, row_marginals=share)
    exact = sinkhorn(scores.double(), 0.01, iterations, row_marginals=share)
    torch.testing.assert_close(codes, exact.float(), atol=2e-5, rtol=0)
    assert (codes[:, 2] == 0).all()


@pytest.mark.parametrize("epsilon", [0.04, 0.02, 0.004])  # products reach as far as the second
@pytest.mark.parametrize("share", [None, [1.0, 2.0, 0.0, 4.0, 0.5]])
def test_products_and_logarithms_give_the_same_codes(scores, epsilon, share):
    marginals = None if share is None else torch.tensor(share)
    for iterations in (1, 3, 300):
        codes = sinkhorn(scores, epsilon, iterations, row_marginals=marginals)
        exact = sinkhorn(scores.double(), epsilon, iterations, row_marginals=marginals)
        torch.testing.assert_close(codes, exact.float(), atol=2e-5, rtol=0)


def test_half_precision_is_computed_in_float32(scores):
    scores = scores.bfloat16()
    assert sinkhorn(scores).dtype == torch.float32
    torch.testing.assert_close(sinkhorn(scores), sinkhorn(scores.float()))


@pytest.mark.parametrize("epsilon", [0.05, 1e-4])  # by products and by logarithms
def test_autocast_does_not_take_the_products_in_half_precision(scores, epsilon):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = sinkhorn(scores, epsilon)
    torch.testing.assert_close(codes, sinkhorn(scores, epsilon), atol=0, rtol=0)


@pytest.mark.parametrize("scale", [0.1, 10.0, 300.0])
def test_exponentials_are_the_terms_of_a_soft_max(scores, scale):
    scores = torch.cat([scores, scores[:1] - 3, scores[:1] * 1e-3]).double()
    scores[0, 1] = -torch.inf
    terms, highest = exponentials(scores, scale)
    assert torch.equal(highest, scores.max(dim=1).values)
    torch.testing.assert_close(terms, (scale * (scores - highest[:, None])).exp())
    torch.testing.assert_close(terms / terms.sum(dim=1, keepdim=True), (scale * scores).softmax(dim=1))
    single, _ = exponentials(scores.float(), scale)
    torch.testing.assert_close(single.double(), terms, atol=1e-7, rtol=2e-7 * (10 + 2 * scale))


def test_rows_far_below_the_others_get_their_codes():
    scores = torch.randn(12, 200, generator=torch.Generator().manual_seed(0))
    scores[::2, :64] -= 30
    scores[1] -= 10
    codes, exact = sinkhorn(scores, 0.2), sinkhorn(scores.double(), 0.2)
    torch.testing.assert_close(codes, exact.float(), atol=2e-5, rtol=0)


def test_row_marginals_are_reached(scores):
    share = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])
    codes = sinkhorn(scores, epsilon=0.5, iterations=200, row_marginals=3 * share)
    torch.testing.assert_close(codes.sum(0), share * 12, atol=1e-3, rtol=0)


def test_no_gradient(scores):
    assert not sinkhorn(scores.requires_grad_()).requires_grad


def test_bad_input_is_refused(scores):
    with pytest.raises(ValueError, match="epsilon"):
        sinkhorn(scores, epsilon=0)
    with pytest.raises(ValueError, match=r"\(B, K\)"):
        sinkhorn(scores[0])
    with pytest.raises(ValueError, match="row_marginals"):
        sinkhorn(scores, row_marginals=torch.ones(4))


# A program of its own: a spawned function would have to be importable, which a test module is not everywhere.
_RANK = """
import sys, torch, torch.distributed as dist
from medssl.losses.sinkhorn import exponentials, sinkhorn
folder, rank, sizes = sys.argv[1], int(sys.argv[2]), [int(size) for size in sys.argv[3:]]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=len(sizes))
scores = torch.load(f"{folder}/scores.pt", weights_only=True).split(sizes)[rank]
torch.save(sinkhorn(scores, group=dist.group.WORLD), f"{folder}/codes{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [["6", "6"], ["12", "0"]])
def test_two_processes_equal_one(scores, tmp_path, sizes):
    torch.save(scores, tmp_path / "scores.pt")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(tmp_path), rank, *sizes], env=environment)
        for rank in ("0", "1")
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    together = torch.cat([torch.load(tmp_path / f"codes{rank}.pt", weights_only=True) for rank in range(2)])
    torch.testing.assert_close(together, sinkhorn(scores))
