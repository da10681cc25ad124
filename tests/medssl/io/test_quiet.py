"""What C libraries write on the terminal."""

from __future__ import annotations

import ctypes
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


def test_our_own_words_stay_on_stdout_and_those_of_libraries_leave_it(capfd, caplog):
    sys.stdout.write("from Python, ")
    ctypes.CDLL(None).printf(b"from C, ")  # both wait in buffers, for stdout is a file here
    with caplog.at_level(logging.DEBUG, logger="medssl.io.quiet"), quiet_libraries():
        ctypes.CDLL(None).printf(b"Premature end of JPEG file\n")
        os.write(1, b"directly")
    sys.stdout.write("after")
    sys.stdout.flush()
    out = capfd.readouterr().out
    assert out == "from Python, from C, after"
    assert "Premature end of JPEG file" in caplog.text
    assert "directly" in caplog.text
