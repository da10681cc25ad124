from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from medssl.losses.contrastive import nt_xent
from medssl.losses.prototype_codes import prediction_mask, prototype_codes
from medssl.losses.sinkhorn import sinkhorn
from medssl.losses.swapped_prediction import swapped_prediction_loss


def test_reference_values(reference):
    assert swapped_prediction_loss(reference.scores[:2]).item() == pytest.approx(11.254807, abs=1e-6)
    assert swapped_prediction_loss(reference.scores).item() == pytest.approx(9.191595, abs=1e-6)


def test_collapse_gives_ln_k():
    flat = torch.zeros(8, 3000)
    assert swapped_prediction_loss([flat, flat]).item() == pytest.approx(math.log(3000), abs=1e-4)


def test_order_of_local_crops_and_swap_of_global_views_do_not_matter(reference):
    first, second, local = reference.scores
    other = local.flip(0)
    loss = swapped_prediction_loss([first, second, local, other])
    torch.testing.assert_close(loss, swapped_prediction_loss([first, second, other, local]))
    torch.testing.assert_close(loss, swapped_prediction_loss([second, first, local, other]))


def test_permuting_the_batch_does_not_matter(reference):
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    permuted = swapped_prediction_loss([s[order] for s in reference.scores])
    torch.testing.assert_close(swapped_prediction_loss(reference.scores), permuted)


def test_gradient_is_prediction_minus_code(reference):
    first, second = (s.clone().requires_grad_() for s in reference.scores[:2])
    swapped_prediction_loss([first, second]).backward()
    # Two assigning views, each term a mean over 6 samples: d / d second = (p - q_first) / (tau B 2).
    expected = ((second / 0.1).softmax(1) - sinkhorn(first)) / (0.1 * 6 * 2)
    torch.testing.assert_close(second.grad, expected.detach())


def test_gradcheck_with_fixed_codes(reference):
    views = [s.clone().requires_grad_() for s in reference.scores]
    codes = [sinkhorn(v) for v in views[:2]]
    assert torch.autograd.gradcheck(lambda *v: swapped_prediction_loss(v, codes=codes), views)


@pytest.mark.parametrize("is_masked", [False, True])
def test_rows_whose_first_prototypes_are_far_are_exact_too(is_masked):
    # the loss is read off the first columns; here those underflow, or take no part, in some rows
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(6, 200, generator=generator) for _ in range(2)]
    for view in scores:
        view[::2, :64] -= 40
    mask = torch.arange(200) >= 100 if is_masked else None
    codes = [torch.rand(6, 200, generator=generator) * (1 if mask is None else mask) for _ in range(2)]
    codes = [code / code.sum(dim=1, keepdim=True) for code in codes]
    loss = swapped_prediction_loss(scores, 0.1, codes=codes, softmax_mask=mask)
    logits = [view.double() / 0.1 for view in scores]
    if mask is not None:
        logits = [each.masked_fill(~mask, -1e4) for each in logits]
    each = [-(codes[1 - v].double() * logits[v].log_softmax(1)).sum(1).mean() for v in range(2)]
    torch.testing.assert_close(loss.double(), sum(each) / 2, rtol=1e-6, atol=0)


def test_softmax_over_block_gives_no_gradient_outside(reference):
    blocks = {0: slice(0, 2), 1: slice(2, 4)}
    modality = torch.tensor([0, 0, 0, 1, 1, 1])
    views = [s.clone().requires_grad_() for s in reference.scores[:2]]
    codes = [prototype_codes(v, modality, blocks, "partitioned") for v in views]
    mask = prediction_mask(modality, blocks, 4, "block")
    assert mask is not None
    loss = swapped_prediction_loss(views, codes=codes, softmax_mask=mask)
    loss.backward()
    assert loss.isfinite()
    for view in views:
        assert view.grad is not None
        assert (view.grad[~mask] == 0).all()
        assert (view.grad[mask] != 0).any()


def test_one_view_is_refused(reference):
    with pytest.raises(ValueError, match="two views"):
        swapped_prediction_loss(reference.scores[:1])


def test_agrees_with_lightly_on_random_inputs():
    # values of lightly 1.6.0 on these inputs: sinkhorn(out, 3, 0.05) and SwaVLoss(temperature=0.1)
    draws = torch.Generator().manual_seed(0)

    def scores() -> torch.Tensor:
        features, prototypes = (torch.randn(shape, generator=draws) for shape in ((32, 16), (16, 40)))
        return F.normalize(features, dim=1) @ F.normalize(prototypes, dim=0)

    views = [scores() for _ in range(4)]
    codes = sinkhorn(views[0])
    assert codes[0, :3].tolist() == pytest.approx([0.00467713, 0.00014304, 3.0708e-06], abs=1e-7)
    assert codes.square().sum().item() == pytest.approx(12.001756, abs=1e-5)
    assert swapped_prediction_loss(views).item() == pytest.approx(6.302421, abs=1e-5)
    first, second = (torch.randn(8, 16, generator=draws) for _ in range(2))
    assert nt_xent(first, second, 0.1).item() == pytest.approx(4.629789, abs=1e-5)  # NTXentLoss
