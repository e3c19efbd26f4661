"""Output that fails with one line, or not at all: problems, streams and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TextIO


class Problem(Exception):
    """The request cannot be carried out; the text is one line that says why. Exit status 2."""


class Tolerant:
    """A text stream that drops its output once it is closed or full."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text and flushes it, so that a failure shows at once."""
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError:
                # Python flushes the rest at exit, which would fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
                self._stream = None
        return len(text)

    def flush(self) -> None:
        """Does nothing: writing flushes."""

    def isatty(self) -> bool:
        """True for a terminal."""
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def check_writable(path: str) -> None:
    """Raises Problem if a file cannot be written there."""
    target = Path(os.path.realpath(path))
    if target.exists():
        reason = "" if target.is_file() else "it is not a file"
        allowed = os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)
    else:
        folder = target.parent
        reason = "" if folder.is_dir() else f"{folder} is not a folder"
        allowed = os.access(folder, os.W_OK)
    if reason or not allowed:
        raise Problem(f"cannot write {path}: {reason or 'permission denied'}")


def write_file(path: str, content: bytes) -> None:
    """Writes a file completely, or raises Problem and leaves an earlier file as it is."""
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(target)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
