"""Compiles the CUDA kernels of ``csrc/cuda`` for the host, with the headers of this directory.

``python tests/native/cuda_on_host/build.py library`` makes a library to load in place of the CPU
library, by ``CIRCULANT_ATTENTION_LIBRARY``; ``... check`` a program that compares the kernels with
loops written from the definition, with address and undefined-behaviour sanitizers. The path of
what was made is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for when this file is the program

from locks import locked  # noqa: E402

ROOT = HERE.parents[2]
BUILD = ROOT / "build" / "cuda_on_host"

# These include torch's Tensor, and are compiled by way of ops.cpp in this directory.
OPS = ("ops.cu", "attention_ops.cu")
DEVICE = ("fibers", "machine", "warp", "runtime")
CHECK = (
    *(*DEVICE, "check", "check_maps", "check_adjacency", "check_attention", "check_attention_mma"),
    *("check_biased_attention", "check_fragments", "check_limits", "check_maps_mma"),
)
# Full debug information would double the time of the compiler. AddressSanitizer sees the accesses
# that the checks left out would announce.
SANITIZE = [
    *("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "-fno-sanitize=null,object-size,pointer-overflow",
]


def kernels(csrc: Path = ROOT / "csrc") -> list[Path]:
    """The sources with kernels in them."""
    return sorted(path for path in (csrc / "cuda").glob("*.cu") if path.name not in OPS)


def torch_directory() -> Path:
    """The directory of torch, found without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


class Ninja:
    """Build rules for C++ sources that see this directory's ``cuda_runtime.h``."""

    def __init__(self, flags: Iterable[str]) -> None:
        common = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
        # `#pragma unroll` is for nvcc.
        common += ["-Wno-unknown-pragmas", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
        common += ["-I", str(HERE / "include"), "-isystem", str(torch_directory() / "include")]
        compiler = os.environ.get("CXX", "c++")
        self.lines = [
            f"flags = {' '.join([*common, *flags])}",
            "rule compile",
            f"  command = {compiler} $flags -MMD -MF $out.d -x $language -c $in -o $out",
            "  description = compile $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule link",
            f"  command = {compiler} $flags $in -o $out $libraries",
        ]

    def precompile(self, header: Path) -> str:
        """Compiles a header, with which objects can begin."""
        self.lines += [f"build {header.name}.gch: compile {header}", "  language = c++-header"]
        return header.name

    def object(self, source: Path, target: str, begin: str = "") -> str:
        """Compiles ``source``; ``begin`` is a header of ``precompile``."""
        self.lines += [f"build {target}: compile {source}" + (begin and f" | {begin}.gch")]
        self.lines += ["  language = c++" + (begin and f" -include {begin}")]
        return target

    def link(self, objects: Iterable[str], target: str, libraries: str = "") -> str:
        """Links ``objects``."""
        self.lines += [f"build {target}: link {' '.join(objects)}", f"  libraries = {libraries}"]
        return target

    def run(self, directory: Path) -> Path:
        """Brings every target up to date in ``directory``, one process at a time."""
        with locked(directory):
            (directory / "build.ninja").write_text("\n".join(self.lines) + "\n")
            command = [sys.executable, "-m", "ninja", "-C", str(directory)]
            jobs = os.environ.get("MAX_JOBS")
            done = subprocess.run(
                [*command, *(["-j", jobs] if jobs else [])],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise RuntimeError(done.stdout)
        return directory


def build_library() -> Path:
    """The ops as CPU ops."""
    ninja = Ninja(["-O1"])
    objects = [ninja.object(path, f"{path.stem}.o") for path in kernels()]
    objects += [ninja.object(HERE / f"{name}.cpp", f"{name}.o") for name in (*DEVICE, "ops")]
    objects.append(ninja.object(ROOT / "csrc" / "ops.cpp", "schemas.o"))
    target = "libcirculant_attention_cuda_on_host.so"
    # Only this library uses the functions of a CUDA torch that ops.cpp defines.
    options = "-shared -Wl,-Bsymbolic -Wl,--no-as-needed -ltorch -ltorch_cpu"
    ninja.link(objects, target, f"{options} -L{torch_directory() / 'lib'}")
    return ninja.run(BUILD / "library") / target


def build_check() -> Path:
    """The program that checks the kernels. Its objects lie beside it."""
    ninja = Ninja(SANITIZE)
    sources = [*kernels(), *(HERE / f"{name}.cpp" for name in CHECK)]
    objects = [ninja.object(path, f"{path.stem}.o") for path in sources]
    target = ninja.link(objects, "check")
    return ninja.run(BUILD / "check") / target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["library", "check"])
    chosen = parser.parse_args().what
    print(build_library() if chosen == "library" else build_check())
