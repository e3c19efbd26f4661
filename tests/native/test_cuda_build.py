"""The CUDA library as it is compiled. No GPU is needed."""

from __future__ import annotations

import ast
import os
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import issue_slots
import pytest
import resource_report
import torch
from resource_report import Build, Usage

pytestmark = pytest.mark.thorough

SPILLING = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN9circulant12apply_kernelIfLb1EEEvPKT_' for 'sm_90'
ptxas info    : Function properties for _ZN9circulant12apply_kernelIfLb1EEEvPKT_
    72 bytes stack frame, 68 bytes spill stores, 124 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 72 bytes cumulative stack size
"""


PTX = """
.visible .entry _ZN9circulant12apply_kernelIfLb1EEEvPKT_(
	ld.param.u64 	%rd1, [param_0];
{}
)
"""
LOAD, STORE = "\tld.global.nc.f32 \t%f1, [%rd1];\n", "\tst.shared.f32 \t[%r1], %f1;\n"


# Their inputs need no conversion.
KERNELS_THAT_COPY = [
    f"{kernel}_kernel<{dtype}{flag}>"
    for kernel in ("similarity", "apply", "adjacency", "attention", "attention_backward")
    for dtype in ("float", "double")
    for flag in ([""] if kernel == "adjacency" else [", false", ", true"])
] + ["transpose_kernel<unsigned int>", "transpose_kernel<unsigned long>"]


@pytest.fixture(scope="module")
def made() -> Build:
    """The library, compiled for every architecture."""
    if shutil.which(os.environ.get("NVCC", "nvcc")) is None:
        if os.environ.get("CIRCULANT_ATTENTION_CUDA") == "1":
            pytest.fail("CIRCULANT_ATTENTION_CUDA=1, but nvcc was not found")
        pytest.skip("nvcc was not found; CIRCULANT_ATTENTION_CUDA=1 makes this a failure")
    return resource_report.build()


def test_the_library_has_what_it_needs(made: Build, record_property):
    """Compiled without a warning (an error in this build), for every architecture, no spills."""
    table = resource_report.table(resource_report.usages(made.log))
    record_property("resources of the CUDA kernels", table)
    assert list(resource_report.problems(made)) == []


def test_every_kernel_is_reported(made: Build):
    """Four dtypes by two kinds or directions; transpose has one kernel per size of an entry.

    Attention has kernels with terms of the scores and without. On tensor cores, two dtypes by three
    numbers of channels, and by two kinds of gradients, three with terms and 128 channels. Maps on
    tensor cores have two dtypes by three numbers of channels, or by two and two directions.
    """
    kernels = [name.split("<")[0] for name in {u.kernel for u in resource_report.usages(made.log)}]
    assert Counter(kernels) == {
        "similarity_kernel": 8,
        "adjacency_kernel": 4,
        "apply_kernel": 8,
        "transpose_kernel": 3,
        "attention_kernel": 8,
        "attention_backward_kernel": 8,
        "attention_delta_kernel": 8,
        "sum_rows_kernel": 2,
        "similarity_mma_kernel": 6,
        "apply_mma_kernel": 8,
        "attention_mma_kernel": 12,
        "attention_mma_backward_kernel": 26,
    }


def test_loops_take_no_more_slots_than_allowed(made: Build, record_property):
    """Counted in the machine code of every architecture, and printed in short."""
    found = issue_slots.all_loops(made.library)
    record_property("issue slots of the CUDA kernels", issue_slots.summary(found))
    assert list(issue_slots.problems(found)) == []
    architectures = {f"sm_{n}" for n in resource_report.wanted_architectures("CUDA_ARCHITECTURES")}
    kernels = {usage.kernel for usage in resource_report.usages(made.log)}
    without_loops = {"attention_delta_kernel", "sum_rows_kernel", "transpose_kernel"}
    multiplying = issue_slots.those(found, issue_slots.multiplies)
    assert {name for name in kernels if name.split("<")[0] not in without_loops} == set(multiplying)
    for kernel, loops in multiplying.items():
        assert set(loops) == architectures - ({"sm_75"} if "_mma_" in kernel else set())


def branch_words(kind: int, distance: int, split: bool) -> tuple[int, int]:
    """A branch over `distance` bytes."""
    units = distance // 4 & (1 << 56) - 1
    low, far = (units & 0xFF, units >> 8) if split else (0, units & (1 << 48) - 1)
    return kind | low << 16 | (far & (1 << 30) - 1) << 34, far >> 30


@pytest.mark.parametrize("split", [False, True])
def test_slots_are_counted(split: bool):
    """A loop of a load of 16 bytes per lane, four matrices and two products, in both forms."""
    others, load, matrices, product = (0x7918, 0), (0x7984, 6 << 9), (0x783B, 2 << 8), (0x723C, 0)
    body = [load, matrices, product, others, product]
    code = [others, *body, branch_words(0x0947, -16 * (len(body) + 1), split)]
    code += [others, branch_words(0x7947, -16, split), others]
    [loop] = issue_slots.loops(b"".join(struct.pack("<QQ", *words) for words in code))
    assert (loop.slots, loop.products, loop.wavefronts) == (6, 2, 8)


def test_slots_of_moves_are_counted():
    """Loads to registers and to shared memory, and stores, of a map; single values are not."""
    load, copy, store = (0x7981, 0), (0x7FAE, 0), (0x7986, 0)
    code = b""
    for body in ([load, load, copy, copy], [store] * 5, [load]):
        code += b"".join(struct.pack("<QQ", *words) for words in body)
        code += struct.pack("<QQ", *branch_words(0x0947, -16 * (len(body) + 1), False))
    code += struct.pack("<QQ", *branch_words(0x7947, -16, False))
    found = {"apply_kernel<float, true>": {"sm_90": issue_slots.loops(code)}}
    assert issue_slots.worst_moves(found) == {"apply_kernel<T, true>": (5 / 4, 6 / 5)}
    assert issue_slots.worst_products(found) == {}
    [problem] = [p for p in issue_slots.problems(found) if p.startswith("apply_kernel<T, true>: ")]
    assert "1.250 slots per load and 1.200 per store" in problem


def test_spills_are_seen():
    [usage] = resource_report.usages(SPILLING)
    assert usage == Usage("apply_kernel<float, true>", "sm_90", 168, 72, 192)
    assert usage.uses_local_memory


def test_every_problem_is_seen(made: Build):
    """Spills, an architecture that is missing, and a library without CUDA: Python."""
    spilling = Build(made.library, made.log + SPILLING)
    expected = "apply_kernel<float, true> uses local memory on sm_90"
    assert expected in list(resource_report.problems(spilling))
    found = list(resource_report.problems(Build(Path(sys.executable), made.log)))
    assert found[0] == "the library does not depend on libtorch.so"
    assert found[1:] == ["no PTX for compute_90", "no PTX for compute_120"]
    log = made.log.replace("for 'sm_75'", "for 'sm_90'")
    found = list(resource_report.problems(Build(made.library, log)))
    assert len(found) == len({usage.kernel for usage in resource_report.usages(made.log)})
    assert all("was compiled for sm_100, sm_120, sm_80" in problem for problem in found)


@pytest.mark.parametrize(
    ("body", "runs"),
    [
        (4 * (LOAD + STORE), [1, 1, 1, 1]),
        (4 * LOAD + 4 * STORE + 2 * LOAD + STORE, [4, 2]),
        (STORE + LOAD, []),
    ],
)
def test_loads_in_flight_are_counted(body: str, runs: list[int]):
    found = resource_report.loads_in_flight(PTX.format(body))
    assert found == {"apply_kernel<float, true>": runs}


def test_the_ptx_of_every_kernel_is_read(made: Build):
    """All but one fill shared memory, some by copies that go on while a thread computes."""
    kernels = {usage.kernel for usage in resource_report.usages(made.log)}
    for text in resource_report.ptx(made.library).values():
        loads = resource_report.loads_in_flight(text)
        assert set(loads) == kernels
        copying = resource_report.copies(text)
        assert {name.split("<")[0] for name in loads if not loads[name] and not copying[name]} == {
            "attention_delta_kernel"
        }
        assert {name for name in KERNELS_THAT_COPY if not copying[name]} == set()


def configure(**variables: str) -> subprocess.CompletedProcess[str]:
    """The output of setup.py before it compiles."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CIRCULANT_ATTENTION_")
    }
    return subprocess.run(
        [sys.executable, "setup.py", "--name"],
        cwd=resource_report.ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


NO_NVCC = {"NVCC": "/nowhere/nvcc"}
REFUSED = [
    (NO_NVCC | {"CIRCULANT_ATTENTION_CUDA": "1"}, "CUDA=1, but there is no nvcc"),
    ({"CIRCULANT_ATTENTION_CUDA": "yes"}, "CUDA must be 0, 1 or unset, got 'yes'"),
    (
        {"CIRCULANT_ATTENTION_ARCHITECTURES": "yes"},
        "ARCHITECTURES must be native or unset, got 'yes'",
    ),
]


def test_settings_of_the_build():
    done = configure(**NO_NVCC)
    assert done.returncode == 0
    assert "CPU only, as nvcc was not found. For CUDA support install the" in done.stdout
    for settings, message in REFUSED:
        done = configure(**settings)
        assert done.returncode != 0
        assert f"CIRCULANT_ATTENTION_{message}" in done.stderr


def test_the_script_requires_the_modules_that_test_files_import():
    """pytest imports every file, also those without a selected test."""
    tests = resource_report.ROOT / "tests"
    required = re.findall(r"cuda_machine\.py (.*)", (tests / "native" / "run_cuda.sh").read_text())
    # torch provides functorch; scikit-image requires numpy, pillow, scipy and tifffile.
    available = {*required[0].split(), "torch", "functorch", "numpy", "PIL", "scipy", "tifffile"}
    ours = {
        "circulant_attention",
        "benchmarks",
        "examples",
        "parity",
        *(path.stem for path in tests.glob("*/*")),
    }
    imported = set()
    for path in [*tests.glob("*/*.py"), *tests.glob("../parity/**/*.py")]:
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
                imported.add(statement.module.split(".")[0])
    assert {"pytest", "skimage"} < imported
    assert imported - ours - available - sys.stdlib_module_names == set()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("script", ["tests/native/run_cuda.sh", "benchmarks/cuda/run.sh"])
def test_without_a_gpu_the_script_names_what_is_missing(script: str):
    done = subprocess.run(
        [resource_report.ROOT / script],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    reason = "a GPU that torch can use" if torch.version.cuda else "a torch with CUDA"
    assert f"missing: {reason}" in done.stderr
