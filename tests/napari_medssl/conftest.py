"""Volumes, a fake engine and a runner that needs no thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.jobs.progress import Progress, Steps, drain
from medssl.volume import Geometry, Volume
from napari_medssl.engine import Clusters, Engine
from napari_medssl.orders import TrainingOrder
from napari_medssl.session import Hit, Session


def rotation(degrees: float, first: int, second: int, ndim: int = 3) -> np.ndarray:
    angle = np.deg2rad(degrees)
    matrix = np.eye(ndim)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


DIRECTIONS = {
    "identity": np.eye(3),
    "flipped": np.diag([1.0, -1.0, -1.0]),
    "permuted": np.eye(3)[[2, 0, 1]],
    "oblique": rotation(12, 0, 1) @ rotation(25, 1, 2) @ np.diag([1.0, -1.0, 1.0]),
}


@pytest.fixture(params=list(DIRECTIONS))
def geometry(request: pytest.FixtureRequest) -> Geometry:
    """Anisotropic grids of every kind of direction."""
    return Geometry.from_arrays((7, 9, 11), (3.0, 0.8, 1.25), (-12.5, 40.0, 7.25), DIRECTIONS[request.param])


@pytest.fixture
def volume(rng: np.random.Generator) -> Volume:
    """A small CT with thick slices."""
    grid = Geometry.from_arrays((12, 40, 36), (3.0, 1.0, 1.0), (5.0, -20.0, 10.0))
    array = rng.integers(-1000, 1000, (1, *grid.shape)).astype(np.int16)
    return Volume(array, grid, modality="CT", id="case-1")


class FakeEngine(Engine):
    """Answers at once with values that a test can predict; files and labels are real."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.left_out: tuple[str, ...] = ()

    def prototypes(self, volume: Volume, count: int) -> Steps[Clusters]:
        self.calls.append(("prototypes", volume.id, count))
        yield Progress(0, 1, "clustering")
        labels = np.arange(volume.array[0].size).reshape(volume.geometry.shape) % (count + 1)
        labels = labels.astype(np.uint8)
        counts = dict(enumerate(np.bincount(labels.ravel()).tolist()))
        return Clusters(volume.with_array(labels), counts)

    def search(
        self, volume: Volume, voxel: tuple[int, ...], top: int, where: Path | Volume | None = None
    ) -> Steps[tuple[Hit, ...]]:
        self.calls.append(("search", volume.id, voxel, top, where))
        yield Progress(0, 1, "searching")
        hits = [
            Hit(volume.id, (n, n + 1, n + 2), (1.0, 2.0, 3.0 * n), 0.9 - 0.1 * n) for n in range(min(top, 4))
        ]
        if isinstance(where, Path):
            hits[1] = Hit("case-2", (1, 1, 1), (0.0, 0.0, 0.0), 0.8, path="/scans/case-2.nii.gz")
        return tuple(hits)

    def open_index(self, folder: Path) -> Steps[str]:
        self.calls.append(("open_index", folder))
        yield Progress(0, 1, "reading")
        return "2 scans, 300 places"

    def build_index(self, scans: Path, index: Path) -> Steps[Path]:
        self.calls.append(("build_index", scans, index))
        yield Progress(0, 1, "embedding")
        return index

    def probe(self, volume: Volume, scribbles: Volume, keep: Callable[[Volume], None]) -> Steps[Volume]:
        self.calls.append(("probe", int((scribbles.array > 0).sum())))
        yield Progress(0, 1, "fitting")
        proposal = volume.with_array((volume.array[0] > 0).astype(np.uint8) + 1)
        keep(proposal)
        return proposal

    def predict(self, volume: Volume, model: Path) -> Steps[Volume]:
        self.calls.append(("predict", model))
        yield Progress(0, 1, "predicting")
        return volume.with_array(np.ones(volume.geometry.shape, np.uint8))

    def order_training(self, project: Path, settings: dict[str, Any], dims: int) -> Steps[TrainingOrder]:
        self.calls.append(("order_training", project, settings, dims))
        yield Progress(0, 1, "writing")
        return TrainingOrder(("finetune", "segmentation"), project / "runs" / "one", self.left_out)

    def trained(self, run: Path) -> str:
        return "the network beats the probe" if (run / "exported").is_dir() else ""


class Runner:
    """Runs commands inside the call; errors of the user are kept, others raised.

    Work whose title is in ``cancelled`` is cancelled by the user before it begins.
    """

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.errors: list[Exception] = []
        self.cancelled: set[str] = set()

    def __call__(
        self,
        steps: Steps[Any],
        title: str,
        done: Callable[[Any], None],
        topic: str = "",
        *,
        failed: Callable[[Exception], None] | None = None,
        stopped: Callable[[], None] | None = None,
    ) -> None:
        self.titles.append(title)
        if title in self.cancelled:
            if stopped is not None:
                stopped()
            return
        try:
            result = drain(steps)
        except InputError as error:
            self.errors.append(error)
            if failed is not None:
                failed(error)
            return
        done(result)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(project=tmp_path / "project")


@pytest.fixture
def press():
    """A press and a release of the mouse at a position of the world, ``drag`` pixels apart."""

    def press(viewer: Any, position: tuple[float, ...], drag: float = 0.0) -> None:
        for callback in viewer.mouse_drag_callbacks:
            event = SimpleNamespace(type="mouse_press", pos=(100.0, 100.0), position=position)
            event.button, event.modifiers = 1, ()
            steps = callback(viewer, event)
            next(steps, None)
            event.type, event.pos = "mouse_move", (100.0 + drag, 100.0)
            next(steps, None)
            event.type = "mouse_release"
            next(steps, None)

    return press
