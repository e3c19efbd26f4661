"""Results on a GPU, device and versions, as JSON and as Markdown tables."""

import subprocess
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.cuda.cases import GPU_CASES
from benchmarks.cuda.worker import MAPS
from benchmarks.report import head, origin, table

HEADINGS = [
    ("ms", 3),
    ("IQR ms", 3),
    ("TFLOP/s", 2),
    ("of product", 2),
    ("of copy", 2),
    ("times ours", 2),
    ("peak MiB", 0),
    ("kept MiB", 0),
    ("first call s", 1),
]


def surroundings(arguments: list[str] | None) -> dict[str, Any]:
    """The device, the versions, the commit, the date and the command."""
    device = torch.cuda.get_device_properties(0)
    return {
        "device": {
            "name": device.name,
            "capability": f"{device.major}.{device.minor}",
            "multiprocessors": device.multi_processor_count,
            "memory": f"{device.total_memory / 2**30:.0f} GiB",
            "driver": driver(),
            "CUDA of torch": torch.version.cuda,
        },
        **origin("benchmarks.cuda", arguments),
    }


def driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def summary(run: dict[str, Any], case: str, dtype: str) -> str:
    """One line per result of a case."""
    lines = []
    for result in chosen(run, case, dtype):
        mode = "forward + backward" if result["backward"] else "forward"
        head = f"{case:13s} {dtype:9s} {result['entry']:20s} {mode:19s}"
        tail = (
            f"{result['median'] * 1e3:9.3f} ms"
            if result["status"] == "ok"
            else f"{result['status']}: {result['reason']}"
        )
        lines.append(f"{head} {tail}")
    return "\n".join(lines)


def chosen(run: dict[str, Any], case: str, dtype: str) -> list[dict[str, Any]]:
    return [r for r in run["results"] if r["case"] == case and r["dtype"] == dtype]


def markdown(run: dict[str, Any]) -> str:
    """One section per case and dtype."""
    rates = run["product_flops_per_second"]
    facts = {
        **run["device"],
        "copy": f"{run['copy_bytes_per_second'] / 1e12:.2f} TB/s, read and written",
        **{f"product, {name}": f"{rate / 1e12:.1f} TFLOP/s" for name, rate in rates.items()},
    }
    made = "; what the columns mean is in [the README](../cuda/README.md)."
    lines = head("Benchmark results on a GPU", run, made, facts)
    for case, dtype in dict.fromkeys((r["case"], r["dtype"]) for r in run["results"]):
        results = chosen(run, case, dtype)
        lines += ["", f"## {case}: {GPU_CASES[case]}, {dtype}"]
        attentions = [r for r in results if r["entry"] not in MAPS]
        for title, rows in (
            ("Forward", [r for r in attentions if not r["backward"]]),
            ("Forward + backward", [r for r in attentions if r["backward"]]),
            ("Single maps of this package", [r for r in results if r["entry"] in MAPS]),
        ):
            ok = {r["entry"]: r for r in rows if r["status"] == "ok"}
            lines += table(title, HEADINGS, rows, numbers(run, ok.get("circulant_attention")))
    return "\n".join(lines) + "\n"


def numbers(
    run: dict[str, Any], ours: dict[str, Any] | None
) -> Callable[[dict[str, Any]], list[float | None]]:
    """The numbers under the headings, for a result compared with ``ours``."""

    def of(result: dict[str, Any]) -> list[float | None]:
        seconds = result["median"]
        rate = result["flops"] / seconds
        return [
            seconds * 1e3,
            result["iqr"] * 1e3,
            rate / 1e12,
            rate / run["product_flops_per_second"][result["dtype"]],
            result["bytes"] / seconds / run["copy_bytes_per_second"],
            seconds / ours["median"] if ours else None,
            result["peak_bytes"] / 2**20,
            result["prepared_bytes"] / 2**20,
            result["first_seconds"],
        ]

    return of
