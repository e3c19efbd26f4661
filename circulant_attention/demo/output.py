"""A file that is written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from circulant_attention.demo.problem import Problem


@contextmanager
def reserved(path: str) -> Iterator[IO[bytes]]:
    """Makes sure that a file can be written, before the work whose result goes there.

    What is written lands beside the file and takes its place in the end, if nothing went wrong.

    Args:
        path: The file.

    Yields:
        What to write to.

    Raises:
        Problem: If the file cannot be written, or is something else than a file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise Problem(f"cannot write {path}: it is not a file")
    if target.exists() and not os.access(target, os.W_OK):
        raise Problem(f"cannot write {path}: permission denied")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        file = unfinished.open("xb")
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from error
    try:
        with file:
            yield file
        unfinished.replace(target)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
