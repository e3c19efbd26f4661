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
        self._stream = stream or Path(os.devnull).open("w")

    def write(self, text: str) -> int:
        """Writes text and flushes it, so that a failure shows at once."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # Also for what the stream still holds, which Python flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def writable(path: str) -> str:
    """The path of a file that can be written, else Problem."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        reason = "it is not a file"
    elif not target.parent.is_dir():
        reason = f"{target.parent} is not a folder"
    elif not all(os.access(p, os.W_OK) for p in (target, target.parent) if p.exists()):
        reason = "permission denied"
    else:
        return path
    raise Problem(f"cannot write {path}: {reason}")


def write_file(path: str, content: bytes) -> None:
    """Writes a file completely, or raises Problem and leaves an earlier file as it is."""
    target = Path(path).resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(target)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
