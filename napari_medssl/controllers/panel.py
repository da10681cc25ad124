"""What every controller of a panel is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from napari_medssl.session import Session

if TYPE_CHECKING:
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
