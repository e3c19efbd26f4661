"""Registers, local memory and loads in flight of the CUDA kernels, from the compiler's output.

The library is built for every architecture. No GPU is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from locks import locked

ROOT = Path(__file__).parents[2]
LIBRARY = Path("lib", "circulant_attention", "libcirculant_attention_cuda.so")
# Resources of each kernel in the log; warnings are errors; PTX is readable text in the library.
FLAGS = "-Xptxas=-v -Werror=all-warnings --no-compress"

# The least average number of loads in flight per thread where it fills shared memory.
LOADS_IN_FLIGHT = 3


@dataclass(frozen=True)
class Usage:
    """Resources of one kernel on one architecture, per thread."""

    kernel: str
    architecture: str
    registers: int
    stack_bytes: int
    spilled_bytes: int

    @property
    def uses_local_memory(self) -> bool:
        return self.stack_bytes > 0 or self.spilled_bytes > 0


@dataclass(frozen=True)
class Build:
    """A library and the compiler's log."""

    library: Path
    log: str


def build() -> Build:
    """Builds the CUDA library, unless there is one of the same sources.

    Raises:
        RuntimeError: If the build fails, with the log.
    """
    nvcc = os.environ.get("NVCC", "nvcc")
    version = subprocess.run([nvcc, "--version"], capture_output=True, check=True).stdout
    sources = [ROOT / "setup.py", *sorted((ROOT / "csrc" / "common").iterdir())]
    sources += sorted((ROOT / "csrc" / "cuda").iterdir())
    key = hashlib.sha256(version + FLAGS.encode())
    for source in sources:
        key.update(source.read_bytes())
    directory = ROOT / "build" / "resource_report" / key.hexdigest()[:16]
    log = directory / "log"
    with locked(directory):
        if not log.exists():
            command = [sys.executable, "setup.py", "build_ext"]
            command += ["--build-lib", str(directory / "lib")]
            command += ["--build-temp", str(directory / "temp")]
            # setup.py makes both libraries; `true` compiles nothing for the CPU.
            chosen = {"CIRCULANT_ATTENTION_CUDA": "1", "NVCCFLAGS": FLAGS, "CXX": "true"}
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **chosen},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise RuntimeError(done.stdout)
            log.write_text(done.stdout)
    return Build(directory / LIBRARY, log.read_text())


def usages(log: str) -> list[Usage]:
    """The kernels in the output of ptxas, by name and architecture."""
    pattern = re.compile(
        r"Compiling entry function '(?P<kernel>\S+)' for '(?P<architecture>\S+)'\n"
        r".*Function properties.*\n"
        r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
        r"(?P<loads>\d+) bytes spill loads\n"
        r".*Used (?P<registers>\d+) registers"
    )
    found = list(pattern.finditer(log))
    names = demangled([match["kernel"] for match in found])
    return sorted(
        (
            Usage(
                short_name(name),
                match["architecture"],
                int(match["registers"]),
                int(match["stack"]),
                int(match["stores"]) + int(match["loads"]),
            )
            for name, match in zip(names, found, strict=True)
        ),
        key=lambda usage: (usage.kernel, int(usage.architecture[3:])),
    )


def demangled(names: list[str]) -> list[str]:
    return subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout.splitlines()


def short_name(kernel: str) -> str:
    """``void circulant::(anonymous namespace)::f<c10::Half>(...)`` as ``f<Half>``."""
    found = re.search(r"(\w+_kernel<[^(]*>)\(", kernel)
    return found[1].replace("c10::", "") if found else kernel


def ptx(library: Path) -> dict[str, str]:
    """The PTX in a library, by architecture: ``compute_90``."""
    texts: dict[str, str] = {}
    for number, text in re.findall(rb"\.target sm_(\d+)([^\0]*)", library.read_bytes()):
        name = f"compute_{number.decode()}"
        texts[name] = texts.get(name, "") + text.decode(errors="replace")
    return texts


def bodies(text: str) -> dict[str, str]:
    """The instructions of each kernel."""
    kernels = [kernel.split("(", 1) for kernel in text.split(".entry ")[1:]]
    names = demangled([name for name, _ in kernels])
    return {short_name(name): body for name, (_, body) in zip(names, kernels, strict=True)}


def loads_in_flight(text: str) -> dict[str, list[int]]:
    """Per kernel, the lengths of runs of global loads that a store to shared memory follows."""
    found = {}
    for name, body in bodies(text).items():
        operations = "".join(re.findall(r"\b(ld\.global|st\.shared)", body))
        runs = re.findall(r"((?:ld\.global)+)st", operations)
        found[name] = [run.count("ld") for run in runs]
    return found


def copies(text: str) -> dict[str, int]:
    """Per kernel, the instructions that copy to shared memory while a thread computes."""
    return {
        name: len(re.findall(r"\bcp\.async\.c[ag]", body)) for name, body in bodies(text).items()
    }


def needed(library: Path) -> list[str]:
    """The shared libraries that a library depends on."""
    text = subprocess.run(
        ["readelf", "-d", library], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", text)


def wanted_architectures(listed: str) -> list[str]:
    """The numbers of architectures in a list of setup.py."""
    found = re.search(rf"^{listed} = \[(.*)\]", (ROOT / "setup.py").read_text(), re.M)
    assert found, f"setup.py lists no {listed}"
    return re.findall(r"\d+", found[1])


def problems(made: Build) -> Iterator[str]:
    """Missing code, spilling kernels, and kernels that wait for each of their loads."""
    if "libtorch.so" not in needed(made.library):
        yield "the library does not depend on libtorch.so"
    wanted, texts = wanted_architectures("CUDA_ARCHITECTURES"), ptx(made.library)
    for number in wanted_architectures("CUDA_PTX_ARCHITECTURES"):
        if (name := f"compute_{number}") not in texts:
            yield f"no PTX for {name}"
    kernels: dict[str, set[str]] = {}
    for usage in usages(made.log):
        kernels.setdefault(usage.kernel, set()).add(usage.architecture)
        if usage.uses_local_memory:
            yield f"{usage.kernel} uses local memory on {usage.architecture}"
    if not kernels:
        yield "the log names no kernel"
    for kernel, known in kernels.items():
        if known != {f"sm_{number}" for number in wanted}:
            yield f"{kernel} was compiled for {', '.join(sorted(known))} only"
    for architecture, text in texts.items():
        for kernel, runs in loads_in_flight(text).items():
            if sum(runs) < LOADS_IN_FLIGHT * len(runs):
                yield f"{kernel} waits for its loads on {architecture}: {runs} in flight"


def table(found: list[Usage]) -> str:
    """The least and the most registers of a kernel on the architectures, and its local memory."""
    lines = [f"{'registers [stack, spilled bytes]':56s}"]
    for kernel in dict.fromkeys(usage.kernel for usage in found):
        own = [usage for usage in found if usage.kernel == kernel]
        registers = [usage.registers for usage in own]
        local = [
            f"{u.architecture} [{u.stack_bytes}, {u.spilled_bytes}]"
            for u in own
            if u.uses_local_memory
        ]
        words = [f"{min(registers)} to {max(registers)}", *local]
        lines.append(f"{kernel:56s}{' '.join(words)}")
    return "\n".join(lines)
