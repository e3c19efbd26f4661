"""The source distribution, the headers that it is built with, and what a build says and leaves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import kernel_runs
import pytest
import torch
from locks import locked

from circulant_attention.ops import library as _library

ROOT = kernel_runs.ROOT
HEADERS = ROOT / "third_party" / "torch" / "include"
IN_GIT = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no git checkout")


def git(*arguments: str) -> list[str]:
    """The lines of the output."""
    command = ["git", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked outside of the repository."""
    directory = tmp_path_factory.mktemp("sdist")
    arguments = ["-q", "egg_info", f"--egg-base={directory}", "sdist", f"--dist-dir={directory}"]
    # It is put together in the repository, and then removed.
    with locked(ROOT / "build" / "sdist"):
        ran = kernel_runs.run("setup.py", *arguments, CIRCULANT_ATTENTION_CUDA="0")
    assert ran.returncode == 0, ran.stderr
    [archive] = directory.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="data")
    return directory / archive.name.removesuffix(".tar.gz")


@IN_GIT
def test_the_source_distribution_is_complete(distribution: Path):
    held = {
        path.relative_to(distribution).as_posix()
        for path in distribution.rglob("*")
        if path.is_file()
    }
    assert set(git("ls-files")) - held == set()
    # Nothing that an earlier build or a tool left behind.
    assert not {path for path in held if re.search(r"\.so$|_cache|__pycache__|/_build/", path)}


def test_the_source_distribution_is_tested_on_its_own(distribution: Path):
    """Its package, tests, tools and parity, with the library that is loaded here."""
    library = _library.library_paths(ROOT / "circulant_attention")[0]
    files = [
        "tests/unit/test_geometry.py",
        "tests/unit/test_similarity.py",
        "parity/test_pattern.py",
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        env={**os.environ, "PYTEST_ADDOPTS": "", _library.LIBRARY_VARIABLE: str(library)},
        cwd=distribution,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_headers_are_those_of_torch():
    """Unchanged copies, of the torch that the tests run with."""
    version = (HEADERS / "torch" / "headeronly" / "version.h").read_text()
    [of_headers] = re.findall(r'"([\d.]+)"', version)
    if torch.__version__.partition("+")[0] != of_headers:
        pytest.skip(f"the headers are those of torch {of_headers}")
    installed = Path(torch.__file__).parent / "include"
    copies = [path for path in HEADERS.rglob("*") if path.is_file()]
    assert copies
    for path in copies:
        assert path.read_bytes() == (installed / path.relative_to(HEADERS)).read_bytes(), path


def build(before: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs setup.py after the statements ``before``."""
    program = f"import runpy, sys; sys.argv = {['setup.py', *arguments]!r}; {before}; "
    program += "runpy.run_path('setup.py', run_name='__main__')"
    return kernel_runs.run("-c", program, CIRCULANT_ATTENTION_CUDA="0", **variables)


@pytest.mark.parametrize(
    ("before", "variables", "message"),
    [
        (
            "import setuptools; setuptools.__version__ = '65.5.0'",
            {},
            "needs setuptools >= 77, found 65.5.0: pip install 'setuptools>=77'",
        ),
        ("pass", {"CXX": "/nowhere/c++ -v"}, "a C++17 compiler, and there is no /nowhere/c++"),
        (
            "import importlib.util as u; u.find_spec = lambda name: None",
            {"CXX": "/bin/true", "PATH": "/nowhere"},
            "needs ninja: pip install ninja",
        ),
        ("pass", {"CXX": "false"}, "failed: see the compiler's output"),
    ],
)
def test_what_is_missing_is_named(before, variables, message, tmp_path: Path):
    directories = [f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"]
    ran = build(before, "-q", "build_ext", *directories, **variables)
    assert ran.returncode == 1
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("target", "flag", "suffix"),
    [
        ("x86_64-linux-gnu", "-soname,libtorch.so", ".so"),
        ("arm64-apple-darwin24", "-install_name", ".dylib"),
    ],
)
def test_the_linker_follows_the_target(target, flag, suffix, tmp_path: Path):
    """A compiler that only says its target and what it was called with."""
    compiler = tmp_path / "c++"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = -dumpmachine ] && echo {target} && exit\necho "$@" >>{tmp_path}/log\n'
    )
    compiler.chmod(0o755)
    directories = [f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"]
    ran = build("pass", "-q", "build_ext", *directories, CXX=str(compiler))
    assert ran.returncode == 0, ran.stderr
    log = (tmp_path / "log").read_text()
    assert flag in log
    assert f"libcirculant_attention_cpu{suffix} " in log + " "
    gnu = {"-soname", "--no-as-needed", "-shared"}
    assert {word for word in gnu if word in log} == (gnu if suffix == ".so" else set())
    assert ("-mavx2" in log) == target.startswith("x86_64")


@IN_GIT
def test_a_build_leaves_nothing_that_git_sees():
    """Of an editable install: the libraries, what they are made from, and the metadata."""
    left = [
        *(
            f"circulant_attention/libcirculant_attention_cpu{suffix}"
            for suffix in (".so", ".dylib")
        ),
        *("build/temp/a.o", "circulant_attention.egg-info/PKG-INFO", "dist/a.whl"),
    ]
    assert git("check-ignore", *left) == left


def test_read_only_sources_can_be_built(tmp_path: Path):
    """Nothing is written beside them."""
    before = set(ROOT.glob("build/*"))
    ran = build(
        "import os; os.access = lambda _, mode: mode != os.W_OK",
        *("-q", "build_ext"),
        CXX="true",
        TMPDIR=str(tmp_path),
    )
    assert ran.returncode == 0, ran.stderr
    assert f"Entering directory `{tmp_path}/circulant_attention_build_" in ran.stdout
    assert list(tmp_path.iterdir()) == []
    # Other tests may build in folders of their own at the same time.
    assert not {path for path in set(ROOT.glob("build/*")) - before if "temp" in path.name}
