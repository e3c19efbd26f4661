"""The estimates of ``benchmarks/cuda``, as far as they need no compiler."""

from __future__ import annotations

import re
import struct

import issue_slots
import pytest
from issue_slots import Round

from benchmarks.cuda import estimate_tables, estimates
from benchmarks.report import ROOT

COUNTS = estimates.load()


def test_the_tables_are_those_of_the_counts():
    text = estimate_tables.README.read_text()
    assert estimate_tables.with_tables(text, COUNTS) == text, "run: " + estimates.WRITE


# Numbers of the cost functions in csrc/cuda, and the counts that they stand for.
FLOAT, MMA = "<float, false>", [f"attention_mma_kernel<Half, {D}, false>" for D in (32, 64, 128)]
ATTENTION, SIMILARITY, APPLY = (
    f"{op}_kernel{FLOAT}" for op in ("attention", "similarity", "apply")
)
STEP = COUNTS.loop(ATTENTION, "step")[0]
OF_SUMS = COUNTS.sums(ATTENTION)[1] / 2  # of 64 channels: half a strip and 4 channels at a time
STAGED = COUNTS.move(ATTENTION, "loads")[0] / 4
SUMMED, OF_HALO, OF_ENTRIES = (
    COUNTS.loop(APPLY, "products"),
    COUNTS.move(APPLY, "loads", 0),
    COUNTS.move(APPLY, "loads"),
)
MULTIPLIED, COPIED = COUNTS.loop(SIMILARITY, "products"), COUNTS.move(SIMILARITY, "loads")
CONSTANTS = [
    (
        "attention_mma_plan.cu",
        r"D == 32 \? (\d+) : D == 64 \? (\d+) : (\d+);",
        [COUNTS.loop(kernel, "products")[0] / 3 for kernel in MMA],
    ),
    (
        "attention_mma_plan.cu",
        r"p\.granule == 8 \? (\d+) :.*\n.*\n +return (\d+) \+ columns \+ copy",
        [COUNTS.loop(MMA[1], "copy")[0], COUNTS.of_step(MMA[1])],
    ),
    (
        "attention_mma_plan.cu",
        r"\((\d+) \* strips \+ ([\d.]+) \* loads\) \* shape\.channels .*\n"
        r".*\((\d+) \* strips \+ ([\d.]+) \* loads\) .* (\d+) \* std::ceil\(strips / 8\)",
        [COUNTS.loop(ATTENTION, "products")[1], STAGED, OF_SUMS, STAGED, 8 * STEP / 4],
    ),
    (
        "attention_plan.cu",
        r"\(([\d.]+) \* std::max\(per_step, 4\) \+ ([\d.]+) \* loads\) .*\n"
        r".*\(([\d.]+) \* per_step \+ ([\d.]+) \* loads\)",
        [COUNTS.loop(ATTENTION, "products")[1], STAGED, OF_SUMS, STAGED],
    ),
    (
        "apply_plan.cuh",
        r"slots = ([\d.]+) \* p\.warps \* row_passes \+ (\d+) \* entries \+ (\d+) \* loads",
        [SUMMED[0], OF_ENTRIES[0], OF_HALO[0]],
    ),
    (
        "apply_plan.cuh",
        r"shared = ([\d.]+) \* p\.warps \* row_passes \+ (\d+) \* entries \+ (loads)",
        [SUMMED[1], OF_ENTRIES[1], OF_HALO[1]],
    ),
    (
        "similarity.cu",
        r"slots = \(kWarps \* (\d+) \+ ([\d.]+) \* copies\) / 4",
        [MULTIPLIED[0], COPIED[0]],
    ),
    (
        "similarity.cu",
        r"shared = .*: (\d+)\) \+ ([\d.]+) \* copies",
        [MULTIPLIED[1], COPIED[1]],
    ),
]


