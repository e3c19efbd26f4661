"""Other windows against circular ones, on the same problem with the same number of offsets.

``python -m benchmarks.windows`` prints the tables; with ``--output`` it writes them too. With
``--before LIBRARY``, the CPU library of another commit, circular windows are timed with it as well.
All times are the processor time of one thread, except beside FlexAttention and NATTEN.
"""

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import circulant_attention
from benchmarks import report
from benchmarks.cases import CASES, Case
from benchmarks.timing import in_turns, spread
from benchmarks.window_kernels import beside, inputs, times
from circulant_attention import Window
from circulant_attention.geometry import Geometry, make_geometry
from circulant_attention.ops.library import library_paths

NAMES = ("readme", "many_small")
PEER_CASE = "many_small"
AGREEMENT = 1e-3  # of the largest element


def windows(w: int) -> dict[str, Window]:
    """Windows of w x w offsets on rows and columns."""
    rows, columns, both = ("truncated", "circular"), ("circular", "truncated"), "truncated"
    return {
        "circular": Window(w),
        "truncated": Window(w, boundary=both),
        "truncated rows": Window(w, boundary=rows),
        "truncated columns": Window(w, boundary=columns),
        "causal": Window([(w - 1, 0)] * 2, boundary=both),
        "dilated columns": Window(w, dilation=(1, 2)),
        "dilated rows": Window(w, dilation=(2, 1)),
        "dilated": Window(w, dilation=2),
        "dilated, truncated": Window(w, dilation=2, boundary=both),
        "dilated, causal": Window([(w - 1, 0)] * 2, dilation=2, boundary=both),
    }


def against_circular(case: Case, library: Path, seconds: float) -> list[dict[str, Any]]:
    """The times of each kernel with each window, and their ratio to those of the circular one."""
    every = {
        name: list(make_geometry(window, case.spatial).op_window)
        for name, window in windows(case.window).items()
    }
    found = times(library, case, every, seconds)
    return [
        {
            "case": case.name,
            "window": name,
            "kernels": {kernel: row[name] for kernel, row in found.items()},
        }
        for name in every
    ]


