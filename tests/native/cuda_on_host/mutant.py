"""A defect that the check has to find, and texts that several of them replace."""

from __future__ import annotations

from dataclasses import dataclass

# Comments at barriers.
STEP = "the step is complete, and the one before has been read"
RESULTS = "the results of the group before have been read"


@dataclass(frozen=True)
class Mutant:
    """``before`` becomes ``after`` in csrc/cuda/``file``.

    If that is a header, ``kernel`` is the source that is compiled with it. ``part`` is the part of
    the check that finds the defect.
    """

    name: str
    file: str
    before: str
    after: str
    kernel: str = ""
    part: str = "borders"
