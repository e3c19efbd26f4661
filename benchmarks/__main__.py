"""Measures every entry of every case and prints or writes the tables: see README.md."""

import argparse
from pathlib import Path
from typing import Any

from benchmarks import network, report, tasks
from benchmarks.cases import CASES, NETWORK, Case
from benchmarks.peers import ATTENTIONS, OPERATIONS
from benchmarks.worker import RETURN_MEMORY, Task

# Limit of a process, in limits of a call: imports, compilation, masks, two calls.
PROCESS_CALLS = 5


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    run = report.surroundings("benchmarks", arguments)
    run["results"] = []
    for case in options.cases:
        for entry, backward in entries(options):
            result = measure(case, entry, backward, options)
            run["results"].append(result)
            print(summary(result), flush=True)
    if options.network:
        run["network"] = network.run(NETWORK, options.budget_seconds)
        print(network.summary(run["network"]), flush=True)
    report.publish(run, report.markdown(run), options.output)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=[*CASES, NETWORK.name],
        default=[*CASES, NETWORK.name],
        metavar="CASE",
        help=", ".join([*CASES, NETWORK.name]),
    )
    names = [*ATTENTIONS, *OPERATIONS]
    parser.add_argument(
        "--entries", nargs="+", choices=names, default=names, metavar="ENTRY", help=", ".join(names)
    )
    parser.add_argument("--quick", action="store_true", help="one small case, few repetitions")
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument(
        "--call-seconds", type=float, default=30.0, help="a slower call is too slow (%(default)s)"
    )
    parser.add_argument(
        "--memory-gib", type=float, default=8.0, help="a larger process is too big (%(default)s)"
    )
    parser.add_argument(
        "--budget-seconds", type=float, default=10.0, help="of repetitions (%(default)s)"
    )
    parser.add_argument("--repetitions", type=int, default=50, help="at most (%(default)s)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.cases, options.budget_seconds, options.repetitions = ["many_small"], 1.0, 5
    options.network = NETWORK.name in options.cases
    options.cases = [CASES[name] for name in options.cases if name in CASES]
    return options


def entries(options: argparse.Namespace) -> list[tuple[str, bool]]:
    """The entries to measure: attention forward, then with gradients, then single maps."""
    attentions = [name for name in options.entries if name in ATTENTIONS]
    operations = [name for name in options.entries if name in OPERATIONS]
    return [
        *((name, False) for name in attentions),
        *((name, True) for name in attentions),
        *((name, False) for name in operations),
    ]


def measure(case: Case, entry: str, backward: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Memory, then time, each in its own process; stops at the first limit."""
    result: dict[str, Any] = {"case": case.name, "entry": entry, "backward": backward}
    for what in ("memory", "time"):
        task = Task(
            case=case,
            entry=entry,
            backward=backward,
            measure=what,
            call_seconds=options.call_seconds,
            memory_bytes=int(options.memory_gib * 2**30),
            budget_seconds=options.budget_seconds,
            repetitions=options.repetitions,
        )
        result.update(run_worker(task))
        if result["status"] != "ok":
            break
    return result


def run_worker(task: Task) -> dict[str, Any]:
    limit = PROCESS_CALLS * task.call_seconds + task.budget_seconds
    variables = RETURN_MEMORY if task.measure == "memory" else {}
    status, measured = tasks.run("benchmarks.worker", task, limit, **variables)
    if status is None:
        return {"status": "too slow", "reason": f"no result after {limit:.0f} s"}
    if measured is None:
        return {"status": "refused", "reason": f"the process ended with status {status}"}
    return measured


def summary(result: dict[str, Any]) -> str:
    mode = "forward + backward" if result["backward"] else "forward"
    head = f"{result['case']:13s} {result['entry']:20s} {mode:19s}"
    if result["status"] != "ok":
        return f"{head} {result['status']}: {result['reason']}"
    return f"{head} {result['seconds'] * 1e3:9.2f} ms  {result['peak_bytes'] / 2**20:7.0f} MiB"


if __name__ == "__main__":
    main()
