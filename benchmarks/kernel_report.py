"""The tables of ``python -m benchmarks.kernels``, in Markdown."""

from typing import Any

from benchmarks.cases import CASES
from benchmarks.report import head

# The smallest acceptable ratio of each kernel, on two threads with AVX-512.
GOALS = {
    "readme": (0.85, 0.85, 0.70, 0.78, 0.65),
    "large_window": (0.95, 0.90, 0.80, 1.05, 0.60),
    "heads": (0.75, 0.77, 0.50, 0.50, 0.35),
    "many_small": (0.50, 0.52, 0.38, 0.42, 0.32),
}
SPEEDUP_GOAL, SMALL_GOAL, ROLL_GOAL = 1.8, 3.0, 10.0


def markdown(run: dict[str, Any]) -> str:
    """All sections."""
    made = (
        "; what is measured is in [the README](../README.md). Numbers are medians, in brackets the "
        "quartiles."
    )
    lines = [
        *head("How near the CPU kernels come to sgemm", run, made, run["machine"]),
        *ratios("Useful operations per second over those of sgemm", run["ratios"]),
        *ratios("The same for one thread, by processor time", run["ratios of one thread"]),
        *new_memory(run["new memory"]),
        *growth(run["growth"]),
        *threads(run["threads"]),
        *dtypes(run["dtypes"]),
        *small(run["small"]),
    ]
    return "\n".join(lines) + "\n"


def ratios(title: str, results: list[dict[str, Any]]) -> list[str]:
    cases = list(dict.fromkeys(result["case"] for result in results))
    kernels = list(dict.fromkeys(result["kernel"] for result in results))
    by_name = {(result["case"], result["kernel"]): result for result in results}
    rows, times, short = [], [], []
    for case in cases:
        found = [by_name[case, kernel] for kernel in kernels]
        rows.append([str(CASES[case]), *(text(result["ratio"]) for result in found)])
        rows.append(["goal", *(f"{goal:.2f}" for goal in GOALS[case])])
        times.append([str(CASES[case]), *(f"{ms(result['seconds'])}" for result in found)])
        for goal, result in zip(GOALS[case], found, strict=True):
            ratio = result["ratio"]["median"]
            if ratio < goal:
                short.append(f"- {case}, {result['kernel']}: {ratio:.2f}, {goal - ratio:.2f} short")
    rates = [result["sgemm_flops_per_second"] / 1e9 for result in results]
    return [
        "",
        f"## {title}",
        "",
        *table(["case", *kernels], rows),
        "",
        *(["Short of the goals:", "", *short] if short else ["Every goal is reached."]),
        "",
        f"sgemm did {min(rates):.0f} to {max(rates):.0f} GFLOP/s meanwhile. Milliseconds:",
        "",
        *table(["case", *kernels], times),
    ]


def new_memory(results: list[dict[str, Any]]) -> list[str]:
    rows = [[str(CASES[result["case"]]), text(result["new memory"])] for result in results]
    return [
        "",
        "## Results in new memory",
        "",
        "The time of a similarity by glibc's default, where a result above 32 MiB is new pages of "
        "the system, which zeroes them, over that when freed memory is used again.",
        "",
        *table(["case", "times as long"], rows),
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
                *(ms(each) for each in result["seconds"]),
                text(result["factor"], 1),
                f"{entries[-1] / entries[0]:.1f}",
            ]
            for result in found
        ]
        heads = [f"N K = {count}" for count in entries]
        lines += ["", *table([f"{what} grows", *heads, "time grew by", "N K grew by"], rows)]
    return lines


def threads(results: list[dict[str, Any]]) -> list[str]:
    rows = [[result["kernel"], text(result["speedup"])] for result in results]
    title = ["", "## Two threads against one", ""]
    return [
        *title,
        f"On {CASES['readme']}. Goal: {SPEEDUP_GOAL}.",
        "",
        *table(["", "times as fast"], rows),
    ]


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
        f"On {CASES['many_small']}, one thread. Goal of float64 over torch.roll: {ROLL_GOAL:.0f}.",
        "",
        *table(["", "", "time over that of float32", "time of torch.roll over ours"], rows),
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


def text(spread: dict[str, float], digits: int = 2) -> str:
    low, high = (f"{spread[name]:.{digits}f}" for name in ("low", "high"))
    return f"{spread['median']:.{digits}f} ({low} to {high})"


def ms(seconds: dict[str, float]) -> str:
    return f"{seconds['median'] * 1e3:.2f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
