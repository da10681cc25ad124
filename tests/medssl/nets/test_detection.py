from __future__ import annotations

import pytest
import torch

from medssl.nets.boxes import Found, candidates, join, suppress
from medssl.nets.detection import PRIOR, DenseBoxes, DetectionNetwork
from medssl.nets.encoders import ResidualEncoder


def network(spatial_dims: int, **changes: object) -> DetectionNetwork:
    torch.manual_seed(0)
    encoder = ResidualEncoder(spatial_dims, 1, (4, 6, 8, 8), (1, 1, 1, 1))
    return DetectionNetwork(encoder, 2, **{"channels": 8, "depth": 1, "levels": 2, **changes}).eval()


@pytest.mark.parametrize("is_linear", [False, True])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_levels_strides_and_prior(spatial_dims, is_linear):
    model = network(spatial_dims, is_linear=is_linear)
    shape = (21, 32, 40)[:spatial_dims]
    levels = model(torch.rand(2, 1, *shape))
    assert [level.stride for level in levels] == [(2,) * spatial_dims, (4,) * spatial_dims]
    for level in levels:
        cells = [-(-size // 16) * 16 // level.stride[0] for size in shape]
        assert level.logits.shape == (2, 2, *cells)
        assert level.edges.shape == (2, 2 * spatial_dims, *cells)
        assert float(level.logits.detach().sigmoid().mean()) == pytest.approx(PRIOR, rel=1.0)


@pytest.mark.parametrize("is_linear", [False, True])
def test_every_parameter_of_the_head_learns(is_linear):
    model = network(2, is_linear=is_linear, levels=4).train()
    levels = model(torch.rand(1, 1, 32, 32))
    sum(level.logits.square().sum() + level.boxes().square().sum() for level in levels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_boxes_are_read_in_voxels(spatial_dims):
    edges = torch.zeros(1, 2 * spatial_dims, *(4,) * spatial_dims)
    edges[:, 0] = 0.5  # half a cell further along the first axis
    edges[:, spatial_dims] = torch.log(torch.tensor(3.0))
    boxes = DenseBoxes(torch.zeros(1, 1, *(4,) * spatial_dims), edges, (2,) * spatial_dims).boxes()
    first = boxes[(0, slice(None), *(0,) * spatial_dims)].tolist()
    assert first[0] == pytest.approx(2 - 3)
    assert first[spatial_dims] == pytest.approx(2 + 3)
    assert first[1] == pytest.approx(0)
    assert first[spatial_dims + 1] == pytest.approx(2)


def test_candidates_are_the_best_cells_of_all_levels():
    logits = torch.full((1, 2, 4, 4), -9.0)
    logits[0, 1, 2, 3] = 2.0
    coarse = torch.full((1, 2, 2, 2), -9.0)
    coarse[0, 0, 1, 0] = 1.0
    levels = [
        DenseBoxes(logits, torch.zeros(1, 4, 4, 4), (2, 2)),
        DenseBoxes(coarse, torch.zeros(1, 4, 2, 2), (4, 4)),
    ]
    (found,) = candidates(levels, 0.5, 10)
    assert found.classes.tolist() == [1, 0]
    torch.testing.assert_close(found.boxes, torch.tensor([[4.0, 6, 6, 8], [4, 0, 8, 4]]))
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 1.0]).sigmoid())


def test_suppression_keeps_the_best_of_each_class():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 1, 4, 5], [0, 0, 4, 4], [-9, -9, -5, -5]])
    found = Found(boxes, torch.tensor([0.5, 0.9, 0.3, 0.1]), torch.tensor([0, 0, 1, 0]))
    kept = suppress(found, 0.3, 10)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.3, 0.1])
    assert kept.classes.tolist() == [0, 1, 0]
    assert len(suppress(found, 0.99, 10)) == 4
    assert suppress(found, 0.3, 1).scores.tolist() == pytest.approx([0.9])
    assert len(suppress(found.take(found.scores > 1), 0.3, 10)) == 0
    assert len(join([found, kept])) == 7
