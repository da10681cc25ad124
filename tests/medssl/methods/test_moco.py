from __future__ import annotations

import pytest
import torch

TINY = {"views": {"size": 32}, "hidden": 16, "dim": 8, "queue_length": 10}


def drawn(method, batch, seed=0):
    return method.views(batch, torch.Generator().manual_seed(seed))


def embedded(modules, x):
    backbone, head = modules
    return head(backbone(x)[-1].flatten(2).mean(2))


def test_keys_come_from_the_follower_and_take_no_gradient(build_tiny, blobs, spatial_dims):
    method = build_tiny("moco", spatial_dims, temperature=0.5, **TINY).eval()
    views = drawn(method, blobs(spatial_dims))
    q = embedded((method.backbone, method.head), views.pair.images[0])
    k = embedded(method.keys.copies, views.pair.images[1])
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ method.queue.T], dim=1) / 0.5
    losses = method(views, 0)
    torch.testing.assert_close(losses.total, (logits.logsumexp(1) - logits[:, 0]).mean())
    losses.total.backward()
    assert all(p.grad is None for p in method.keys.parameters())
    assert all(p.grad is not None for p in method.backbone.parameters())


def test_the_follower_moves_by_its_momentum_once_per_step(build_tiny, blobs):
    method = build_tiny("moco", 2, momentum={"start": 0.75, "end": 0.75}, **TINY).train()
    views = drawn(method, blobs(2))
    method(views, 0)
    copy, original = method.keys.copies[1].second.weight, method.head.second.weight
    before = copy.clone()
    with torch.no_grad():
        original.add_(1.0)
    for _ in range(2):  # two micro-batches of one step
        method(views, 1)
    torch.testing.assert_close(copy, before + 0.25)
    method.eval()(views, 2)
    torch.testing.assert_close(copy, before + 0.25)


def test_the_queue_takes_keys_in_turn_and_is_checkpointed(build_tiny, blobs):
    method = build_tiny("moco", 2, shuffle_groups=1, **TINY).train()
    start = method.queue.clone()
    pushed = []
    for step in range(3):
        views = drawn(method, blobs(2, step), step)
        state = {key: value.clone() for key, value in method.state_dict().items()}
        method(views, step)
        method.load_state_dict({**state, "queue": method.queue, "newest": method.newest})
        pushed.append(embedded(method.keys.copies, views.pair.images[1]).detach())
    rows = torch.cat(pushed)
    torch.testing.assert_close(method.queue[2:], rows[2:10])  # 12 keys into 10 rows
    torch.testing.assert_close(method.queue[:2], rows[10:])
    assert method.newest == 2
    assert not torch.equal(start, method.queue)
    assert {"queue", "newest"} < set(method.state_dict())
    assert any(key.startswith("keys.copies.0.encoder") for key in method.state_dict())


@pytest.mark.parametrize("groups", [1, 2, 9])
def test_shuffled_keys_come_back_in_order(build_tiny, blobs, groups):
    method = build_tiny("moco", 2, shuffle_groups=groups, **TINY)
    x = blobs(2).image
    order = torch.tensor([2, 0, 3, 1])
    evaluated = method.eval()._keys(x, order)
    torch.testing.assert_close(evaluated, embedded(method.keys.copies, x))
    trained = method.train()._keys(x, order)
    parts = [order] if groups == 1 else [order[:2], order[2:]]  # never fewer than two in a group
    for part in parts:
        torch.testing.assert_close(trained[part], embedded(method.keys.copies, x[part]))


def test_it_learns_to_tell_the_batch_from_other_images(build_tiny, blobs, spatial_dims):
    method = build_tiny("moco", spatial_dims, shuffle_groups=1, **TINY).train()
    for seed in (5, 6, 7):  # other images fill the queue
        method(drawn(method, blobs(spatial_dims, seed)), 0)
    others = method.queue.clone()
    views = drawn(method, blobs(spatial_dims))
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    history = []
    for step in range(15):
        loss = method(views, step).total
        method.queue.copy_(others)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.85 * history[0]
