from __future__ import annotations

import math

import pytest
import torch

from medssl.losses.contrastive import info_nce, nt_xent, supervised_contrast


@pytest.mark.parametrize(("temperature", "expected"), [(0.1, 6.522435), (0.5, 1.988002)])
def test_reference_values(reference, temperature, expected):
    za, zb = reference.features[:3], reference.features[3:6]
    assert nt_xent(za, zb, temperature).item() == pytest.approx(expected, abs=1e-6)


def test_collapse(reference):
    z = reference.features[:1].expand(3, 3)
    assert nt_xent(z, z, 0.1).item() == pytest.approx(math.log(5), abs=1e-6)


def test_symmetries(reference):
    za, zb = reference.features[:6], reference.features[6:12]
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    loss = nt_xent(za, zb)
    torch.testing.assert_close(nt_xent(zb, za), loss)
    torch.testing.assert_close(nt_xent(za[order], zb[order]), loss)
    torch.testing.assert_close(nt_xent(3 * za, 0.2 * zb), loss)


def test_full_mask_changes_nothing_and_empty_mask_leaves_zero(reference):
    za, zb = reference.features[:4], reference.features[4:8]
    every = torch.ones(4, 4, dtype=torch.bool)
    torch.testing.assert_close(nt_xent(za, zb, neg_mask=every), nt_xent(za, zb))
    assert nt_xent(za, zb, neg_mask=~every).item() == 0


def test_masked_pairs_are_two_separate_problems(reference):
    """Negatives inside a task only: the loss is the mean of the tasks' losses, and no gradient crosses."""
    za = reference.features[:4].clone().requires_grad_()
    zb = reference.features[4:8].clone()
    task = torch.tensor([0, 0, 1, 1])
    loss = nt_xent(za, zb, neg_mask=task[:, None] == task)
    first = nt_xent(za[:2], zb[:2])
    torch.testing.assert_close(loss, (first + nt_xent(za[2:], zb[2:])) / 2)
    (crossing,) = torch.autograd.grad(2 * loss - first, za)
    torch.testing.assert_close(crossing[:2], torch.zeros(2, 3).double())


def test_gradcheck(reference):
    za, zb = (reference.features[i : i + 3].clone().requires_grad_() for i in (0, 3))
    assert torch.autograd.gradcheck(nt_xent, (za, zb))


def test_different_views_are_refused(reference):
    with pytest.raises(ValueError, match="both views"):
        nt_xent(reference.features[:2], reference.features[:3])


def test_supervised_contrast_with_pairs_is_nt_xent(reference):
    za, zb = reference.features[:4], reference.features[4:8]
    labels = torch.arange(4).repeat(2)[None]
    loss = supervised_contrast(torch.cat([za, zb])[None], labels, 0.1)
    torch.testing.assert_close(loss, nt_xent(za, zb, 0.1))


def test_supervised_contrast_matches_the_formula(reference):
    z = reference.features[:12].reshape(2, 6, 3)
    labels = torch.tensor([[0, 0, 0, 1, 1, 2], [5, -1, 5, 7, 7, -1]])
    terms = []
    for s in range(2):
        for i in range(6):
            others = [j for j in range(6) if j != i and labels[s, j] >= 0]
            positives = [j for j in others if labels[s, j] == labels[s, i] and labels[s, i] >= 0]
            if positives:
                total = sum(math.exp(z[s, i] @ z[s, j] / 0.2) for j in others)
                terms.append(
                    sum(-math.log(math.exp(z[s, i] @ z[s, j] / 0.2) / total) for j in positives)
                    / len(positives)
                )
    loss = supervised_contrast(z, labels, 0.2)
    assert loss.item() == pytest.approx(sum(terms) / len(terms))


def test_supervised_contrast_without_positives_is_zero(reference):
    z = reference.features[None, :3].clone().requires_grad_()
    loss = supervised_contrast(z, torch.tensor([[0, -1, -1]]))
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_info_nce_is_the_cross_entropy_of_the_own_key(reference):
    q, k, n = reference.features[:3], reference.features[3:6], reference.features[6:12]
    positive = ((q * k).sum(1) / 0.2).exp()
    expected = -(positive / (positive + (q @ n.T / 0.2).exp().sum(1))).log().mean()
    torch.testing.assert_close(info_nce(q, k, n, 0.2), expected)
    torch.testing.assert_close(info_nce(2 * q, k, 3 * n, 0.2), expected)
    same = reference.features[:1]
    collapsed = info_nce(same.expand(3, 3), same.expand(3, 3), same.expand(6, 3))
    assert collapsed.item() == pytest.approx(math.log(7), abs=1e-9)


def test_info_nce_gives_gradients_to_queries_only(reference):
    q, k, n = (reference.features[i : i + 3].clone().requires_grad_() for i in (0, 3, 6))
    info_nce(q, k, n).backward()
    assert (k.grad, n.grad) == (None, None)
    assert torch.autograd.gradcheck(lambda x: info_nce(x, k, n), (q,))
    with pytest.raises(ValueError, match=r"\(B, D\)"):
        info_nce(q, k[:2], n)
