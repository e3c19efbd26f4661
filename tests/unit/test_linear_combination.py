"""The native op that adds two scaled groups of rows."""

from __future__ import annotations

import pytest
import torch
from rounding import eps
from torch import Tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("width", [1, 7, 1000, 40_001])
def test_the_native_sum(dtype: torch.dtype, width: int) -> None:
    combine = torch.ops.circulant_attention.linear_combination
    a, b = torch.randn(2, 3, width, dtype=dtype)
    for shape in ((1,), (3,)):
        alpha, beta = torch.randn(2, *shape, dtype=dtype)
        result = combine(a, alpha, b.mT.contiguous().mT, beta)
        products = alpha[:, None] * a, beta[:, None] * b
        bound = eps(dtype) * (products[0].abs() + products[1].abs()) * 2
        assert bool(((result - sum(products)).abs() <= bound).all())
    assert combine(a[:, :0], alpha, b[:, :0], beta).shape == (3, 0)
    torch.library.opcheck(combine.default, (a, alpha, b, beta))


@pytest.mark.parametrize(
    "change", [{1: torch.ones(2)}, {2: torch.ones(3, 5)}, {3: torch.ones(1).double()}], ids=str
)
def test_the_native_sum_refuses(change: dict[int, Tensor]) -> None:
    inputs = [torch.ones(3, 4), torch.ones(3), torch.ones(3, 4), torch.ones(1)]
    for at, x in change.items():
        inputs[at] = x
    with pytest.raises(RuntimeError, match="linear_combination"):
        torch.ops.circulant_attention.linear_combination(*inputs)
