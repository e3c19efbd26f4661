"""Progress of work that comes in steps, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR = 30
_PATIENCE = 2.0


class Progress:
    """Shows how many steps are done: a bar on a terminal, else a line every other second.

    Args:
        name: What the steps are, in the plural.
        stream: Where to; stderr by default.
    """

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self._name = name
        self._stream = sys.stderr if stream is None else stream
        self._start = self._shown = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        """To be called after each step."""
        now = time.perf_counter()
        text = f"{self._name}: {done} of {total}, {now - self._start:.1f} s"
        if self._stream.isatty():
            filled = _BAR * done // total
            end = "\n" if done == total else ""
            self._stream.write(f"\r  [{'#' * filled}{'.' * (_BAR - filled)}] {text}{end}")
        elif done == total or now - self._shown >= _PATIENCE:
            self._shown = now
            self._stream.write(f"  {text}\n")
        self._stream.flush()
