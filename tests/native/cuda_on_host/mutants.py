"""Plants each defect of ``defects.py`` in the kernels, and runs the check on them.

A source with a defect is compiled for float32 only (for tensor cores, float16 and 32 channels),
with sanitizers, and without optimisation, as it runs for a moment only. It is linked before the
objects of the check, where it replaces the functions without the defect.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cuda_on_host.build import BUILD, CHECK, HERE, ROOT, SANITIZE, Ninja, build_check, kernels
from cuda_on_host.mutant import Mutant

# Lines for other types and, on tensor cores, other numbers of channels than a mutant has.
OTHER_TYPES = re.compile(
    r"CIRCULANT_INSTANTIATE(\((c10::.*|double)|_MMA\(c10::BFloat16)\)|"
    r"template void transpose.const uint(16|64)_t|  if \(D == (64|128)\) launch"
)
# Without the lines of the sources: the checks fill gigabytes.
LINK = "-Wl,-z,muldefs -Wl,--strip-debug"
DIRECTORY = BUILD / "mutants"
FLAGS = [*(flag for flag in SANITIZE if flag not in ("-O1", "-g1")), "-O0", "-w"]
# Nothing is changed: shows that the check passes when it is linked in this way.
NONE = Mutant("none", "similarity.cu", "", "")


def source_of(mutant: Mutant) -> Path:
    """The kernel with the defect, in a copy of csrc for float32 only."""
    copy = DIRECTORY / mutant.name / "csrc"
    for source in [*(ROOT / "csrc" / "common").iterdir(), *(ROOT / "csrc" / "cuda").iterdir()]:
        target = copy / source.relative_to(ROOT / "csrc")
        text = source.read_text()
        if mutant.before and source == ROOT / "csrc" / "cuda" / mutant.file:
            count = text.count(mutant.before)
            assert count == 1, f"{mutant.name}: {count} times in {mutant.file}: {mutant.before}"
            text = text.replace(mutant.before, mutant.after)
        text = "".join(line for line in text.splitlines(True) if not OTHER_TYPES.match(line))
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
    return copy / "cuda" / (mutant.kernel or mutant.file)


def build(mutants: list[Mutant]) -> dict[str, Path]:
    """The check with each of ``mutants``, by name."""
    check = build_check()
    names = (*(path.stem for path in kernels()), *CHECK)
    others = [str(check.with_name(f"{name}.o")) for name in names]
    ninja = Ninja(FLAGS)
    header = ninja.precompile(HERE / "precompiled.h")
    for mutant in mutants:
        defective = ninja.object(source_of(mutant), f"{mutant.name}/kernel.o", header)
        ninja.link([defective, *others], f"{mutant.name}/check", LINK)
    directory = ninja.run(DIRECTORY)
    return {mutant.name: directory / mutant.name / "check" for mutant in mutants}


def run(check: Path, part: str) -> str:
    """How ``part`` of the check (all of it if empty) failed; empty if it passed."""
    options = ["dtype=float32", "cases=0", "failures=1", *([f"part={part}"] if part else [])]
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
