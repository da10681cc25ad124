"""The letters at the edges tell where the patient's sides are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssl.volume import Geometry, Volume
from napari_medssl.edges import EdgeLetters, axis_letters
from napari_medssl.session import Session, Source

components = pytest.importorskip("napari.components")

SHAPE = (7, 9, 11)


def turned(columns: list[list[float]]) -> Geometry:
    """A grid whose axes z, y, x run along the given directions, each in order (z, y, x)."""
    return Geometry.from_arrays(SHAPE, (3.0, 1.0, 1.0), (5, 6, 7), np.transpose(columns))


@pytest.mark.parametrize(
    ("columns", "letters"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "SPL"),
        ([[1, 0, 0], [0, -1, 0], [0, 0, -1]], "SPL"),  # napari mirrors the picture instead
        ([[0, 0, -1], [-1, 0, 0], [0, 1, 0]], "RIP"),  # sagittal slices, shown in their own frame
        ([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, -1]], "SPR"),
    ],
)
def test_axes_are_named_after_the_side_they_grow_to(columns: list[list[float]], letters: str) -> None:
    assert axis_letters(turned(columns)) == letters


def test_a_picture_has_no_sides() -> None:
    assert axis_letters(Geometry.from_arrays((4, 4), has_spacing=False)) == ""


def test_letters_follow_scan_and_axes(session: Session, volume: Volume) -> None:
    viewer = components.ViewerModel()
    viewer.add_image(volume.array[0])
    before = set(viewer.canvas.overlays)
    edges = EdgeLetters(viewer, session)
    session.volume = volume
    assert edges.letters() == {}  # nobody knows how a bare layer lies in a patient
    session.source, session.volume = Source(path=Path("/scan.nii")), None
    session.volume = volume
    assert list(edges.letters().values()) == ["A", "P", "R", "L"]
    viewer.dims.order = (2, 0, 1)
    assert list(edges.letters().values()) == ["I", "S", "A", "P"]
    viewer.dims.ndisplay = 3
    assert edges.letters() == {}
    viewer.dims.ndisplay = 2
    assert viewer.canvas.overlays["medssl_middle_right"].text == "P"
    edges.close()
    assert set(viewer.canvas.overlays) == before
    session.volume = None
