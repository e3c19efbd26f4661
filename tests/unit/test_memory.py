"""The memory of large matrices: passes, temporaries and huge pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from expressions import EXPRESSIONS, operands
from inputs import DTYPES
from peak_memory import PeakMemory
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from circulant_attention import Circulant
from circulant_attention.ops import memory


class Writes(TorchDispatchMode):
    """Counts the ops that write a whole matrix."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements = elements
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2]
        views = ("detach", "expand", "view", "alias", "new_values", "reshape", "unsqueeze")
        if isinstance(result, Tensor) and result.numel() >= self.elements:
            if not name.startswith(views):
                self.names.append(name)
        return result


PASSES = {
    "a A": (1, 1),
    "A + B": (1, 1),
    "A - c B": (1, 1),
    "B - A / c": (1, 1),
    "A + m A": (1, 1),
    "A - B / m": (1, 1),
    "lerp": (1, 1),
    "A B": (1, 1),
    "a A + b B": (1, 1),
    "a A - b B": (1, 1),
    "m A - (1 - m) B": (1, 1),
    "c A - B": (2, 1),
    "A / m + B / c": (2, 1),
    "a A + b B + C": (2, 2),
}


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("grad", [False, True])
def test_passes_and_temporaries(name: str, grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass per factor or sum, no more matrices than sums."""
    monkeypatch.setattr(memory, "LARGE", 0)
    A, B, C, m = operands("cpu")
    for x in (A, B, C) if grad else ():
        x.requires_grad_()
    passes, matrices = PASSES[name]
    with PeakMemory() as peak, Writes(A.nnz) as writes:
        result = EXPRESSIONS[name](A, B, C, m).values
    assert len(writes.names) == passes, writes.names
    # Besides the matrices, factors of six numbers and their copies.
    assert peak.peak < matrices * result.nbytes + 1000
    assert peak.peak >= matrices * result.nbytes


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says what pages are for")
@pytest.mark.parametrize(
    "name", ["a A", "A - c B", "a A + b B", "lerp", "softmax", "abs", "A B", "clone"]
)
@pytest.mark.parametrize("grad", [False, True])
def test_large_results_are_in_huge_pages(name: str, grad: bool) -> None:
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("the system has no huge pages")
    if grad and name == "abs":
        pytest.skip("torch's derivative, and torch's memory")
    functions = {**EXPRESSIONS, "softmax": lambda A, *_: A.softmax(), "abs": lambda A, *_: A.abs()}
    functions["clone"] = lambda A, *_: A.clone()
    A = Circulant(torch.randn(1, 1, 64 * 64 * 441), 21, (64, 64))
    A.requires_grad_(grad)
    result = functions[name](A, A, A, torch.ones(())).values
    assert "hg" in flags_of(result.data_ptr() + result.nbytes // 2)


def flags_of(address: int) -> list[str]:
    """What the system knows of the memory at an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "VmFlags:":
            return rest.split()
    raise AssertionError("not mapped")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_op_makes_memory_of_any_dtype(dtype: torch.dtype) -> None:
    new_values = torch.ops.circulant_attention.new_values
    made = new_values(torch.ones(3), [2, 0, 5], dtype)
    assert (made.shape, made.dtype, made.is_contiguous()) == ((2, 0, 5), dtype, True)
    made = new_values(torch.ones(3), [2, 3], dtype)
    made.fill_(1)
    assert made.sum() == 6
