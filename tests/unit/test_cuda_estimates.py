"""The estimates of ``benchmarks/cuda``, as far as they need no compiler."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import loop_rounds
import pytest
from loop_rounds import Round

from benchmarks.cuda import estimate_tables, estimates
from benchmarks.report import ROOT

COUNTS, CASES = estimates.load(), estimates.CASES


def test_the_tables_are_those_of_the_counts():
    text = estimate_tables.README.read_text()
    assert estimate_tables.with_tables(text, COUNTS) == text, "run: " + estimates.WRITE


def test_the_text_follows_the_counts():
    text = " ".join(estimate_tables.README.read_text().split())
    assert [phrase for phrase in estimate_tables.phrases(COUNTS) if phrase not in text] == []


# Numbers of the cost functions in csrc/cuda, and the counts that they stand for.
FLOAT, MMA = "<float, false>", [f"attention_mma_kernel<Half, {D}, false>" for D in (32, 64, 128)]
ATTENTION, SIMILARITY, APPLY = (
    f"{op}_kernel{FLOAT}" for op in ("attention", "similarity", "apply")
)
HALF = {op: f"{op}_kernel<Half, false>" for op in ("similarity", "apply")}
STEP = COUNTS.loop(ATTENTION, "step")[0]
OF_SUMS = COUNTS.sums(ATTENTION)[1] / 2  # of 64 channels: half a strip and 4 channels at a time
STAGED = COUNTS.move(ATTENTION, "loads")[0] / 4
SUMMED, OF_HALO, OF_ENTRIES = (
    COUNTS.loop(APPLY, "products"),
    COUNTS.move(APPLY, "loads", 0),
    COUNTS.move(APPLY, "loads"),
)
MULTIPLIED, COPIED = COUNTS.loop(SIMILARITY, "products"), COUNTS.move(SIMILARITY, "loads")
# Maps on tensor cores: `map_counts` of loop_rounds.py.
ONTO = [f"similarity_mma_kernel<Half, {D}>" for D in (32, 64, 128)]
FROM = [f"apply_mma_kernel<Half, {D}, false>" for D in (32, 64)]


def of_step(kernel: str) -> list[float]:
    """Slots of a step, of one that a warp meets beside, and of runs that are written beside."""
    slots, _, copying, storing = COUNTS.loop(kernel, "step")
    return [copying, slots - copying, (storing - slots) / 2]


def slots_of(kernel: str, *roles: str) -> float:
    return sum(COUNTS.loop(kernel, role)[0] for role in roles)


def mean(of_case: Callable[[estimates.Case, estimates.Plan], float], op: str) -> float:
    plans = [(case, COUNTS.contents[f"{name} {op} float32"][0]) for name, case in CASES.items()]
    return sum(of_case(*one) for one in plans) / len(plans)


def halo_loads(case: estimates.Case, p: estimates.Plan) -> float:
    """Of apply: loads of the halo, of 32 columns each, per channel and strip."""
    rows = (case.window + p["h"] - 1) / case.window
    return rows * estimates.up(p["w"] + case.window - 1, 32) / estimates.up(case.window, 8)


CONSTANTS = [
    (
        "octets.h",
        r"granule == 8 \? (\d+) : granule == 4 \? (\d+) : granule == 2 \? (\d+) : (\d+);",
        [slots for slots, *_ in COUNTS.contents[f"sm_90 {ONTO[1]}"]["copy"]],
    ),
    (
        "map_mma_plan.cu",
        r"D == 32 \? (\d+)\. : D == 64 \? (\d+)\. : (\d+)\." + 9 * r",\s+(\d+)" + r"\};",
        [
            *(slots_of(kernel, "products") for kernel in ONTO),
            *of_step(ONTO[1])[:2],
            *(slots_of(ONTO[1], role) for role in ("line", "copy", "run", "word")),
            of_step(ONTO[1])[2],
            *(slots_of(ONTO[1], role) for role in ("tile", "row")),
        ],
    ),
    (
        "map_mma_plan.cu",
        r"\{D == 32 \? (\d+)\. : (\d+)\." + 9 * r",\s+(\d+)" + r"\};",
        [
            *(slots_of(kernel, "products") / 2 for kernel in FROM),
            *of_step(FROM[1])[:2],
            slots_of(FROM[1], "line", "checked line"),
            slots_of(FROM[1], "copy", "check"),
            *(slots_of(FROM[1], role) for role in ("run", "word")),
            of_step(FROM[1])[2],
            *(slots_of(FROM[1], role) for role in ("tile", "row")),
        ],
    ),
    (
        "map_mma_plan.cu",
        r"\((\d+) / 2\. \+ ([\d.]+) \* (\d+)\) \+ 32 \* (\d+) \+ (\d+) / 2\.\)",
        [
            slots_of(HALF["similarity"], "products"),
            mean(lambda _, p: p["channel"] / 32 / 16, "similarity"),
            COUNTS.move(HALF["similarity"], "loads")[0],
            COUNTS.move(HALF["similarity"], "stores")[0],
            slots_of(HALF["similarity"], "tile"),
        ],
    ),
    (
        "map_mma_plan.cu",
        r"rows \* C \* \((\d+) / 16\.\) \+\s+"
        r"strips \* \(C \* \((\d+) / 16\. \+ ([\d.]+) \* (\d+)\) \+ .* 32 \* (\d+)\)",
        [
            slots_of(HALF["apply"], "step"),
            slots_of(HALF["apply"], "products"),
            mean(halo_loads, "apply"),
            COUNTS.move(HALF["apply"], "loads", 0)[0],
            COUNTS.move(HALF["apply"], "loads")[0],
        ],
    ),
    (
        "attention_mma_plan.cu",
        r"D == 32 \? (\d+) : D == 64 \? (\d+) : (\d+);",
        [COUNTS.loop(kernel, "products")[0] / 3 for kernel in MMA],
    ),
    (
        "attention_mma_plan.cu",
        r"return (\d+) \+ columns \+ copy_slots",
        [COUNTS.of_step(MMA[1])],
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
COPY, STORE = (0x7FAE, 6 << 9), (0x7986, 0)


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
    found = loop_rounds.rounds(b"".join(struct.pack("<QQ", *words) for words in code))
    assert [(one.depth, one.everything, one.slots, one.wavefronts) for one in found] == [
        (1, 16, 3, 0),
        (2, 2, 2, 4),
        (2, 9, 7, 1),
    ]
    assert [(one.products, one.loads, one.wide) for one in found] == [
        (0, 0, 0),
        (0, 1, 1),
        (2, 0, 0),
    ]


def test_other_paths_are_counted():
    """A loop that copies, multiplies if there is something to multiply, and stores at times."""
    code = [
        *(COPY, OTHER),
        *(branch(2, 9, 0), SUM, OTHER, OTHER),
        *(branch(6, 9, 0), STORE, OTHER),
        branch(9, 0),
        branch(10, 10, 7),
    ]
    [found] = loop_rounds.rounds(b"".join(struct.pack("<QQ", *words) for words in code))
    assert (found.copying, found.slots, found.storing) == (4, 8, 10)


def a_round(depth: int, slots: int, **of: int) -> Round:
    """A round of a loop with the same slots on every path, unless they are given."""
    kinds = {"wavefronts": 0, "products": 0, "loads": 0, "stores": 0, "wide": 0}
    return Round(
        **{
            "depth": depth,
            "everything": slots,
            "slots": slots,
            "copying": slots,
            "storing": slots,
            **kinds,
            **of,
        }
    )


def test_the_loops_of_maps_are_told_apart():
    """similarity: a row of the tile, a step, its copies, products, and runs that are written."""
    copies = [a_round(4, 10 + i, loads=2**i, wide=i == 0) for i in range(4)]
    found = loop_rounds.map_counts(
        [
            a_round(1, 100),
            *(a_round(2, 37), a_round(3, 50), *copies),
            *(a_round(2, 160, copying=77, storing=540), a_round(3, 52), *copies),
            a_round(3, 64, wavefronts=16, products=8, everything=193),
            *(a_round(3, 9, storing=31), a_round(4, 11, wavefronts=4, stores=1)),
        ]
    )
    assert found == {
        "products": [[64, 16, 8, 193]],
        "step": [[160, 0, 77, 540]],
        "copy": [[10, 0, 1], [11, 0, 2], [12, 0, 4], [13, 0, 8]],
        "line": [[52, 0]],
        "word": [[11, 4]],
        "run": [[31, 0]],
        "tile": [[100, 0]],
        "row": [[37, 0]],
    }
