"""Results, machine and versions, as JSON and as Markdown tables."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import circulant_attention
from benchmarks import network
from benchmarks.cases import CASES, NETWORK
from benchmarks.peers import OPERATIONS
from benchmarks.tasks import ROOT

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

# The names of /proc/cpuinfo that tell processors apart.
NUMBERS = ("cpu family", "model", "stepping")


def surroundings(program: str, arguments: list[str] | None = None) -> dict[str, Any]:
    """The machine, and the :func:`origin`."""
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
        **origin(program, arguments),
    }


def origin(program: str, arguments: list[str] | None = None) -> dict[str, Any]:
    """The versions, the commit, the date and the command, by default with its own arguments."""
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "versions": {
            "circulant_attention": circulant_attention.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": " ".join([f"python -m {program}", *given]),
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name, the vendor, and the numbers of family and model: a name can stand for several."""
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    # Of the last core; all are alike.
    facts = {name.strip(): value.strip() for name, _, value in lines}
    if "model name" not in facts:
        return platform.processor()
    numbers = [f"{name.removeprefix('cpu ')} {facts[name]}" for name in NUMBERS if name in facts]
    return f"{facts['model name']} ({', '.join([facts.get('vendor_id', ''), *numbers])})"


def commit() -> str:
    """The commit of this clone, marked if anything but results has changed."""
    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if changed else head


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def publish(run: dict[str, Any], text: str, output: Path | None) -> None:
    """Prints the tables, and writes them if there is an output."""
    print("\n" + text)
    if output:
        write(output, run, text)


def write(output: Path, run: dict[str, Any], text: str) -> None:
    """Writes the numbers to OUTPUT.json and their tables to OUTPUT.md."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(run, indent=1) + "\n")
    output.with_suffix(".md").write_text(text)


def head(title: str, run: dict[str, Any], made: str, facts: dict[str, Any]) -> list[str]:
    """The title, the command, followed by ``made``, and ``facts`` beside those of every run."""
    facts = {**facts, **run["versions"], "commit": run["commit"], "date": run["date"]}
    return [
        f"# {title}",
        "",
        f"Made by `{run['command']}`{made}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
    ]


def markdown(run: dict[str, Any]) -> str:
    """One section per case, with tables for forward, forward + backward and single maps."""
    made = "; what the columns mean is in [the README](../README.md)."
    lines = head("Benchmark results", run, made, run["machine"])
    for name in dict.fromkeys(result["case"] for result in run["results"]):
        results = [result for result in run["results"] if result["case"] == name]
        lines += ["", f"## {name}: {CASES[name]}"]
        attentions = [result for result in results if result["entry"] not in OPERATIONS]
        operations = [result for result in results if result["entry"] in OPERATIONS]
        for title, rows in (
            ("Forward", [r for r in attentions if not r["backward"]]),
            ("Forward + backward", [r for r in attentions if r["backward"]]),
            ("Single maps of this package, forward", operations),
        ):
            lines += table(title, HEADINGS, rows, numbers)
    if "network" in run:
        lines += network.markdown(NETWORK, run["network"])
    return "\n".join(lines) + "\n"


def numbers(result: dict[str, Any]) -> list[float | None]:
    """The numbers under the headings."""
    rate = result["flops"] / result["seconds"]
    return [
        result["seconds"] * 1e3,
        result["iqr_seconds"] * 1e3,
        rate / 1e9,
        rate / result["sgemm_flops_per_second"],
        result["times_ours"],
        result["peak_bytes"] / 2**20,
        result["prepared_bytes"] / 2**20,
        result["first_seconds"],
    ]


def table(
    title: str,
    headings: list[tuple[str, int]],
    results: list[dict[str, Any]],
    numbers: Callable[[dict[str, Any]], list[float | None]],
) -> list[str]:
    """A row per result, with its ``numbers``, each to the digits of its heading; then the reasons.

    ``numbers`` are those of a successful result; None leaves a cell empty.
    """
    if not results:
        return []
    names = [name for name, _ in headings]
    failed = [result for result in results if result["status"] != "ok"]
    notes = [f"- {r['entry']} was {r['status']}: {code(r['reason'])}" for r in failed]
    return [
        "",
        f"### {title}",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(row(headings, result, numbers) for result in results),
        *(["", *notes] if notes else []),
    ]


def code(text: str) -> str:
    """Text as Markdown code; backticks become quotes, since they would end it."""
    return "`" + text.replace("`", "'") + "`"


def row(
    headings: list[tuple[str, int]],
    result: dict[str, Any],
    numbers: Callable[[dict[str, Any]], list[float | None]],
) -> str:
    if result["status"] != "ok":
        return f"| {result['entry']} | {result['status']} |" + " |" * (len(headings) - 1)
    cells = (
        "" if x is None else f"{x:.{digits}f}"
        for x, (_, digits) in zip(numbers(result), headings, strict=True)
    )
    return f"| {result['entry']} | " + " | ".join(cells) + " |"
