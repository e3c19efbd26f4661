"""Builds the native libraries with ninja; everything else about the package is in pyproject.toml.

Both are shared libraries without Python symbols, loaded by ``circulant_attention/ops/library.py``:

``libcirculant_attention_cpu.so``
    ``csrc/ops.cpp``, ``csrc/cpu/*.cpp``, and ``csrc/cpu/kernels/*.cpp`` once per instruction set.
``libcirculant_attention_cuda.so``
    ``csrc/cuda/*.cu``, when nvcc is found.

Environment variables:

``CIRCULANT_ATTENTION_CUDA``
    ``1``: a missing nvcc is an error. ``0``: no CUDA library. Unset: one if nvcc is found.
``CIRCULANT_ATTENTION_ARCHITECTURES``
    ``native``: CUDA code for the GPUs of this machine only. Unset: for every architecture below.
``CXX``, ``NVCC``
    The compilers, ``c++`` and ``nvcc`` by default.
``CXXFLAGS``, ``NVCCFLAGS``, ``LDFLAGS``
    Flags added after our own.
``MAX_JOBS``
    The number of parallel compilations, by default ninja's own choice.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CPU = "circulant_attention.libcirculant_attention_cpu"
CUDA = "circulant_attention.libcirculant_attention_cuda"

# The oldest torch that the libraries load into: 2.11, the first whose stable ABI has all they call.
# Raise both together, and only for a feature of the newer one.
TARGET_VERSION = "0x020b000000000000"
TARGET_RELEASE = (2, 11)

COMMON_FLAGS = ["-std=c++17", "-O3", f"-DTORCH_TARGET_VERSION={TARGET_VERSION}"]
CXX_FLAGS = [
    *["-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"],
    # Messages name source files relative to the project.
    f"-ffile-prefix-map={ROOT}/=",
]
# libtorch.so must be among the needed libraries even though no symbol is taken from it directly: it
# is what brings in the CUDA half of a CUDA torch.
LINK_FLAGS = ["-shared", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]

# One build of every kernel source per instruction set; the first runs on any processor.
INSTRUCTION_SETS = {"plain": []}
if platform.machine() in ("x86_64", "AMD64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    INSTRUCTION_SETS["avx512"] = [
        *["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
        "-mprefer-vector-width=512",
    ]

# The GPU architectures with code of their own; the newest also as PTX, for those to come.
CUDA_ARCHITECTURES = ["75", "80", "86", "89", "90", "100", "120"]


def torch_directory() -> Path:
    """The directory of the torch that we build against, found without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "building circulant_attention needs torch: run pip with build isolation, or install "
            "torch >= 2.11 first"
        )
    version = importlib.metadata.version("torch")
    release = tuple(int(part) for part in version.split(".")[:2])
    if release < TARGET_RELEASE:
        raise SystemExit(f"building circulant_attention needs torch >= 2.11, found {version}")
    return Path(spec.origin).parent


