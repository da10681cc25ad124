"""What C libraries write on the terminal."""

from __future__ import annotations

import logging
import os
import sys

from medssl.io.quiet import quiet_libraries


def test_descriptor_2_goes_to_the_debug_log(capfd, caplog):
    with caplog.at_level(logging.DEBUG, logger="medssl.io.quiet"), quiet_libraries():
        os.write(2, b"** ERROR: from C\nsecond line\n")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
    assert "** ERROR: from C | second line" in caplog.text


def test_python_may_have_no_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with quiet_libraries():
        os.write(2, b"lost")
