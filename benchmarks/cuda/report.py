"""What was measured on a GPU, where and with what; as JSON and as Markdown tables."""

import platform
import subprocess
import time
from typing import Any

import torch

import circulant_attention
from benchmarks.cuda.cases import GPU_CASES
from benchmarks.cuda.worker import MAPS
from benchmarks.report import commit

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


def surroundings(command: str) -> dict[str, Any]:
    """The device, the versions, the commit and the date."""
    device = torch.cuda.get_device_properties(0)
    return {
        "command": command.strip(),
        "device": {
            "name": device.name,
            "capability": f"{device.major}.{device.minor}",
            "multiprocessors": device.multi_processor_count,
            "memory": f"{device.total_memory / 2**30:.0f} GiB",
            "driver": driver(),
        },
        "versions": {
            "circulant_attention": circulant_attention.__version__,
            "torch": torch.__version__,
            "CUDA of torch": torch.version.cuda,
            "python": platform.python_version(),
        },
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
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
        **run["versions"],
        "copy": f"{run['copy_bytes_per_second'] / 1e12:.2f} TB/s, read and written",
        **{f"product, {name}": f"{rate / 1e12:.1f} TFLOP/s" for name, rate in rates.items()},
        "commit": run["commit"],
        "date": run["date"],
    }
    lines = [
        "# Benchmark results on a GPU",
        "",
        f"Made by `{run['command']}`; what the columns mean is in [the README](../cuda/README.md).",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
    ]
    for case, dtype in dict.fromkeys((r["case"], r["dtype"]) for r in run["results"]):
        results = chosen(run, case, dtype)
        lines += ["", f"## {case}: {GPU_CASES[case]}, {dtype}"]
        attentions = [r for r in results if r["entry"] not in MAPS]
        for heading, rows in (
            ("Forward", [r for r in attentions if not r["backward"]]),
            ("Forward + backward", [r for r in attentions if r["backward"]]),
            ("Single maps of this package", [r for r in results if r["entry"] in MAPS]),
        ):
            lines += table(run, heading, rows)
    return "\n".join(lines) + "\n"


def table(run: dict[str, Any], heading: str, results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return []
    ours = next(
        (r for r in results if r["entry"] == "circulant_attention" and r["status"] == "ok"), None
    )
    names = [name for name, _ in HEADINGS]
    failed = [r for r in results if r["status"] != "ok"]
    notes = [f"- {r['entry']} was {r['status']}: `{r['reason']}`" for r in failed]
    return [
        "",
        f"### {heading}",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(row(run, result, ours) for result in results),
        *(["", *notes] if notes else []),
    ]


def row(run: dict[str, Any], result: dict[str, Any], ours: dict[str, Any] | None) -> str:
    if result["status"] != "ok":
        return f"| {result['entry']} | {result['status']} |" + " |" * (len(HEADINGS) - 1)
    seconds = result["median"]
    rate = result["flops"] / seconds
    numbers = [
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
    cells = (
        "" if x is None else f"{x:.{digits}f}"
        for x, (_, digits) in zip(numbers, HEADINGS, strict=True)
    )
    return f"| {result['entry']} | " + " | ".join(cells) + " |"
