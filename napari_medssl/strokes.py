"""Edits of a napari labels layer as values: what was painted, where, and what was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import InputError
from medssl.store.edits import Edit

if TYPE_CHECKING:
    from napari.layers import Labels
    from numpy.typing import NDArray

Box = tuple[slice, ...]

_HIGHEST = 255


class StrokeRecorder:
    """Turns the public paint events of a layer into `Edit` values, one per stroke.

    It keeps a second copy of the mask and repeats on it what the event describes: napari raises the
    event after a brush stroke but before a fill, so the layer's own voxels say nothing reliable then.
    What other code writes into the array raises no event: it is recorded before the next stroke, by
    `sync` and by `close`. An array that other code puts in place of the layer's is copied into it, so
    that whoever shares the array sees the change.

    Args:
        layer: labels layer whose array is painted in place.
        record: called with every change, before the next one can begin.
    """

    def __init__(self, layer: Labels, record: Callable[[Edit], None]) -> None:
        self._layer = layer
        self._record = record
        self._array = layer.data
        self._known = np.array(layer.data)
        layer.events.paint.connect(self._on_paint)
        layer.events.data.connect(self._on_data)

    def sync(self) -> None:
        """Record whatever differs from the last known state."""
        if self._differs():
            self._adopt(np.array(self._array))

    def show(self, edit: Edit) -> None:
        """Put an edit that is recorded already (undo, an accepted hit) onto the screen."""
        edit.apply(self._array)
        edit.apply(self._known)
        self._layer.refresh()

    def close(self) -> None:
        """Stop listening; what other code wrote is recorded first."""
        self._layer.events.paint.disconnect(self._on_paint)
        self._layer.events.data.disconnect(self._on_data)
        self.sync()

    def _on_paint(self, event: Any) -> None:
        box = _box_of(event.value, self._known.shape)
        if box is None:
            self.sync()
            return
        before = self._known[box].copy()
        for part in event.value:
            _replay(part, self._known)
        after, now = self._known[box].copy(), self._array[box]
        foreign = (now != before) & (now != after)  # other code wrote there, not this stroke
        self._known[box] = np.where(foreign, before, now)
        if self._differs():
            state = np.array(self._array)
            state[box] = np.where(foreign, now, before)
            self._known[box] = before
            before, after = state[box].copy(), np.where(foreign, now, after)
            self._adopt(state)
        self._known[box] = after
        self._report(before, after, box)

    def _on_data(self, _: Any) -> None:
        given = self._layer.data
        if given is self._array:
            return
        fits = np.shape(given) == self._array.shape and np.min(given) >= 0 and np.max(given) <= _HIGHEST
        if fits:
            self._array[...] = given
        with self._layer.events.data.blocker(self._on_data):
            self._layer.data = self._array
        self.sync()
        if not fits:
            raise InputError(
                f"{self._layer.name}: scribbles are {self._array.shape} voxels with classes 0 to {_HIGHEST}; "
                "give an array like that"
            )

    def _differs(self) -> bool:
        """Whether the layer holds anything but the known state; slice by slice, which needs no memory."""
        return any(not np.array_equal(a, b) for a, b in zip(self._array, self._known, strict=True))

    def _adopt(self, state: NDArray[Any]) -> None:
        """Record what other code did, of whatever classes."""
        before, self._known = self._known, state
        edit = Edit.between(before, state)
        if edit is not None:
            self._record(edit)

    def _report(self, before: NDArray[Any], after: NDArray[Any], box: Box) -> None:
        start = tuple(span.start for span in box)
        edit = Edit.between(before, after, start, class_id=int(self._layer.selected_label))
        if edit is not None:
            self._record(edit)


def _box_of(parts: Iterable[Any], shape: tuple[int, ...]) -> Box | None:
    """The box around all parts of a stroke; None where the form of a part is not known.

    A part is an object with ``slice_key`` (napari 0.8 and later) or a tuple ``(indices, old, new)``.
    """
    low, high = list(shape), [0] * len(shape)
    for part in parts:
        if hasattr(part, "slice_key"):
            spans = [span.indices(size)[:2] for span, size in zip(part.slice_key, shape, strict=True)]
        elif isinstance(part, tuple) and len(part[0]) == len(shape):
            spans = [(int(np.min(axis)), int(np.max(axis)) + 1) for axis in part[0]]
        else:
            return None
        low = [min(a, first) for a, (first, _) in zip(low, spans, strict=True)]
        high = [max(b, last) for b, (_, last) in zip(high, spans, strict=True)]
    return tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))


def _replay(part: Any, mask: NDArray[Any]) -> None:
    if hasattr(part, "slice_key"):
        region = mask[part.slice_key]
        region[... if part.mask is None else part.mask] = part.new_value
    else:
        mask[part[0]] = part[2]
