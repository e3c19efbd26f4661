"""The examples that train reach the figure that they state, on the data of other packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAININGS = sorted((ROOT / "examples").glob("train_*.py"))


def test_each_attention_has_a_training():
    names = {path.stem.removeprefix("train_") for path in TRAININGS}
    assert names == {"circulant", "axial", "cosine", "fused"}


@pytest.mark.thorough
@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_training_reaches_what_it_states(path):
    """Each asserts its figure at the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, path], env=environment, capture_output=True, text=True, cwd=path.parent
    )
    assert done.returncode == 0, done.stderr
    assert "(at least " in done.stdout
