"""Errors whose text is written for the person at the keyboard."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: a file, an option or a label that cannot be used.

    The message is one line that names the file or option, the reason and the way out. Commands end
    with exit code 2 and print it as ``error: <message>``; the viewer shows it as a notification.
    """


class MissingDependencyError(InputError):
    """An optional package is needed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'napari-medssl[{extra}]'")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a CPU or on a device; torch says so in words alone."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
