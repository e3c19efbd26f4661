"""The tables of ``python -m benchmarks.kernels``, in Markdown."""

from typing import Any

from benchmarks.cases import CASES, KERNEL_CASES
from benchmarks.kernel_calls import PRODUCTS
from benchmarks.kernel_sweeps import DTYPES_CASE
from benchmarks.report import head

# The fraction of the FMA peak that each kernel should reach on a Zen 4 with GOAL_THREADS threads.
GOALS = {
    "readme": (0.70, 0.65, 0.58, 0.55, 0.55, 0.52),
    "large_window": (0.80, 0.72, 0.64, 0.62, 0.72, 0.62),
    "group": (0.72, 0.60, 0.50, 0.50, 0.66, 0.52),
    "heads": (0.61, 0.58, 0.40, 0.36, 0.43, 0.34),
    "many_small": (0.44, 0.40, 0.34, 0.32, 0.32, 0.30),
}
GOAL_THREADS = 2
SPEEDUP_GOALS = {2: 1.8, 4: 3.3}
BLEND_GOAL, GROUP_MS_GOAL, PLAIN_GOAL = 1.5, 90.0, 3.0
SMALL_GOAL, ROLL_GOAL, BIAS_GOAL = 3.0, 10.0, 1.05


def shown_threads(counts: list[int]) -> int:
    """The number of threads of the main table and of what has no table for each number."""
    return GOAL_THREADS if GOAL_THREADS in counts else counts[-1]


def markdown(run: dict[str, Any]) -> str:
    """All sections."""
    made = "; what is measured is in [the README](../README.md)."
    counts = sorted({result["threads"] for result in run["table"]})
    main = shown_threads(counts)
    lines = head("The CPU kernels as fractions of the FMA peak", run, made, run["machine"])
    for count in (main, *(count for count in counts if count != main)):
        lines += fractions(count, [found for found in run["table"] if found["threads"] == count])
    if counts[0] == 1:
        for count in counts[1:]:
            lines += speedups(count, run["table"])
    sections = (
        ("group", group),
        ("widths", widths),
        ("growth", growth),
        ("dtypes", dtypes),
        ("biases", biases),
        ("small", small),
    )
    for name, section in sections:
        lines += section(run[name]) if name in run else []
    return "\n".join(lines) + "\n"


def progress(results: list[dict[str, Any]]) -> list[str]:
    """A line per number of threads, for the screen."""
    return [
        f"{result['case']}, {threads(result['threads'])}: "
        + ", ".join(f"{name} {best(found)}" for name, found in result["kernels"].items())
        for result in results
    ]


def fractions(count: int, results: list[dict[str, Any]]) -> list[str]:
    """The fractions of the FMA peak, the goals, and the times."""
    rows, times, reached = [], [], []
    for result in results:
        found = result["kernels"]
        case = str(KERNEL_CASES[result["case"]])
        rows.append([case, *(best(found[name]) for name in PRODUCTS), best(result["sgemm"])])
        times.append([case, *(ms(found[name]["seconds"]) for name in PRODUCTS)])
        if count == GOAL_THREADS:
            cells = []
            for goal, name in zip(GOALS[result["case"]], PRODUCTS, strict=True):
                missing = goal - round(found[name]["fraction"]["best"], 2)
                cells.append(judged(f"{goal:.2f}", missing, f"{missing:.2f} short"))
                reached.append(missing <= 0)
            rows.append(["goal", *cells, ""])
    peaks = [result["fma_flops_per_second"]["best"] / 1e9 for result in results]
    summary = f"{sum(reached)} of {len(reached)} goals, those of a Zen 4, are reached."
    return [
        "",
        f"## Fractions of the FMA peak, {threads(count)}",
        "",
        *table(["case", *PRODUCTS, "sgemm"], rows),
        "",
        *([summary, ""] if reached else []),
        f"The FMA peak was {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s meanwhile. Milliseconds:",
        "",
        *table(["case", *PRODUCTS], times),
    ]


def speedups(count: int, results: list[dict[str, Any]]) -> list[str]:
    """The speed of ``count`` threads over that of one, and that of the FMA peak."""
    goal = SPEEDUP_GOALS.get(count, 0.0)
    peaks = {
        (found["case"], found["threads"]): found["fma_flops_per_second"]["best"]
        for found in results
    }
    rows = []
    for result in results:
        if result["threads"] != count:
            continue
        cells = []
        for name in PRODUCTS:
            speedup = result["kernels"][name]["speedup"]
            missing = goal - round(speedup["best"], 2)
            cells.append(two(speedup) + (f", {missing:.2f} short" if missing > 0 else ""))
        name = result["case"]
        peak = peaks[name, count] / peaks[name, 1]
        rows.append([str(KERNEL_CASES[name]), *cells, f"{peak:.2f}"])
    return [
        "",
        f"## {threads(count).capitalize()} against one",
        "",
        *([f"Goal: {goal}.", ""] if goal else []),
        *table(["case", *PRODUCTS, "FMA peak"], rows),
    ]


