"""Builds the native libraries with ninja; everything else about the package is in pyproject.toml.

Both are shared libraries without Python symbols, loaded by ``circulant_attention/ops/library.py``:

``libcirculant_attention_cpu.so`` (``.dylib`` on macOS)
    ``csrc/ops.cpp``, ``csrc/cpu/*.cpp``, and ``csrc/cpu/kernels/*.cpp`` once per instruction set.
``libcirculant_attention_cuda.so``
    ``csrc/cuda/*.cu``, when nvcc is found.

No torch is needed to build: its headers are in ``third_party/torch``, and the linker gets libraries
with its names and functions that do nothing.

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

import atexit
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# bdist_wheel came with 70.1, the form of the licence in pyproject.toml with 77.
if int(setuptools.__version__.partition(".")[0]) < 77:
    raise SystemExit(
        f"building circulant_attention needs setuptools >= 77, found {setuptools.__version__}: "
        "pip install 'setuptools>=77', or let pip build in isolation"
    )

from setuptools.command.bdist_wheel import bdist_wheel

ROOT = Path(__file__).parent.resolve()
CPU = "circulant_attention.libcirculant_attention_cpu"
CUDA = "circulant_attention.libcirculant_attention_cuda"

HEADERS = ROOT / "third_party" / "torch" / "include"

# The oldest torch that the libraries load into: 2.11, the first whose stable ABI has all they call.
# Raise it with the dependency in pyproject.toml, and only for a feature of the newer one.
TARGET_VERSION = "0x020b000000000000"

COMMON_FLAGS = ["-std=c++17", "-O3", "-DNDEBUG", f"-DTORCH_TARGET_VERSION={TARGET_VERSION}"]
CXX_FLAGS = [
    *["-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"],
    # Messages name source files relative to the project.
    f"-ffile-prefix-map={ROOT}/=",
]

# The kernels are compiled once per instruction set; the first runs on any processor.
X86_INSTRUCTION_SETS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        *["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
        "-mprefer-vector-width=512",
    ],
}

# The GPU architectures with code of their own, and those with PTX: what other GPUs, and those to
# come, compile when they load the library.
CUDA_ARCHITECTURES = ["75", "80", "86", "89", "90", "100", "120"]
CUDA_PTX_ARCHITECTURES = ["90", "120"]


class Linker:
    """The flags of the linker for what ``compiler`` compiles for."""

    def __init__(self, compiler: list[str]) -> None:
        # Such as x86_64-linux-gnu or arm64-apple-darwin24.6.0.
        self.target = f"{platform.machine()}-{sys.platform}"
        if shutil.which(compiler[0]) is not None:
            asked = subprocess.run([*compiler, "-dumpmachine"], capture_output=True, text=True)
            self.target = asked.stdout.strip() or self.target
        self.is_macos = "darwin" in self.target or "macos" in self.target
        self.suffix = ".dylib" if self.is_macos else ".so"
        self.shared = ["-dynamiclib" if self.is_macos else "-shared"]

    def flags(self, stand_ins: Path) -> list[str]:
        """Link with torch's libraries, of which ``stand_ins`` holds stand-ins."""
        search = f"-L{stand_ins}"
        if self.is_macos:
            # torch is beside this package unless that is installed elsewhere or in editable mode.
            rpath = "-Wl,-rpath,@loader_path/../torch/lib"
            return [*self.shared, search, "-ltorch_cpu", rpath]
        # libtorch.so must be among the needed libraries even though no symbol is taken from it
        # directly: it is what brings in the CUDA half of a CUDA torch.
        needed = ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]
        return [*self.shared, search, *needed, "-Wl,-z,defs"]

    def name_flag(self, name: str) -> str:
        """What gives a stand-in the name by which the library is found when it is loaded."""
        return f"-Wl,-install_name,@rpath/{name}" if self.is_macos else f"-Wl,-soname,{name}"

    @property
    def instruction_sets(self) -> dict[str, list[str]]:
        """The options of each instruction set."""
        x86 = self.target.startswith(("x86_64", "amd64", "AMD64"))
        return {"plain": [], **(X86_INSTRUCTION_SETS if x86 else {})}