@pytest.mark.parametrize(("file", "pattern", "counted"), CONSTANTS, ids=lambda x: str(x)[:40])
def test_the_plans_know_the_counts(file: str, pattern: str, counted: list[float]):
    """Within a fifth: tiles with costs that are closer are about as good."""
    found = re.search(pattern, (ROOT / "csrc" / "cuda" / file).read_text())
    assert found, f"{file} has no cost function like {pattern}"
    numbers = [1.0 if number == "loads" else float(number) for number in found.groups()]
    assert numbers == pytest.approx(counted, rel=0.2)


def test_blocks_take_what_their_loops_take():
    """A block of similarity: 8 x 32 pixels, 64 channels, one of four steps of a window of 15."""
    contents = {
        "sm_90 similarity_kernel<float, false>": {
            "products": [[75, 24, 64, 75]],
            "loads": [[30, 8, 4]],
            "stores": [[56, 16, 4]],
            "tile": [[200, 60]],
        },
    }
    case = estimates.Case("case", 2, 64, (128, 96), 15)
    plan = {"blocks": 133, "d": 1, "h": 8, "w": 32, "channel": 320, "steps": 4}
    launch = estimates.Counts(contents).similarity(case, plan)
    # 30 strips of 8 taps in 4 steps, 10 copies of 32 values per channel, 480 stores, 8 warps.
    assert launch.slots == 7.5 * 64 * 75 + 10 * 64 * 7.5 + 480 * 14 + 8 * 200
    assert launch.wavefronts == 7.5 * 64 * 24 + 10 * 64 * 2 + 480 * 4 + 8 * 60
    cycles = max(launch.slots / 4, launch.wavefronts)
    assert launch.seconds(whole=True) == pytest.approx(2 * cycles / estimates.CLOCK)
    assert launch.seconds(whole=False) == pytest.approx(133 / 132 * cycles / estimates.CLOCK)


def test_parts_of_a_launch_fill_idle_multiprocessors():
    """133 blocks of 10 cycles, then 131 of 5: one multiprocessor has two of the former."""
    parts = [estimates.Launch(133, 40, 10), estimates.Launch(131, 8, 5)]
    assert estimates.in_one(parts) == pytest.approx(20 / estimates.CLOCK)
    assert sum(part.seconds(True) for part in parts) == pytest.approx(25 / estimates.CLOCK)


OTHER, SUM, LOAD, SKIPPED_LOAD = (0x7918, 0), (0x7223, 0), (0x7984, 4 << 9), (0xF984, 4 << 9)
COPY = (0x7FAE, 6 << 9)


def branch(at: int, target: int, guard: int = 0, high: int = 7 << 23) -> tuple[int, int]:
    """A branch of instruction ``at``; a guard of 7 is always true."""
    units = (target - at - 1) * 4 & (1 << 48) - 1
    return 0x947 | guard << 12 | (units & (1 << 30) - 1) << 34, high | units >> 30


def test_the_usual_path_is_counted():
    """Outer loop: a branch over two others, a copy loop, and an inner loop with two branches."""
    code = [
        *(OTHER, branch(1, 4), OTHER, OTHER),  # the path that skips two is shorter
        *(COPY, branch(5, 4)),
        *(LOAD, SKIPPED_LOAD),
        *(branch(8, 11), SUM, branch(10, 13, 7), SUM, SUM),  # one product or two
        branch(13, 20, 7, 7 << 23 | 1 << 27),  # of threads that diverge
        branch(14, 6),
        branch(15, 0),
        *[OTHER] * 4,
        branch(20, 14, 7),  # back into the loop from behind it, no loop
        branch(21, 21, 7),
    ]
    assert issue_slots.rounds(b"".join(struct.pack("<QQ", *words) for words in code)) == [
        Round(depth=1, everything=16, slots=3, wavefronts=0, products=0, loads=0, stores=0, wide=0),
        Round(depth=2, everything=2, slots=2, wavefronts=4, products=0, loads=1, stores=0, wide=1),
        Round(depth=2, everything=9, slots=7, wavefronts=1, products=2, loads=0, stores=0, wide=0),
    ]
