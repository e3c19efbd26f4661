"""Runs a task in its own process and reads its result.

The process is ``python -m MODULE TASK RESULT``: TASK is a :class:`Task` in JSON, RESULT the
file for its result, in JSON.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.cases import Case

ROOT = Path(__file__).parent.parent

AnyTask = TypeVar("AnyTask", bound="Task")


@dataclasses.dataclass(frozen=True)
class Task:
    """A case; a subclass adds the measurement and its limits."""

    case: Case

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls: type[AnyTask], text: str) -> AnyTask:
        fields = json.loads(text)
        case = fields.pop("case")
        return cls(case=Case(**{**case, "spatial": tuple(case["spatial"])}), **fields)


def write_result(target: Path, result: Any) -> None:
    """Writes all or nothing: if the process is killed meanwhile, the earlier result stays."""
    new = target.with_suffix(".new")
    new.write_text(json.dumps(result))
    new.replace(target)


def run(module: str, task: Task, limit: float, **variables: str) -> tuple[int | None, Any]:
    """The exit status, None if the process was killed after ``limit`` seconds, and its result.

    The result is None if there is none. ``variables`` are added to the environment.
    """
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "result.json"
        process = subprocess.Popen(
            [sys.executable, "-m", module, task.to_json(), str(target)],
            cwd=ROOT,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            end_group(process)
        return status, json.loads(target.read_text()) if target.exists() else None


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kills the process and the compilers that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