def torch_functions() -> list[str]:
    """The functions of the stable ABI, from its headers."""
    found: set[str] = set()
    for header in sorted((HEADERS / "torch" / "csrc").rglob("*.h")):
        found |= set(re.findall(r"\b((?:aoti_)?torch_\w+)\(", header.read_text()))
    return sorted(found)


def cxx() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


def cuda_codes(nvcc: str) -> list[str]:
    """The flags for each architecture that this nvcc knows, or for the GPUs of this machine."""
    if os.environ.get("CIRCULANT_ATTENTION_ARCHITECTURES"):
        return ["-arch=native"]
    known = subprocess.run([nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True)
    codes = known.stdout.split()
    names = [name for name in CUDA_ARCHITECTURES if f"sm_{name}" in codes]
    if len(names) < len(CUDA_ARCHITECTURES):
        missing = sorted(set(CUDA_ARCHITECTURES) - set(names), key=int)
        print(f"circulant_attention: no code for sm_{', sm_'.join(missing)}, unknown to {nvcc}")
    ptx = [name for name in CUDA_PTX_ARCHITECTURES if name in names] or names[-1:]
    return [
        *(f"-gencode=arch=compute_{name},code=sm_{name}" for name in names),
        *(f"-gencode=arch=compute_{name},code=compute_{name}" for name in ptx),
    ]


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
    """The build rules of one library, compiled and linked by ``compiler``, which may be nvcc."""

    def __init__(self, build: Path, compiler: list[str], linker: Linker, is_nvcc: bool) -> None:
        self.build = build
        self.is_nvcc = is_nvcc
        command = shlex.join(compiler)
        stand_ins = build / "stand_ins"
        link = self.passed([*linker.flags(stand_ins), *environment_flags("LDFLAGS")])
        self.lines = [
            "rule compile",
            f"  command = {command} -MMD -MF $out.d $flags -c $in -o $out",
            "  description = compile $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule link",
            f"  command = {command} $in -o $out {shlex.join(link)}",
            "  description = link $out",
        ]
        # A stand-in: a library with the functions of torch's, so that the linker finds the names.
        bodies = "".join(f'extern "C" void {name}() {{}}\n' for name in torch_functions())
        self.texts = {stand_ins / "torch.cpp": "", stand_ins / "torch_cpu.cpp": bodies}
        self.needed = []
        for source in self.texts:
            target = source.with_name(f"lib{source.stem}{linker.suffix}")
            made = [*linker.shared, "-fPIC", linker.name_flag(target.name)]
            self.lines += [
                f"rule {source.stem}",
                f"  command = {command} {shlex.join(self.passed(made))} $in -o $out",
                f"  description = stand-in for torch: {target.name}",
                f"build {escape(target)}: {source.stem} {escape(source)}",
            ]
            self.needed.append(target)
        self.objects: list[Path] = []

    def passed(self, flags: list[str]) -> list[str]:
        """Flags of a C++ compiler, in nvcc's form if it is the compiler."""
        if not self.is_nvcc:
            return flags
        forms = {"-Wl,": "-Xlinker=", "-f": "-Xcompiler=-f", "-W": "-Xcompiler=-W"}
        rewritten = []
        for flag in flags:
            form = next((form for form in forms if flag.startswith(form)), "")
            rewritten.append(forms.get(form, "") + flag.removeprefix(form))
        return rewritten

    def object(self, source: Path, flags: list[str], suffix: str = "") -> None:
        target = self.build / source.relative_to(ROOT).with_suffix(f"{suffix}.o")
        self.lines.append(f"build {escape(target)}: compile {escape(source)}")
        self.lines.append(f"  flags = {shlex.join(flags)}")
        self.objects.append(target)

    def library(self, target: Path) -> None:
        inputs, needed = (" ".join(map(escape, paths)) for paths in (self.objects, self.needed))
        self.lines.append(f"build {escape(target)}: link {inputs} | {needed}")

    def run(self, verbose: bool) -> None:
        for path, text in {
            **self.texts,
            self.build / "build.ninja": "\n".join(self.lines) + "\n",
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        command = [*ninja_command(), "-C", str(self.build)]
        if "MAX_JOBS" in os.environ:
            command += ["-j", os.environ["MAX_JOBS"]]
        if verbose:
            command.append("-v")
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit("building circulant_attention failed: see the compiler's output above")


def ninja_command() -> list[str]:
    if importlib.util.find_spec("ninja") is not None:
        return [sys.executable, "-m", "ninja"]
    if (found := shutil.which("ninja")) is not None:
        return [found]
    raise SystemExit("building circulant_attention needs ninja: pip install ninja")


def escape(path: Path) -> str:
    """A path in ninja's notation."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def environment_flags(name: str) -> list[str]:
    return shlex.split(os.environ.get(name, ""))


def cpu_rules(build: Path, sources: list[Path], linker: Linker) -> NinjaFile:
    ninja = NinjaFile(build, cxx(), linker, is_nvcc=False)
    flags = [*COMMON_FLAGS, *CXX_FLAGS, "-isystem", str(HEADERS)]
    after = environment_flags("CXXFLAGS")
    sets = linker.instruction_sets
    for source in sources:
        if source.parent.name != "kernels":
            defines = [f"-DCIRCULANT_WITH_{name.upper()}" for name in sets]
            ninja.object(source, [*flags, *defines, *after])
            continue
        for name, options in sets.items():
            define = f"-DCIRCULANT_INSTRUCTION_SET={name}"
            ninja.object(source, [*flags, define, *options, *after], f".{name}")
    return ninja


def cuda_rules(build: Path, sources: list[Path], linker: Linker) -> NinjaFile:
    nvcc = os.environ.get("NVCC", "nvcc")
    ninja = NinjaFile(build, [nvcc], linker, is_nvcc=True)
    host = ninja.passed([flag for flag in CXX_FLAGS if flag != "-Wextra"])
    flags = [*COMMON_FLAGS, "-DUSE_CUDA", "--expt-relaxed-constexpr", *host]
    flags += ["-isystem", str(HEADERS), *cuda_codes(nvcc), *environment_flags("NVCCFLAGS")]
    for source in sources:
        ninja.object(source, flags)
    return ninja


class BuildLibraries(build_ext):
    """Compiles the native libraries in place of extension modules."""

    @cached_property
    def linker(self) -> Linker:
        return Linker(cxx())

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + self.linker.suffix

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        if shutil.which(cxx()[0]) is None:
            raise SystemExit(
                "building circulant_attention needs a C++17 compiler, and there is no "
                f"{cxx()[0]}: install one, or put its path in CXX"
            )
        build = Path(self.build_temp).resolve() / ext.name.rpartition(".")[2]
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        rules = cpu_rules if ext.name == CPU else cuda_rules
        ninja = rules(build, [ROOT / source for source in ext.sources], self.linker)
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
    common = sorted((ROOT / "csrc" / "common").glob("*.cpp"))
    return [
        Extension(name, [str(source.relative_to(ROOT)) for source in [*sources, *common]])
        for name, sources in named
    ]


def directories() -> dict[str, dict[str, str]]:
    """Where the build writes: beside the sources, or elsewhere if they are read-only."""
    if os.access(ROOT, os.W_OK):
        return {}
    elsewhere = tempfile.TemporaryDirectory(prefix="circulant_attention_build_")
    atexit.register(elsewhere.cleanup)
    return {"build": {"build_base": elsewhere.name}, "egg_info": {"egg_base": elsewhere.name}}


setup(
    ext_modules=libraries(),
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": PlatformWheel},
    options=directories(),
)
