"""What the CUDA compiler says about each kernel, and what the library that it makes holds.

``python tests/native/resource_report.py`` builds the library for every architecture and prints
registers, local memory and spills per kernel and architecture. It ends with status 1 if the
library is not as :func:`problems` wants it. No GPU is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from locks import locked

ROOT = Path(__file__).parents[2]
LIBRARY = Path("lib", "circulant_attention", "libcirculant_attention_cuda.so")
# Everything that is told about a kernel, and every warning an error; PTX that can be read.
FLAGS = "-Xptxas=-v -Werror=all-warnings --no-compress"

# How many loads a thread has under way, on average at least, when it fills shared memory.
LOADS_AT_ONCE = 3

# Kernels that use local memory on some architecture, with the reason. float32 kernels may not.
LOCAL_MEMORY: dict[str, str] = {}


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture; bytes are per thread."""

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
    """A library, and what the compiler said while making it."""

    library: Path
    log: str


def build() -> Build:
    """Builds the CUDA library, unless this was done from the same sources before.

    Raises:
        RuntimeError: If the build fails; says what the compiler said.
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
            # setup.py makes both libraries; the compiler of the one for CPUs does nothing here.
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
    """The kernels in what ptxas said, in the order of their names."""
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


def device_code(library: Path) -> Iterator[tuple[str, bytes]]:
    """Each code in a library with its architecture: ``sm_90``, or ``compute_90`` where it is PTX.

    Reads the headers of the fat binaries: a header of 16 bytes, then entries that tell their kind
    (1 for PTX, 2 for code), the size of their header and of what follows, and an architecture.
    """
    data = library.read_bytes()
    magic = struct.pack("<I", 0xBA55ED50)
    names = {1: "compute_", 2: "sm_"}
    at = data.find(magic)
    while at >= 0:
        header, size = struct.unpack_from("<HQ", data, at + 6)
        entry, end = at + header, at + header + size
        while entry < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, entry)
            (architecture,) = struct.unpack_from("<I", data, entry + 28)
            code = data[entry + header : entry + header + size]
            yield f"{names[kind]}{architecture}", code
            entry += header + size
        at = data.find(magic, end)


def architectures(library: Path) -> set[str]:
    """What a library has code for."""
    return {architecture for architecture, _ in device_code(library)}


def ptx(library: Path) -> str:
    """The PTX in a library."""
    return "".join(
        code.decode(errors="replace")
        for architecture, code in device_code(library)
        if architecture.startswith("compute_")
    )


def loads_at_once(text: str) -> dict[str, list[int]]:
    """How many global loads stand together before stores to shared memory, kernel by kernel."""
    found = {}
    for kernel in text.split(".entry ")[1:]:
        operations = re.findall(r"\b(ld\.global|st\.shared)", kernel)
        order = "".join("L" if name == "ld.global" else "S" for name in operations)
        mangled = kernel[: kernel.index("(")].strip()
        found[short_name(demangled([mangled])[0])] = [
            len(loads) for loads in re.findall(r"(L+)S", order)
        ]
    return found


def needed(library: Path) -> list[str]:
    """The libraries that a library asks for."""
    text = subprocess.run(
        ["readelf", "-d", library], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", text)


def wanted_architectures() -> set[str]:
    """Those that setup.py compiles for, the newest also as PTX."""
    listed = re.search(r"^CUDA_ARCHITECTURES = \[(.*)\]", (ROOT / "setup.py").read_text(), re.M)
    assert listed, "setup.py lists no CUDA_ARCHITECTURES"
    numbers = re.findall(r"\d+", listed[1])
    return {f"sm_{number}" for number in numbers} | {f"compute_{numbers[-1]}"}


def problems(made: Build) -> Iterator[str]:
    """Whatever is wrong with a library: what it holds, what its kernels use."""
    if "libtorch.so" not in needed(made.library):
        yield "the library does not ask for libtorch.so"
    if missing := wanted_architectures() - architectures(made.library):
        yield f"no code for {', '.join(sorted(missing))}"
    kernels: dict[str, set[str]] = {}
    for usage in usages(made.log):
        kernels.setdefault(usage.kernel, set()).add(usage.architecture)
        if usage.uses_local_memory and usage.kernel not in LOCAL_MEMORY:
            yield f"{usage.kernel} on {usage.architecture} uses local memory and is not listed"
    if not kernels:
        yield "the compiler told of no kernel"
    code = {name for name in wanted_architectures() if name.startswith("sm_")}
    for kernel, known in kernels.items():
        if known != code:
            yield f"{kernel} was compiled for {', '.join(sorted(known))} only"
    for kernel, runs in loads_at_once(ptx(made.library)).items():
        if sum(runs) < LOADS_AT_ONCE * len(runs):
            yield f"{kernel} waits for its loads: {runs} of them at a time"
    for kernel in LOCAL_MEMORY:
        if "float" in kernel:
            yield f"{kernel} is listed, but a float32 kernel may not use local memory"
        elif not any(u.kernel == kernel and u.uses_local_memory for u in usages(made.log)):
            yield f"{kernel} is listed, but uses no local memory"


def table(found: list[Usage]) -> str:
    """Registers per kernel and architecture; local memory in brackets."""
    columns = list(dict.fromkeys(usage.architecture for usage in found))
    cells: dict[str, dict[str, str]] = {}
    for usage in found:
        local = f" [{usage.stack_bytes}, {usage.spilled_bytes}]" if usage.uses_local_memory else ""
        cells.setdefault(usage.kernel, {})[usage.architecture] = f"{usage.registers}{local}"
    lines = [f"{'registers [stack, spilled bytes]':36s}" + "".join(f"{c:>14s}" for c in columns)]
    for kernel, row in cells.items():
        lines.append(f"{kernel:36s}" + "".join(f"{row.get(c, '-'):>14s}" for c in columns))
    return "\n".join(lines)


def main() -> int:
    made = build()
    print(table(usages(made.log)))
    print("code for", ", ".join(sorted(architectures(made.library))))
    print("needs", ", ".join(needed(made.library)))
    for kernel, reason in LOCAL_MEMORY.items():
        print(f"{kernel} uses local memory: {reason}")
    found = list(problems(made))
    for problem in found:
        print("PROBLEM:", problem)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
