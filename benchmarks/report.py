"""What was measured, where and with what; as JSON and as Markdown tables."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

import circulant_attention
from benchmarks.cases import CASES
from benchmarks.peers import OPERATIONS

ROOT = Path(__file__).parent.parent
HEADINGS = [
    ("ms", 2),
    ("IQR ms", 2),
    ("GFLOP/s", 1),
    ("of sgemm", 2),
    ("times ours", 2),
    ("peak MiB", 0),
    ("kept MiB", 0),
    ("first call s", 2),
]


def surroundings() -> dict[str, Any]:
    """The machine, the versions, the commit and the date."""
    return {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "instruction set": torch.backends.cpu.get_cpu_capability(),
            "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
            "system": f"{platform.system()} {platform.machine()}",
            "load before": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "circulant_attention": circulant_attention.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def commit() -> str:
    """The commit of this clone, marked when something but results differs from it."""
    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if changed else head


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def markdown(run: dict[str, Any]) -> str:
    """One section per case, with tables for forward, forward + backward and single maps."""
    facts = {**run["machine"], **run["versions"], "commit": run["commit"], "date": run["date"]}
    lines = [
        "# Benchmark results",
        "",
        f"Made by `{run['command']}`; what the columns mean is in [the README](../README.md).",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
    ]
    for name in dict.fromkeys(result["case"] for result in run["results"]):
        results = [result for result in run["results"] if result["case"] == name]
        lines += ["", f"## {name}: {CASES[name]}"]
        attentions = [result for result in results if result["entry"] not in OPERATIONS]
        operations = [result for result in results if result["entry"] in OPERATIONS]
        lines += table("Forward", [r for r in attentions if not r["backward"]])
        lines += table("Forward + backward", [r for r in attentions if r["backward"]])
        lines += table("Single maps of this package, forward", operations)
    return "\n".join(lines) + "\n"


def table(title: str, results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return []
    names = [name for name, _ in HEADINGS]
    return [
        "",
        f"### {title}",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(row(result) for result in results),
        *footnotes(results),
    ]


def row(result: dict[str, Any]) -> str:
    if result["status"] != "ok":
        return f"| {result['entry']} | {result['status']} |" + " |" * (len(HEADINGS) - 1)
    rate = result["flops"] / result["seconds"]
    numbers = [
        result["seconds"] * 1e3,
        result["iqr_seconds"] * 1e3,
        rate / 1e9,
        rate / result["sgemm_flops_per_second"],
        result["times_ours"],
        result["peak_bytes"] / 2**20,
        result["prepared_bytes"] / 2**20,
        result["first_seconds"],
    ]
    cells = (f"{x:.{digits}f}" for x, (_, digits) in zip(numbers, HEADINGS, strict=True))
    return f"| {result['entry']} | " + " | ".join(cells) + " |"


def footnotes(results: list[dict[str, Any]]) -> list[str]:
    failed = [result for result in results if result["status"] != "ok"]
    notes = [f"- {r['entry']} was {r['status']}: `{r['reason']}`" for r in failed]
    return ["", *notes] if notes else []
