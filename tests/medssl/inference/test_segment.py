from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from medssl.errors import InputError
from medssl.inference.segment import Segmenter, load_segmenter, segment_steps, to_labels, window_size
from medssl.inference.window import sliding_window
from medssl.jobs.progress import drain
from medssl.nets.encoders import ResidualEncoder
from medssl.nets.segmentation import SegmentationNetwork
from medssl.store.weights import resolve
from medssl.training.export import export_weights
from medssl.volume import Geometry, Volume


def network(spatial_dims: int) -> SegmentationNetwork:
    torch.manual_seed(0)
    encoder = ResidualEncoder(spatial_dims, 1, (3, 4, 5, 6), (1, 1, 1, 1))
    return SegmentationNetwork(encoder, 3, (3, 4, 5, 6)).eval()


class Bright(torch.nn.Module):
    """Stands in for a trained network: class 1 where the voxel is brighter than a half."""

    encoder = ResidualEncoder(3, 1, (2, 2), (1, 1))
    multiple = (4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(40.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-(x - 0.5) * self.scale, (x - 0.5) * self.scale], dim=1)


@pytest.mark.parametrize("shape", [(70, 41), (40, 33, 37), (20, 33, 50)])
def test_windows_equal_monai(shape, rng):
    spatial_dims = len(shape)
    image = rng.random((1, *shape), dtype=np.float32)
    net = network(spatial_dims)
    size = (32,) * spatial_dims
    if min(shape) < 32:  # MONAI pads both sides of a short axis, we pad its end: compare where neither pads
        image = np.pad(image, [(0, 0), *((0, max(0, 32 - n)) for n in shape)])
    inferer = SlidingWindowInferer(size, sw_batch_size=1, overlap=0.25, mode="gaussian")
    with torch.no_grad():
        expected = inferer(torch.from_numpy(image)[None], net)[0]
    found = drain(sliding_window(image, net, size))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_only_wanted_windows_are_computed(rng):
    image = rng.random((1, 64, 64), dtype=np.float32)
    wanted = np.zeros((64, 64), bool)
    wanted[5, 60] = True
    seen = []
    found = drain(sliding_window(image, network(2), (32, 32), overlap=0.0, wanted=wanted), seen.append)
    whole = drain(sliding_window(image, network(2), (32, 32), overlap=0.0))
    assert len(seen) == 1
    torch.testing.assert_close(found[:, :32, 32:], whole[:, :32, 32:])
    assert (found[:, 32:] == 0).all()


def test_prediction_lies_where_the_image_says():
    """Anisotropic, oblique, with an axis finer and one coarser than the working grid."""
    shape, spacing = (9, 40, 30), (4.0, 0.3, 1.0)
    angle = np.deg2rad(25)
    direction = [
        [np.cos(angle), -np.sin(angle), 0],
        [np.sin(angle), np.cos(angle), 0],
        [0, 0, 1],
    ]
    geometry = Geometry.from_arrays(shape, spacing, (3.0, -20.0, 8.0), direction)
    truth = np.zeros(shape, np.uint8)
    truth[2:6, 5:25, 4:11] = 7
    image = Volume((truth[None] / 7).astype(np.float32), geometry, "MR", "scan")
    segmenter = Segmenter(Bright().eval(), (0, 7))  # type: ignore[arg-type]
    found = drain(segment_steps(image, segmenter, window=16))
    assert found.geometry is geometry
    assert found.array.dtype == np.uint8
    agree = (found.array[0] == truth).mean()
    assert agree > 0.99
    inside = np.argwhere(found.array[0] == 7)
    np.testing.assert_allclose(inside.mean(0), np.argwhere(truth == 7).mean(0), atol=0.3)


def test_probabilities_not_labels_are_interpolated():
    """Half-way between a sure and an unsure voxel the sure one wins; nearest labels would be split."""
    grid = Geometry.from_arrays((2, 2))
    logits = torch.tensor([[[10.0, 10.0], [0.0, 0.0]], [[0.0, 0.0], [0.4, 0.4]]])
    labels = to_labels(logits, grid, grid.resampled((4, 2)), (0, 1))
    np.testing.assert_array_equal(labels, [[0, 0], [0, 0], [0, 0], [1, 1]])


def test_window_fits_stride_and_volume():
    assert window_size((200, 90, 5), (16, 16, 16), 96) == (96, 96, 16)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_export_and_load_give_the_same_network(tmp_path, spatial_dims, rng):
    net = network(spatial_dims)
    task = {
        "name": "segmentation",
        "kind": "network",
        "classes": [{"value": v, "name": str(v)} for v in (0, 2, 5)],
        "network": dict(net.config),
    }
    metadata = {
        "method": "random",
        "encoder": {"name": "test", **net.encoder.config},
        "preprocessing": {"spacing_range": [0.5, 1.25]},
        "task": task,
    }
    path = tmp_path / "model.safetensors"
    export_weights(path, net.backbone, metadata, modules={"segmentation": net.segmentation})
    segmenter = load_segmenter(resolve(path))
    x = torch.from_numpy(rng.random((1, 1, *(32,) * spatial_dims), dtype=np.float32))
    with torch.no_grad():
        torch.testing.assert_close(segmenter.network(x), net(x))
    assert segmenter.values == (0, 2, 5)
    shape = (9,) * (5 - spatial_dims)
    with pytest.raises(InputError, match="dimensions"):
        drain(segment_steps(Volume(np.zeros((1, *shape)), Geometry.from_arrays(shape)), segmenter))


def test_an_encoder_without_a_task_is_refused(tiny_weights):
    with pytest.raises(InputError, match="without a task"):
        load_segmenter(resolve(tiny_weights[3]))