def cuda_codes(nvcc: str) -> list[str]:
    """The flags for each architecture that this nvcc knows, or for the GPUs of this machine."""
    if os.environ.get("CIRCULANT_ATTENTION_ARCHITECTURES"):
        return ["-arch=native"]
    known = subprocess.run([nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True)
    names = [name for name in CUDA_ARCHITECTURES if f"sm_{name}" in known.stdout.split()]
    if len(names) < len(CUDA_ARCHITECTURES):
        missing = sorted(set(CUDA_ARCHITECTURES) - set(names), key=int)
        print(f"circulant_attention: no code for sm_{', sm_'.join(missing)}, unknown to {nvcc}")
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
    return [*codes, f"-gencode=arch=compute_{names[-1]},code=compute_{names[-1]}"]


def cuda_sources() -> list[Path]:
    """The CUDA sources, when there is a compiler for them; says why when there is none."""
    wanted = os.environ.get("CIRCULANT_ATTENTION_CUDA", "")
    if wanted not in ("", "0", "1"):
        raise SystemExit(f"CIRCULANT_ATTENTION_CUDA must be 0, 1 or unset, got {wanted!r}")
    codes = os.environ.get("CIRCULANT_ATTENTION_ARCHITECTURES", "")
    if codes not in ("", "native"):
        raise SystemExit(
            f"CIRCULANT_ATTENTION_ARCHITECTURES must be native or unset, got {codes!r}"
        )
    nvcc = shutil.which(os.environ.get("NVCC", "nvcc"))
    if wanted == "0":
        print("circulant_attention: CPU only, as CIRCULANT_ATTENTION_CUDA=0 asks")
        return []
    if nvcc is None and wanted == "1":
        raise SystemExit(
            "CIRCULANT_ATTENTION_CUDA=1, but there is no nvcc: put it on PATH, or its path in NVCC"
        )
    if nvcc is None:
        print(
            "circulant_attention: CPU only, as nvcc was not found. For CUDA support install the "
            "CUDA toolkit, put nvcc on PATH and build again; with CIRCULANT_ATTENTION_CUDA=1 this "
            "is an error."
        )
        return []
    print(f"circulant_attention: CPU and CUDA, with {nvcc}")
    return sorted((ROOT / "csrc" / "cuda").glob("*.cu"))


class NinjaFile:
    """The build rules of one library, compiled and linked by ``compiler``."""

    def __init__(self, build: Path, compiler: str, link: list[str]) -> None:
        self.build = build
        self.lines = [
            "rule compile",
            f"  command = {compiler} -MMD -MF $out.d $flags -c $in -o $out",
            "  description = compile $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule link",
            f"  command = {compiler} $in -o $out {shlex.join(link)}",
            "  description = link $out",
        ]
        self.objects: list[Path] = []

    def object(self, source: Path, flags: list[str], suffix: str = "") -> None:
        target = self.build / source.relative_to(ROOT).with_suffix(f"{suffix}.o")
        self.lines.append(f"build {escape(target)}: compile {escape(source)}")
        self.lines.append(f"  flags = {shlex.join(flags)}")
        self.objects.append(target)

    def library(self, target: Path) -> None:
        self.lines += [f"build {escape(target)}: link {' '.join(map(escape, self.objects))}"]

    def run(self, verbose: bool) -> None:
        self.build.mkdir(parents=True, exist_ok=True)
        (self.build / "build.ninja").write_text("\n".join(self.lines) + "\n")
        command = [sys.executable, "-m", "ninja", "-C", str(self.build)]
        if "MAX_JOBS" in os.environ:
            command += ["-j", os.environ["MAX_JOBS"]]
        if verbose:
            command.append("-v")
        subprocess.run(command, check=True)


def escape(path: Path) -> str:
    """A path in ninja's notation."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def environment_flags(name: str) -> list[str]:
    return shlex.split(os.environ.get(name, ""))


def cpu_rules(build: Path, sources: list[Path], includes: list[str], link: list[str]) -> NinjaFile:
    ninja = NinjaFile(build, os.environ.get("CXX", "c++"), link)
    flags = [*COMMON_FLAGS, *CXX_FLAGS, *includes]
    after = environment_flags("CXXFLAGS")
    for source in sources:
        if source.parent.name != "kernels":
            defines = [f"-DCIRCULANT_WITH_{name.upper()}" for name in INSTRUCTION_SETS]
            ninja.object(source, [*flags, *defines, *after])
            continue
        for name, options in INSTRUCTION_SETS.items():
            define = f"-DCIRCULANT_INSTRUCTION_SET={name}"
            ninja.object(source, [*flags, define, *options, *after], f".{name}")
    return ninja


def cuda_rules(build: Path, sources: list[Path], includes: list[str], link: list[str]) -> NinjaFile:
    nvcc = os.environ.get("NVCC", "nvcc")
    passed = [f"-Xlinker={flag[4:]}" if flag.startswith("-Wl,") else flag for flag in link]
    ninja = NinjaFile(build, nvcc, passed)
    host = [f"-Xcompiler={flag}" for flag in CXX_FLAGS if flag != "-Wextra"]
    flags = [*COMMON_FLAGS, "-DUSE_CUDA", "--expt-relaxed-constexpr", *host, *includes]
    flags += [*cuda_codes(nvcc), *environment_flags("NVCCFLAGS")]
    for source in sources:
        ninja.object(source, flags)
    return ninja


class BuildLibraries(build_ext):
    """Compiles the native libraries in place of extension modules."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        torch = torch_directory()
        includes = ["-isystem", str(torch / "include")]
        link = [*LINK_FLAGS, f"-L{torch / 'lib'}", *environment_flags("LDFLAGS")]
        build = Path(self.build_temp).resolve() / ext.name.rpartition(".")[2]
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        rules = cpu_rules if ext.name == CPU else cuda_rules
        ninja = rules(build, [ROOT / source for source in ext.sources], includes, link)
        ninja.library(target)
        ninja.run(verbose=self.verbose > 1)


class PlatformWheel(bdist_wheel):
    """One wheel for every Python 3: the libraries know nothing of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def libraries() -> list[Extension]:
    cpu = [ROOT / "csrc" / "ops.cpp", *sorted((ROOT / "csrc" / "cpu").rglob("*.cpp"))]
    cuda = cuda_sources()
    named = [(CPU, cpu)] + ([(CUDA, cuda)] if cuda else [])
    return [
        Extension(name, [str(source.relative_to(ROOT)) for source in sources])
        for name, sources in named
    ]


setup(
    ext_modules=libraries(),
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": PlatformWheel},
)
