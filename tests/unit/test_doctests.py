"""Every example in the package's docstrings runs and gives what it shows."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import circulant_attention

ROOT = Path(circulant_attention.__file__).parent
# The native library beside the modules is none of them, and __main__ runs the demo.
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.stem != "__main__"]
MODULES = [
    importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    for path in FILES
    if path.stem != "__init__"
]
# What the examples take as known.
NAMES = {
    "torch": torch,
    **{name: getattr(circulant_attention, name) for name in circulant_attention.__all__},
}
EXAMPLES = [
    test for module in MODULES for test in doctest.DocTestFinder().find(module) if test.examples
]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test):
    test.globs.update(NAMES)
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not result.failed, "".join(said)


def test_examples_are_found():
    found = {test.name.rpartition(".")[2] for test in EXAMPLES}
    assert {"Circulant", "circulant_attention", "kernel_length", "DotSimilarity"} <= found
    assert {"_MultiHead", "sum", "softmax", "values", "CosAttn1d", "patches"} <= found
