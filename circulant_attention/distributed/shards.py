"""Who owns which pixels of one dim, and who sends what: arithmetic of ints, no communication.

Rank r owns ``sizes[r]`` consecutive pixels. Its extension has ``before`` more pixels in front and
``after`` behind, modulo the number of pixels in a circular dim, cut at the ends in another. They
belong to any ranks: neighbours, several of them, the rank itself. A rank without pixels has no
extension.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple


class Part(NamedTuple):
    """Consecutive pixels of an extension that have one owner."""

    position: int
    """Where they begin in the extended shard of the rank that lacks them."""
    source: int
    """Where they begin in the shard of their owner."""
    length: int


Parts = tuple[Part, ...]


@dataclass(frozen=True)
class Plan:
    """What one rank needs and gives; the ranks make theirs from the same numbers.

    The parts of a message are in the order of their position in the extended shard of the rank that
    lacks them, for both of its ends: there is one message per pair of ranks, and none has a tag.

    Attributes:
        size: The pixels of the rank.
        before: The pixels of the extension in front of them.
        after: The pixels of the extension behind them.
        own: The parts of the extension that are on the rank itself.
        takes: Those of each other rank that has some, by rank.
        gives: The parts of each other rank that lacks some of this rank's pixels, by rank.
    """

    size: int
    before: int
    after: int
    own: Parts
    takes: tuple[tuple[int, Parts], ...]
    gives: tuple[tuple[int, Parts], ...]

    @property
    def extended(self) -> int:
        """The pixels of the extended shard."""
        return self.before + self.size + self.after


def chunk_sizes(pixels: int, ranks: int) -> tuple[int, ...]:
    """The sizes of the shards of a DTensor: as ``torch.chunk``, with nothing for the last ranks."""
    chunk = -(-pixels // ranks)
    return tuple(min(chunk, max(0, pixels - rank * chunk)) for rank in range(ranks))


@lru_cache(maxsize=1024)
def make_plan(rank: int, sizes: tuple[int, ...], before: int, after: int, circular: bool) -> Plan:
    """The plan of one rank; its cost grows with the neighbours, not with the square of the ranks.

    Args:
        rank: The rank.
        sizes: The pixels of each rank.
        before: The pixels in front of a shard that its owner lacks.
        after: Those behind it.
        circular: Whether the dim is a circle.

    Raises:
        ValueError: If the extension is longer than the circle.
    """
    pixels = sum(sizes)
    if circular and max(before, after) > pixels:
        raise ValueError(
            f"expected halos of at most the {pixels} pixels of the circle, got {before} and {after}"
        )
    needed = _parts(rank, sizes, before, after, circular)
    # Who lacks pixels of this rank owns pixels at most `after` before it or `before` behind it.
    nearby = {owner for owner, _ in _parts(rank, sizes, after, before, circular)}
    start = sum(sizes[:rank])
    front, behind = (before, after) if sizes[rank] else (0, 0)
    if not circular:
        front, behind = min(front, start), min(behind, pixels - start - sizes[rank])
    return Plan(
        sizes[rank],
        front,
        behind,
        _owned(needed, rank),
        tuple((r, _owned(needed, r)) for r in sorted({owner for owner, _ in needed} - {rank})),
        tuple(
            (r, parts)
            for r in sorted(nearby - {rank})
            if (parts := _owned(_parts(r, sizes, before, after, circular), rank))
        ),
    )


def _owned(parts: tuple[tuple[int, Part], ...], rank: int) -> Parts:
    return tuple(part for owner, part in parts if owner == rank)


@lru_cache(maxsize=4096)
def _parts(
    rank: int, sizes: tuple[int, ...], before: int, after: int, circular: bool
) -> tuple[tuple[int, Part], ...]:
    """The owners and the parts of the extension of a rank, by position."""
    if not sizes[rank]:
        return ()
    ends = list(accumulate(sizes))
    pixels, end = ends[-1], ends[rank]
    start = end - sizes[rank]
    first, last = start - before, end + after
    if not circular:
        first, last = max(first, 0), min(last, pixels)
    parts = []
    for at, stop in ((first, start), (end, last)):
        while at < stop:
            pixel = at % pixels
            owner = bisect_right(ends, pixel)
            length = min(stop - at, ends[owner] - pixel)
            source = pixel - ends[owner] + sizes[owner]
            parts.append((owner, Part(at - first, source, length)))
            at += length
    return tuple(parts)
