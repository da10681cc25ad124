"""What every controller of a panel is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from napari_medssl.session import Session

if TYPE_CHECKING:
    from medssl.volume import Volume
    from napari_medssl.engine import Engine
    from napari_medssl.workers import Run

W = TypeVar("W")


class PanelController(Generic[W]):
    """Stands between one panel and the shared values.

    Args:
        session: shared values.
        widget: the panel; signals out, setters in.
        engine: answers wishes with generators.
        run: runs them.
    """

    def __init__(self, session: Session, widget: W, engine: Engine, run: Run) -> None:
        self._session = session
        self._widget = widget
        self._engine = engine
        self._run = run

    def save(self, mask: Volume | None, path: str) -> None:
        """Write a mask of the shown scan to a file; the ending chooses the format."""
        if mask is None:
            return
        copy = mask.with_array(mask.array.copy())
        names = {entry.id: entry.name for entry in self._session.classes}
        steps = self._engine.export(copy, Path(path), names, self._session.source)
        self._run(steps, f"Saving {Path(path).name}", lambda _: None)
