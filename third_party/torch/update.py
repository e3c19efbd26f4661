"""Copies those headers of the installed torch that csrc/ includes.

They belong to torch's stable ABI. The build uses the copies and needs no torch. To be run with the
torch of requirements.txt, and nvcc on PATH: ``python third_party/torch/update.py``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FLAGS = ["-std=c++17", "-DTORCH_TARGET_VERSION=0x020b000000000000", "-M"]


def included(installed: Path) -> set[Path]:
    """The headers below ``installed`` that a source includes, directly or not."""
    found: set[Path] = set()
    for source in sorted((ROOT / "csrc").rglob("*.c*")):
        if source.suffix == ".cpp":
            command = ["c++", "-DCIRCULANT_INSTRUCTION_SET=plain"]
        elif source.suffix == ".cu":
            command = ["nvcc", "-DUSE_CUDA", "--expt-relaxed-constexpr"]
        else:
            continue
        command += [*FLAGS, "-I", str(installed), str(source)]
        rules = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        paths = (Path(word) for word in rules.split())
        found |= {path.relative_to(installed) for path in paths if path.is_relative_to(installed)}
    return found


def update() -> None:
    """Replaces the copies, and torch's licence."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    installed = Path(spec.origin).parent / "include"
    shutil.rmtree(HERE / "include", ignore_errors=True)
    for path in sorted(included(installed)):
        target = HERE / "include" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed / path, target)
    distribution = importlib.metadata.distribution("torch")
    [licence] = (path for path in distribution.files or [] if path.match("licenses/LICENSE"))
    shutil.copyfile(str(distribution.locate_file(licence)), HERE / "LICENSE")


if __name__ == "__main__":
    update()
