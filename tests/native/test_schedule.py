"""How the CPU kernels' work is cut: complete, without conflicts, and with work for every thread."""

from __future__ import annotations

import heapq
import itertools
import math
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parent / "schedule" / "items.cpp"
Grid = tuple[tuple[int, int, int], tuple[int, int, int]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("schedule") / "items"
    spec = util.find_spec("torch")
    include = Path(spec.origin).parent / "include"
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-isystem", include, SOURCE]
    subprocess.run([*command, "-o", target], check=True)
    return target


@dataclass
class Pairs:
    """One item of attention_backward; spans are (begin, end)."""

    group: int
    queries: list[tuple[int, int]]
    key_planes: tuple[int, int]
    key_rows: tuple[int, int]
    offsets: tuple[int, int]
    stores_dq: bool
    stored_rows: tuple[int, int]


def spans(numbers: list[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def schedule(
    program: Path,
    grid: Grid,
    groups: int,
    channels: int = 64,
    threads: int = 2,
    truncated: bool = False,
) -> tuple[list[list[int]], list[list[Pairs]], bool]:
    """The forward items, the phases of attention_backward, and whether dk and dv start at 0."""
    numbers = [*grid[0], *grid[1], groups, channels, threads, int(truncated)]
    ran = subprocess.run([program, *map(str, numbers)], check=True, capture_output=True, text=True)
    items, phases, zeros = [], [], False
    for line in ran.stdout.splitlines():
        word, *rest = line.split()
        fields = [int(x) for x in rest]
        if word == "item":
            items.append(fields)
        elif word == "zeros":
            zeros = bool(fields[0])
        elif word == "phase":
            phases.append([])
        else:
            keys = spans(fields[7:13])
            pairs = Pairs(
                fields[0], spans(fields[1:7]), *keys, bool(fields[13]), (fields[14], fields[15])
            )
            phases[-1].append(pairs)
    return items, phases, zeros


def along(
    queries: tuple[int, int],
    keys: tuple[int, int],
    size: int,
    window: int,
    truncated: bool = False,
) -> list[tuple[int, int, int]]:
    """The query, the key and the key without wrapping, of every pair along one dim."""
    halo = window // 2
    return [
        (i, j % size, j)
        for i in range(*queries)
        for j in range(max(keys[0], i - halo), min(keys[1], i + halo + 1))
        if not truncated or 0 <= j < size
    ]


def columns_of(
    item: Pairs, size: int, window: int, truncated: bool = False
) -> list[tuple[int, int]]:
    return [
        (i, (i + o - window // 2) % size)
        for i in range(*item.queries[2])
        for o in range(*item.offsets)
        if not truncated or 0 <= i + o - window // 2 < size
    ]


def present(size: int, window: int, truncated: bool) -> np.ndarray:
    """Whether a query, a row, has a key at an offset, a column."""
    key = np.add.outer(np.arange(size), np.arange(window) - window // 2)
    return (key >= 0) & (key < size) if truncated else np.ones_like(key, bool)


# Each dim alone and together, windows as large as the grid, segments, few rows, many groups, a last
# block of few rows.
SMALL = [
    ((1, 1, 1), (1, 1, 1)),
    ((1, 1, 700), (1, 1, 99)),
    ((1, 1, 1500), (1, 1, 601)),
    ((1, 17, 19), (1, 7, 7)),
    ((1, 96, 40), (1, 35, 3)),
    ((1, 45, 45), (1, 45, 45)),
    ((1, 3, 300), (1, 3, 299)),
    ((1, 150, 9), (1, 9, 5)),
    ((1, 29, 64), (1, 3, 3)),
    ((1, 29, 9), (1, 7, 7)),
    ((9, 6, 7), (5, 5, 3)),
    ((16, 16, 8), (3, 5, 3)),
    ((3, 1, 5), (3, 1, 5)),
]


@pytest.mark.parametrize("grid", SMALL, ids=str)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("channels", [2, 128])
@pytest.mark.parametrize("truncated", [False, True])
def test_the_backward_meets_each_pair_once_and_without_conflicts(
    program, grid, groups, channels, truncated
):
    """Each pair of a query and a key in one phase; in a phase, no query and no key in two items.

    Everything is stored before something is added to it.
    """
    size, window = grid
    _, phases, zeros = schedule(program, grid, groups, channels, truncated=truncated)
    met = np.zeros((size[0], size[1], *window[:2], size[2], window[2]), np.int32)
    dq = np.zeros((groups, *size), bool)
    dk = np.full((groups, *size), zeros)
    for phase in phases:
        queries = np.zeros((groups, *size), np.int32)
        keys = np.zeros((groups, *size), np.int32)
        for item in phase:
            planes = along(item.queries[0], item.key_planes, size[0], window[0], truncated)
            rows = along(item.queries[1], item.key_rows, size[1], window[1], truncated)
            near = columns_of(item, size[2], window[2], truncated)
            own = [sorted({i for i, *_ in pairs}) for pairs in (planes, rows)]
            own.append(list(range(*item.queries[2])))
            others = [sorted({j for _, j, *_ in pairs}) for pairs in (planes, rows, near)]
            if not all(own):
                continue
            at = np.ix_(*own)
            assert dq[item.group][at].all() or item.stores_dq
            dq[item.group][at] = True
            queries[item.group][at] += 1
            # In the order of the kernel: rows that are not stored hold sums already.
            for _, j, row in sorted(rows, key=lambda pair: pair[2]):
                at = np.ix_(others[0], [j], others[2])
                stored = item.stored_rows[0] <= row < item.stored_rows[1]
                assert stored or dk[item.group][at].all()
                dk[item.group][at] |= True
            keys[item.group][np.ix_(*others)] += 1
            if item.group == 0:
                halo = [w // 2 for w in window]
                for (d, _, e), (h, _, r) in itertools.product(planes, rows):
                    block = met[d, h, e - d + halo[0], r - h + halo[1]]
                    block[slice(*item.queries[2]), slice(*item.offsets)] += 1
        assert queries.max() <= 1
        assert keys.max() <= 1
    assert dq.all()
    assert dk.all()
    planes, rows = (present(n, w, truncated) for n, w in zip(size[:2], window[:2], strict=True))
    assert (met == np.einsum("de,hr->dher", planes, rows)[..., None, None]).all()


@pytest.mark.parametrize("grid", SMALL, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 7, 64])
def test_the_forward_ops_compute_each_pixel_once(program, grid, threads):
    items, *_ = schedule(program, grid, 2, threads=threads)
    found = np.zeros((2, *grid[0]), np.int32)
    for group, *rest in items:
        planes, rows, columns = spans(rest)
        found[group, slice(*planes), slice(*rows), slice(*columns)] += 1
        # Kernels treat rows by fours: the cut changes no bit.
        assert rows[0] % 4 == 0
    assert (found == 1).all()


def busiest(times: Iterable[float], threads: int) -> float:
    """The time of the busiest thread, if each takes the next item when it is free."""
    ends = [0.0] * threads
    for time in times:
        heapq.heappush(ends, heapq.heappop(ends) + time)
    return max(ends)


# Few rows, a long window, one group, 1-D and 3-D.
LARGE = [
    (((1, 96, 128), (1, 35, 35)), 1),
    (((1, 64, 64), (1, 63, 63)), 1),
    (((1, 240, 160), (1, 35, 35)), 1),
    (((1, 128, 96), (1, 15, 15)), 2),
    (((1, 64, 64), (1, 7, 7)), 8),
    (((1, 480, 640), (1, 7, 7)), 1),
    (((1, 1, 4096), (1, 1, 255)), 1),
    (((1, 1, 16385), (1, 1, 4097)), 1),
    (((1, 1, 46343), (1, 1, 46343)), 1),
    (((1, 3, 3001), (1, 3, 2001)), 1),
    (((32, 32, 32), (5, 5, 5)), 1),
    (((16, 16, 16), (5, 5, 5)), 1),
]


@pytest.mark.parametrize(("grid", "groups"), LARGE, ids=str)
def test_every_thread_has_work(program, grid, groups):
    """The pairs of the busiest thread against an even division."""
    size, window = grid
    total = groups * math.prod(size) * math.prod(window)
    for threads in (2, 3, 4, 8, 16, 64):
        items, phases, _ = schedule(program, grid, groups, threads=threads)
        times = [
            math.prod(end - begin for begin, end in spans(rest)) * math.prod(window)
            for _, *rest in items
        ]
        forward = busiest(times, threads) * threads / total
        backward = sum(
            busiest([pairs_of(item, grid) for item in phase], threads) for phase in phases
        )
        bound = {2: 1.1, 3: 1.15, 4: 1.15, 8: 1.25, 16: 1.4, 64: 3}[threads]
        assert forward <= bound, threads
        # Threads wait at the end of each phase.
        bound = {2: 1.1, 3: 1.3, 4: 1.15, 8: 1.6, 16: 2.5, 64: 9}[threads]
        assert backward * threads / total <= bound, threads


def pairs_of(item: Pairs, grid: Grid) -> int:
    size, window = grid
    dims = zip(
        item.queries[:2], (item.key_planes, item.key_rows), size[:2], window[:2], strict=True
    )
    columns = (item.queries[2][1] - item.queries[2][0]) * (item.offsets[1] - item.offsets[0])
    return math.prod(len(along(*dim)) for dim in dims) * columns