def group(result: dict[str, Any]) -> list[str]:
    """The blend against a copy, the group against plain PyTorch."""
    seconds = {name: result[name]["best"] for name in ("copy", "blend", "group", "plain group")}
    blend = seconds["blend"] / seconds["copy"]
    milliseconds = seconds["group"] * 1e3
    faster = seconds["plain group"] / seconds["group"]
    size = f"{result['bytes'] / 1e6:.0f} MB"
    rows = [
        [f"copy {size} into new huge pages", ms(result["copy"]), ""],
        [
            f"blend two matrices of {size}, 0.3 A + 0.7 B",
            ms(result["blend"]),
            f"{blend:.2f} copies; goal: at most "
            + judged(f"{BLEND_GOAL:.1f}", blend - BLEND_GOAL, f"{blend - BLEND_GOAL:.2f} over"),
        ],
        [
            "adjacency, blend, 5 applications",
            ms(result["group"]),
            "goal on a Zen 4: at most "
            + judged(
                f"{GROUP_MS_GOAL:.0f} ms",
                milliseconds - GROUP_MS_GOAL,
                f"{milliseconds - GROUP_MS_GOAL:.0f} ms over",
            ),
        ],
        [
            "the same in plain PyTorch, by tiles",
            ms(result["plain group"]),
            f"{faster:.1f} times ours; goal: at least "
            + judged(f"{PLAIN_GOAL:.0f}", PLAIN_GOAL - faster, f"{PLAIN_GOAL - faster:.1f} short"),
        ],
    ]
    return [
        "",
        "## The matrix as a value",
        "",
        f"On {KERNEL_CASES[result['case']]}, {threads(result['threads'])}.",
        "",
        *table(["", "ms", ""], rows),
    ]


def widths(results: list[dict[str, Any]]) -> list[str]:
    """The instruction sets of the library, as fractions of the peak of the widest vectors."""
    rows = [
        [
            result["instruction set"],
            f"{result['bits']}",
            f"{result['fma_flops_per_second of the width'] / 1e9:.0f}",
            *(best(result["kernels"][name]) for name in PRODUCTS),
        ]
        for result in results
    ]
    first = results[0]
    return [
        "",
        "## Widths of the vector units",
        "",
        f"On {KERNEL_CASES[first['case']]}, {threads(first['threads'])}: fractions of the FMA peak "
        "of the widest vectors. The plain code has neither FMA nor more than 128 bits. On 64-bit "
        "Arm the same source has 128 bits and FMA (NEON); no such processor has been measured.",
        "",
        *table(["", "bits", "FMA peak of the width, GFLOP/s", *PRODUCTS], rows),
    ]


def growth(results: list[dict[str, Any]]) -> list[str]:
    lines = [
        "",
        "## Growth",
        "",
        "Milliseconds of one thread while the pixels N, or the offsets K of a window, grow. A time "
        "that is linear in both grows by the factor in the last column.",
    ]
    for what in dict.fromkeys(result["grows"] for result in results):
        found = [result for result in results if result["grows"] == what]
        entries = found[0]["entries"]
        rows = [
            [
                result["kernel"],
                *(f"{each['median'] * 1e3:.2f}" for each in result["seconds"]),
                text(result["factor"], 1),
                f"{entries[-1] / entries[0]:.1f}",
            ]
            for result in found
        ]
        heads = [f"N K = {count}" for count in entries]
        lines += ["", *table([f"{what} grows", *heads, "time grew by", "N K grew by"], rows)]
    return lines


def dtypes(results: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            result["dtype"],
            result["kernel"],
            text(result["times float32"]),
            text(result["roll"], 1) if "roll" in result else "",
        ]
        for result in results
    ]
    return [
        "",
        "## Other dtypes",
        "",
        f"On {DTYPES_CASE}, one thread. Goal of float64 over torch.roll: {ROLL_GOAL:.0f}.",
        "",
        *table(["", "", "time over that of float32", "time of torch.roll over ours"], rows),
    ]


def biases(results: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            str(CASES[result["case"]]),
            result["kernel"],
            result["biases"],
            f"{result['seconds']['median'] * 1e3:.2f}",
            text(result["ratio"]),
        ]
        for result in results
    ]
    heads = ["case", "", "", "milliseconds", "time over that without biases"]
    return [
        "",
        "## A bias of the offsets and of the keys",
        "",
        f"One thread; the backward gives the gradients of the biases, too. Goal: {BIAS_GOAL}.",
        "",
        *table(heads, rows),
    ]


def small(result: dict[str, Any]) -> list[str]:
    return [
        "",
        "## A small problem",
        "",
        "`circulant_attention` on 1 x 16 x 32 x 32 with window 5, and "
        "`scaled_dot_product_attention` on 1 x 1 x 1024 x 16: "
        f"{result['seconds']['median'] * 1e6:.0f} us and "
        f"{result['sdpa_seconds']['median'] * 1e6:.0f} us, "
        f"{text(result['ratio'])} times as long. Goal: less than {SMALL_GOAL:.0f} times.",
    ]


def judged(goal: str, missing: float, by: str) -> str:
    """A goal, and whether it is reached."""
    return f"{goal}, {by}" if missing > 0 else f"{goal}, reached"


def threads(count: int) -> str:
    return {1: "one thread", 2: "two threads", 4: "four threads"}.get(count, f"{count} threads")


def best(found: dict[str, Any]) -> str:
    return two(found["fraction"])


def two(numbers: dict[str, float]) -> str:
    return f"{numbers['best']:.2f} ({numbers['median']:.2f})"


def text(spread: dict[str, float], digits: int = 2) -> str:
    low, high = (f"{spread[name]:.{digits}f}" for name in ("low", "high"))
    return f"{spread['median']:.{digits}f} ({low} to {high})"


def ms(seconds: dict[str, float]) -> str:
    return f"{seconds['best'] * 1e3:.2f} ({seconds['median'] * 1e3:.2f})"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
