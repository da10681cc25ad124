from __future__ import annotations

import math

import pytest
import torch

from medssl.config.swav import ClusteringConfig
from medssl.losses.prototype_codes import prototype_codes
from medssl.losses.swapped_prediction import swapped_prediction_loss
from medssl.methods.clustering import Clustering


def make(modalities=2, **changes) -> Clustering:
    torch.manual_seed(0)
    settings = {"prototypes": 8, "hidden": 16, "dim": 6, **changes}
    return Clustering(5, [1] * modalities, ClusteringConfig(**settings))


def features(n, seed):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def test_loss_is_the_swapped_prediction_of_partitioned_codes():
    module = make().eval()
    a, b = features(10, 1), features(10, 2)
    modality = torch.tensor([0] * 6 + [1] * 4)
    scores = [module.prototypes(module.head(x)) for x in (a, b)]
    codes = [prototype_codes(s, modality, module.blocks, "partitioned") for s in scores]
    expected = swapped_prediction_loss(scores, codes=codes)
    losses = module([a, b], modality, step=0)
    torch.testing.assert_close(losses.total, expected)
    assert (codes[0][:6, 4:] == 0).all()
    assert (codes[0][6:, :4] == 0).all()


def test_no_rows_cost_nothing_and_move_nothing():
    module = make(queue_length=3).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    views = [torch.zeros(0, 5, requires_grad=True) for _ in range(2)]
    losses = module(views, torch.zeros(0, dtype=torch.long), step=0)
    losses.total.backward()
    assert losses.total == 0
    assert all((p.grad == 0).all() for p in module.parameters())
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def test_prototypes_are_shared_out_evenly():
    assert make(modalities=3, prototypes=8).blocks == {0: slice(0, 2), 1: slice(2, 5), 2: slice(5, 8)}


def test_prototypes_are_shared_out_by_weight():
    module = Clustering(5, [1, 3, 1], ClusteringConfig(prototypes=10, hidden=4, dim=4))
    assert list(module.blocks.values()) == [slice(0, 2), slice(2, 8), slice(8, 10)]


def test_too_few_prototypes_are_refused():
    with pytest.raises(ValueError, match="too few"):
        make(modalities=5)


def test_queue_is_kept_per_modality_newest_first():
    module = make(queue_length=3).train()
    first = torch.tensor([0, 0, 1, 1, 1, 1])
    module([features(6, 1), features(6, 2)], first, step=0)
    assert module.queued.tolist() == [[2, 3], [2, 3]]
    second = torch.tensor([0, 0, 0, 0])
    before = module.queue.clone()
    module([features(4, 3), features(4, 4)], second, step=1)
    assert module.queued.tolist() == [[3, 3], [3, 3]]
    torch.testing.assert_close(module.queue[:, 1], before[:, 1])  # no sample of modality 1 came
    assert not torch.equal(module.queue[:, 0], before[:, 0])
    torch.testing.assert_close(module.queue[:, 0].norm(dim=-1), torch.ones(2, 3))


def test_queue_balances_codes_only_from_its_start():
    module = make(modalities=1, queue_length=20, queue_start=5).train()
    modality = torch.zeros(6, dtype=torch.long)
    for step in range(4):
        module([features(6, 10 + step), features(6, 20 + step)], modality, step)
    module.eval()
    without = make(modalities=1).eval()
    without.load_state_dict({k: v for k, v in module.state_dict().items() if "queue" not in k}, strict=False)
    views = [features(6, 1), features(6, 2)]
    early, late = (module(views, modality, step).total.detach() for step in (4, 5))
    torch.testing.assert_close(early, without(views, modality, 9).total.detach())
    assert (late - early).abs().item() > 1e-4


def test_a_queue_that_is_not_full_does_not_balance_codes():
    module = make(modalities=1, queue_length=7).train()
    modality = torch.zeros(6, dtype=torch.long)
    views = [features(6, 1), features(6, 2)]
    module(views, modality, step=0)
    module.eval()
    without = make(modalities=1).eval()
    without.load_state_dict({k: v for k, v in module.state_dict().items() if "queue" not in k}, strict=False)
    torch.testing.assert_close(module(views, modality, 1).total, without(views, modality, 1).total)


def test_evaluation_leaves_the_queue_alone():
    module = make(queue_length=4).eval()
    module([features(4, 1), features(4, 2)], torch.tensor([0, 0, 1, 1]), step=0)
    assert module.queued.sum() == 0


def test_collapse_is_visible_in_the_metrics():
    module = make(modalities=1).eval()
    same = features(1, 0).expand(12, -1)
    losses = module([same, same], torch.zeros(12, dtype=torch.long), step=0)
    assert losses.metrics["feature_spread"] < 1e-6
    assert losses.metrics["code_entropy"] == pytest.approx(math.log(8), abs=1e-4)


def test_gradient_reaches_head_and_prototypes_but_no_code():
    module = make().train()
    losses = module([features(10, 1), features(10, 2)], torch.tensor([0, 1] * 5), step=0)
    losses.total.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all()
    assert module.prototypes.weight.grad.abs().sum() > 0
