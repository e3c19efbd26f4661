"""Plants each defect of ``defects.py`` in the kernels, and runs the check on them.

The kernels are compiled for float32 only, with sanitizers.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cuda_on_host.build import BUILD, CHECK, HERE, ROOT, SANITIZE, Ninja, kernels
from cuda_on_host.defects import Mutant

OTHER_TYPES = re.compile(
    r"CIRCULANT_INSTANTIATE\((c10::.*|double)\)|template void transpose.const uint(16|64)_t"
)
FLAGS = [*(flag for flag in SANITIZE if flag != "-g"), "-w", "-DCHECK_FLOAT32_ONLY"]


def sources_of(mutant: Mutant | None) -> Path:
    """A copy of csrc, for float32 only, with the defect."""
    copy = BUILD / "mutants" / (mutant.name if mutant else "none") / "csrc"
    for source in [*(ROOT / "csrc" / "common").iterdir(), *(ROOT / "csrc" / "cuda").iterdir()]:
        target = copy / source.relative_to(ROOT / "csrc")
        text = source.read_text()
        if mutant and source == ROOT / "csrc" / "cuda" / mutant.file:
            count = text.count(mutant.before)
            assert count == 1, f"{mutant.name}: {count} times in {mutant.file}: {mutant.before}"
            text = text.replace(mutant.before, mutant.after)
        text = "".join(line for line in text.splitlines(True) if not OTHER_TYPES.match(line))
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
    return copy


def build(mutants: list[Mutant]) -> dict[str, Path]:
    """The check without a defect (named "none") and with each of ``mutants``.

    A source with a defect runs for a moment only, so that it is not optimised.
    """
    ninja = Ninja(FLAGS)
    objects = {
        path.name: ninja.object(path, f"{path.stem}.o") for path in kernels(sources_of(None))
    }
    tools = [ninja.object(HERE / f"{name}.cpp", f"{name}.o") for name in CHECK]
    targets = {"none": ninja.link([*objects.values(), *tools], "none/check")}
    for mutant in mutants:
        kernel = mutant.kernel or mutant.file
        source = sources_of(mutant) / "cuda" / kernel
        mutated = {**objects, kernel: ninja.object(source, f"{mutant.name}/kernel.o", "-O0")}
        targets[mutant.name] = ninja.link([*mutated.values(), *tools], f"{mutant.name}/check")
    directory = ninja.run(BUILD / "mutants")
    return {name: directory / target for name, target in targets.items()}


def run(check: Path, part: str) -> str:
    """How ``part`` of the check (all of it if empty) failed; empty if it passed."""
    options = ["cases=0", "failures=1", *([f"part={part}"] if part else [])]
    done = subprocess.run([check, *options], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    for pattern in (
        r"runtime error: .*",
        r"AddressSanitizer: [\w-]+",
        r"FAIL .*",
        r"cuda_on_host: .*",
    ):
        found = re.search(pattern, done.stderr + done.stdout)
        if found:
            return found[0]
    return f"ended with status {done.returncode}: {done.stderr[-200:]}"