def mask_of(geometry: Geometry) -> Callable[..., Tensor]:
    """The mask function of FlexAttention: whether a row sees a column."""

    def inside(_batch: Tensor, _head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        within, stride = torch.ones_like(row, dtype=torch.bool), geometry.pixels
        for size, dim in zip(geometry.spatial_size, geometry.dims, strict=True):
            stride //= size
            step = column // stride % size - row // stride % size + dim.dilation * dim.before
            if dim.circular:
                step = (step + 2 * size) % size
            span = dim.dilation * (dim.length - 1)
            within = (
                within
                & (step >= 0)
                & (step <= span)
                & (step // dim.dilation * dim.dilation == step)
            )
        return within

    return inside


def flex_attention(case: Case, window: Window) -> Callable[..., Tensor]:
    """FlexAttention, compiled, with the mask of a window."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    # Otherwise it compiles the second mask for any size, and that C++ does not compile.
    torch.compiler.reset()
    n = case.pixels
    inside = mask_of(make_geometry(window, case.spatial))
    # Compiled too: otherwise it makes the dense mask of all pairs of pixels.
    mask = torch.compile(create_block_mask)(inside, None, None, n, n, device="cpu")
    compiled = torch.compile(flex_attention)

    def run(*images: Tensor) -> Tensor:
        q, k, v = (x.flatten(2).mT.unsqueeze(1) for x in images)
        return compiled(q, k, v, block_mask=mask, scale=case.scale).squeeze(1).mT.view(case.shape)

    return run


def natten(case: Case, window: Window) -> Callable[..., Tensor]:
    """NATTEN, where its windows are the same: away from causal ones it shifts them at borders."""
    from natten import na2d

    (dim, *_) = make_geometry(window, case.spatial).dims

    def run(*images: Tensor) -> Tensor:
        q, k, v = (x.permute(0, 2, 3, 1).unsqueeze(3).contiguous() for x in images)
        size, settings = dim.length, {"dilation": dim.dilation, "is_causal": True}
        return na2d(q, k, v, size, scale=case.scale, **settings).squeeze(3).permute(0, 3, 1, 2)

    return run


PEERS = {
    "FlexAttention": (flex_attention, ("truncated", "causal", "dilated")),
    "NATTEN": (natten, ("causal", "dilated, causal")),
}


def peer(case: Case, name: str, kind: str, seconds: float) -> dict[str, Any]:
    """Forward passes of a peer and of this package in turns, or why the peer does not run."""
    window, images = windows(case.window)[kind], inputs(case)
    result: dict[str, Any] = {"peer": name, "window": kind}
    if name == "NATTEN" and importlib.util.find_spec("natten") is None:
        return {**result, "reason": "not installed"}

    def own() -> Tensor:
        return circulant_attention.circulant_attention(*images, window)[0]

    try:
        run = PEERS[name][0](case, window)
        y = run(*images)
    except Exception as error:
        return {**result, "reason": f"{type(error).__name__}: {error}".splitlines()[0][:120]}
    difference = (y - own()).abs().max() / y.abs().max()
    if not difference <= AGREEMENT:
        return {**result, "reason": f"differs by {difference:.1e} of the largest element"}
    turns = in_turns([own, lambda: run(*images)], seconds)
    ours, theirs = (spread([turn[at] * 1e3 for turn in turns]) for at in range(2))
    ratio = statistics.median(theirs / ours for ours, theirs in turns)
    return {**result, "ours": ours["median"], "theirs": theirs["median"], "ratio": ratio}


def markdown(run: dict[str, Any]) -> str:
    """The tables."""
    made = (
        ": float32, one thread. Ratios are medians over processes, and in each over turns in which "
        "calls with this window and with the circular one alternate."
    )
    lines = report.head("Other windows against circular ones", run, made, run["machine"])
    for name in dict.fromkeys(row["case"] for row in run["windows"]):
        rows = [row for row in run["windows"] if row["case"] == name]
        kernels = list(rows[0]["kernels"])
        title = f"{name}: {CASES[name]}" if name in CASES else name
        lines += ["", f"## {title}", "", "| window | " + " | ".join(kernels) + " |"]
        lines.append("|---" * (len(kernels) + 1) + "|")
        times = [f"{rows[0]['kernels'][kernel]['milliseconds']:.2f} ms" for kernel in kernels]
        lines.append(f"| {rows[0]['window']} | " + " | ".join(times) + " |")
        for row in rows[1:]:
            ratios = [f"{row['kernels'][kernel]['ratio']:.2f}" for kernel in kernels]
            lines.append(f"| {row['window']} | " + " | ".join(ratios) + " |")
    if run["before"]:
        lines += ["", "## Circular windows beside the library before", ""]
        lines += ["| | before ms | now ms | now / before |", "|---|---|---|---|"]
        for row in run["before"]:
            numbers = f"{row['before']:.2f} | {row['now']:.2f} | {row['ratio']:.3f}"
            lines.append(f"| {row['kernel']} | {numbers} |")
    lines += ["", f"## Forward beside others: {CASES[PEER_CASE]}", ""]
    lines += ["| | window | ours ms | theirs ms | theirs / ours |", "|---|---|---|---|---|"]
    for row in run["peers"]:
        cells = f"{report.code(row['reason'])} | | |" if "reason" in row else (
            f"{row['ours']:.2f} | {row['theirs']:.2f} | {row['ratio']:.1f} |"
        )  # fmt: skip
        lines.append(f"| {row['peer']} | {row['window']} | {cells}")
    return "\n".join(lines) + "\n"


def measure(cases: list[Case], before: Path | None, seconds: float) -> dict[str, Any]:
    """Everything, with this many seconds for each table row's kernel, library and peer."""
    peers = [(name, kind) for name, (_, kinds) in PEERS.items() for kind in kinds]
    own = library_paths(Path(circulant_attention.__file__).parent)[0]
    return {
        **report.surroundings("benchmarks.windows"),
        "windows": [row for case in cases for row in against_circular(case, own, seconds)],
        "before": [row for case in cases for row in beside(before, own, case, seconds)]
        if before
        else [],
        "peers": [peer(CASES[PEER_CASE], *one, seconds) for one in peers],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.windows", description=__doc__)
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument("--before", type=Path, help="the CPU library of another commit")
    parser.add_argument("--seconds", type=float, default=2.0, help="of turns, for each kernel")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = measure([CASES[name] for name in NAMES], options.before, options.seconds)
    report.publish(run, markdown(run), options.output)


if __name__ == "__main__":
    main()
