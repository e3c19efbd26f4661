"""How the native library is found, and what is said when it cannot be loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from circulant_attention.ops import library as _library


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with both libraries, and no variable that names another."""
    monkeypatch.delenv(_library.LIBRARY_VARIABLE, raising=False)
    for name in (_library.CPU_LIBRARY, _library.CUDA_LIBRARY):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("cuda", "built", "count"), [(None, True, 1), ("13.0", True, 2), ("13.0", False, 1)]
)
def test_paths(cuda, built, count, directory, monkeypatch):
    """The CPU library, and the CUDA library if torch has CUDA and the library was built."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    if not built:
        (directory / _library.CUDA_LIBRARY).unlink()
    paths = [directory / _library.CPU_LIBRARY, directory / _library.CUDA_LIBRARY][:count]
    assert _library.library_paths(directory) == paths
    monkeypatch.setenv(_library.LIBRARY_VARIABLE, "/elsewhere/library.so")
    assert _library.library_paths(directory) == [Path("/elsewhere/library.so"), *paths[1:]]


def test_a_second_registration_is_refused(directory):
    with pytest.raises(ImportError, match=r"registered already, .*only one"):
        _library.load(_library.library_paths(directory))


def test_every_path_is_named_with_what_became_of_it(tmp_path, monkeypatch):
    """As when the CPU library loads and the CUDA library does not."""
    loaded = _library.library_paths(Path(_library.__file__).parents[1])[0]
    broken = tmp_path / _library.CUDA_LIBRARY
    # Nothing is registered under this name; the path that is loaded already is not loaded twice.
    monkeypatch.setattr(_library, "NAMESPACE", "circulant_attention_test")
    with pytest.raises(ImportError) as caught:
        _library.load([loaded, broken])
    lines = str(caught.value).split("\n")
    assert f"  {loaded}: loaded" in lines
    assert any(line.startswith(f"  {broken}: ") and "No such file" in line for line in lines)


def test_a_library_that_cannot_be_loaded_is_named_with_its_reason(tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    environment = {**os.environ, _library.LIBRARY_VARIABLE: str(broken)}
    ran = subprocess.run(
        [sys.executable, "-c", "import circulant_attention"],
        env=environment,
        cwd=Path(_library.__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "ImportError: the native library of circulant_attention cannot be loaded" in ran.stderr
    assert f"{broken}: " in ran.stderr
    assert "file too short" in ran.stderr or "invalid ELF header" in ran.stderr
    assert "Build it with" in ran.stderr
