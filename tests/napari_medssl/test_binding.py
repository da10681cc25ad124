"""The Qt binding keeps the books of Python objects: the viewer must live for days."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytest.importorskip("qtpy")

pytestmark = pytest.mark.gui

CALLS = 2000


def test_calls_that_return_nothing_take_no_reference_from_none(qtbot: Any, qapp: Any) -> None:
    # PySide6 6.12.0 does; before Python 3.12, which never frees None, the program then ends by an abort
    from qtpy.QtWidgets import QLabel

    label = QLabel()
    qtbot.addWidget(label)
    before = sys.getrefcount(None)
    for _ in range(CALLS):
        label.setText("text")
        qapp.processEvents()
    assert sys.getrefcount(None) > before - CALLS // 2
