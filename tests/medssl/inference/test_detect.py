from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from medssl.config.detection import DetectionConfig
from medssl.errors import InputError
from medssl.inference.detect import Detector, detect_steps, tiles_of_axis, to_boxes
from medssl.jobs.progress import drain
from medssl.nets.boxes import Found
from medssl.nets.detection import DenseBoxes, DetectionNetwork
from medssl.nets.encoders import ResidualEncoder
from medssl.volume import Geometry, Volume


@pytest.mark.parametrize(("whole", "edge", "overlap"), [(40, 64, 0.25), (100, 64, 0.25), (300, 96, 0.5)])
def test_tiles_cover_the_axis_and_every_centre_belongs_to_one(whole, edge, overlap):
    tiles = tiles_of_axis(whole, edge, overlap, 16)
    assert tiles[0][1] == 0
    assert tiles[-1][2] == whole
    for (_, _, high), (_, low, _) in pairwise(tiles):
        assert high == low
    margin = edge * overlap / 2
    for first, low, high in tiles:
        assert first % 16 == 0
        assert first == 0 or first < whole - edge + 16
        assert low == 0 or low - first >= margin - 1, "a centre is seen with what surrounds it"
        assert high == whole or first + edge - high >= margin - 1


def test_boxes_go_back_to_whole_voxels_of_the_scan():
    grid, scan = Geometry.from_arrays((40, 40), (0.5, 0.5)), Geometry.from_arrays((10, 20), (2.0, 1.0))
    boxes = torch.tensor([[4.0, 4.0, 9.0, 9.0], [-3.0, 38.6, 1.0, 50.0]])
    found = Found(boxes, torch.tensor([0.5, 0.25]), torch.tensor([1, 0]))
    first, second = to_boxes(found, ("a", "b"), grid, scan)
    assert (first.start, first.stop, first.label, first.score) == ((1, 2), (2, 4), "b", 0.5)
    assert (second.start, second.stop) == ((0, 19), (1, 20)), "at least one voxel, inside"


class Bright(DetectionNetwork):
    """Finds bright cells of stride 2: what a trained network does, without training."""

    def find(self, pyramid: list[torch.Tensor]) -> list[DenseBoxes]:
        (image,) = pyramid
        n = image.ndim - 2
        pool = torch.nn.functional.avg_pool2d if n == 2 else torch.nn.functional.avg_pool3d
        logits = 40 * (pool(image, 2) - 0.9)
        return [DenseBoxes(logits, torch.zeros(1, 2 * n, *logits.shape[2:]), (2,) * n)]


@pytest.mark.parametrize("window", [16, 32, 96])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_tiles_find_what_one_pass_finds(spatial_dims, window):
    n = spatial_dims
    network = Bright(ResidualEncoder(n, 1, (4, 4, 4, 4), (1, 1, 1, 1)), 1, channels=4, depth=0)
    network.backbone.forward = lambda x: [x]  # type: ignore[method-assign, assignment]
    shape = (36, 70, 41)[:n]
    array = np.zeros(shape, np.float32)
    centres = [(4, 16, 2)[:n], (30, 30, 38)[:n], (34, 68, 20)[:n], (16, 44, 24)[:n]]
    for centre in centres:
        array[tuple(slice(c, c + 2) for c in centre)] = 1000
    volume = Volume(array[None], Geometry.from_arrays(shape, (1.0,) * n, has_spacing=False), "CT")
    detector = Detector(network, ("spot",), DetectionConfig(), name="bright")
    boxes = drain(detect_steps(volume, detector, window=window))
    assert sorted(box.start for box in boxes) == sorted(centres)
    assert all(tuple(b - a for a, b in zip(box.start, box.stop, strict=True)) == (2,) * n for box in boxes)
    with pytest.raises(InputError, match="choose another model"):
        drain(
            detect_steps(
                Volume(np.zeros((1, *(8,) * (5 - n))), Geometry.from_arrays((8,) * (5 - n))), detector
            )
        )
