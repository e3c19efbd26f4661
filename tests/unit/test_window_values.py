"""Absent entries of truncated windows: zeros that no function changes and no reduction sees."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from windows import TRUNCATED, Dim, dense, mask, sizes, table, window

import circulant_attention as ca
from circulant_attention import Circulant, DotSimilarity, Window

DIMS = (Dim(4, 2, 1, 1, TRUNCATED), Dim(5, 1, 1, 2, TRUNCATED))


def matrix(device, low=-0.9):
    """A Circulant of entries from ``low`` to 0.9, and the same dense."""
    torch.manual_seed(0)
    keys = table(DIMS)
    values = (low + (0.9 - low) * torch.rand(2, 3, *keys.shape, dtype=torch.float64)) * (keys >= 0)
    return Circulant(values.flatten(2).to(device), window(DIMS), sizes(DIMS)), dense(values, DIMS)


ONE_ARGUMENT = [
    *("abs", "absolute", "arcsin", "arcsinh", "arctan", "arctanh", "asin", "asinh", "atan"),
    *("atanh", "ceil", "deg2rad", "erf", "erfinv", "expm1", "fix", "floor", "frac", "log1p"),
    *("neg", "negative", "positive", "rad2deg", "relu", "sgn", "sign", "sin", "sinh", "sqrt"),
    *("square", "tan", "tanh", "trunc", "nan_to_num", "round", "conj", "clone"),
]

FUNCTIONS = {
    **{name: (lambda A, B, name=name: getattr(A, name)()) for name in ONE_ARGUMENT},
    **{f"times {m}": (lambda A, B, m=m: A * m) for m in (2, 0, inf, -inf, nan)},
    **{f"over {m}": (lambda A, B, m=m: A / m) for m in (2, 0, 0.0, inf, nan, 0j)},
    **{
        f"times a tensor of {m}": (lambda A, B, m=m: A * torch.tensor(m, device=A.device))
        for m in (2.0, inf)
    },
    "over a tensor": lambda A, B: A / torch.zeros(3, 1, 1, device=A.device),
    **{f"plus {m} times": (lambda A, B, m=m: A.add(B, alpha=m)) for m in (2, inf)},
    "minus infinity times": lambda A, B: A.sub(B, alpha=inf),
    "a sum of products": lambda A, B: A * inf + B / 0,
    "lerp": lambda A, B: A.lerp(B, 0.5),
    "lerp far": lambda A, B: A.lerp(B, inf),
    "lerp by a tensor": lambda A, B: A.lerp(B, A.values.new_full((3, 1, 1), inf)),
    "product": lambda A, B: A * B,
    "minimum": lambda A, B: A.minimum(B),
    "maximum": lambda A, B: A.maximum(B),
    "power": lambda A, B: A**3,
    "root": lambda A, B: A**0.5,
    "clamp": lambda A, B: A.clamp(-0.5, 0.5),
    "nan to one": lambda A, B: (A / 0).nan_to_num(1.0, 2.0, 3.0),
    "softmax": lambda A, B: (A * 1e30).softmax(),
    "transposed": lambda A, B: (A / 0).mT.mT,
    "halved": lambda A, B: (A / 0).half().double(),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_absent_entries_stay_zero(function, device):
    A, _ = matrix(device)
    B, _ = matrix(device, 0.1)
    result = function(A, B)
    absent = (table(DIMS) < 0).to(device).flatten()
    assert (result.values[..., absent] == 0).all()


def test_reductions_do_not_see_them():
    A, D = matrix("cpu", 0.1)
    infinite, wanted = A / 0, D / 0
    present = mask(DIMS)
    assert torch.equal(infinite.sum(-1), wanted.nan_to_num(0, inf).sum(-1))
    assert torch.equal(infinite.sum(-2), wanted.nan_to_num(0, inf).sum(-2))
    assert infinite.sum() == infinite.mean() == inf
    assert (infinite.data.values() == inf).all()
    assert infinite.data._nnz() == present.sum()
    assert torch.equal(infinite.to_dense() == inf, present.expand_as(D))
    assert (infinite.to_scipy(batch=0, head=1).data == inf).all()
    # An absent zero would be the highest of negative scores.
    low = -1000 - A.abs().values
    rows = A.with_values(low).softmax()
    expected = (-1000 - D).masked_fill(~present, -inf).softmax(-1)
    torch.testing.assert_close(rows.to_dense(), expected)
    x = torch.randn(6, 2, *sizes(DIMS), dtype=torch.float64).abs() + 1
    assert (infinite @ x == inf).all()
    assert (infinite.mT @ x == inf).all()


@pytest.mark.parametrize("root", [lambda A: A.sqrt(), lambda A: A**0.5, lambda A: A**1.5])
def test_infinite_derivatives_at_zero_do_not_reach_the_features(root):
    torch.manual_seed(0)
    x = torch.rand(1, 2, *sizes(DIMS), dtype=torch.float64) + 0.1

    def total(x):
        return root(ca.circulant_similarity(DotSimilarity(), x, x, window(DIMS))).sum()

    assert torch.autograd.gradcheck(total, x.requires_grad_(), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(total, x)


WINDOWS = [
    Window(((2, 0), 3), boundary="truncated"),
    Window(4, boundary=("truncated", "circular")),
    Window(3, dilation=2),
    Window((3, (1, 0)), dilation=(1, 2), boundary="truncated"),
]


# Dynamo itself instantiates the autograd.Function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("W", WINDOWS, ids=str)
def test_one_graph_serves_all_sizes(W):
    def attend(q, k, v):
        y, A = ca.circulant_attention(q, k, v, W)
        S = ca.circulant_similarity(DotSimilarity(), q, k, W)
        return y, S.softmax() @ v, A.mT @ v, (S * 2).sum(-1)

    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        # The default scale is a number that depends on the channels.
        for shape in ((2, 3, 7, 6), (3, 3, 8, 9)):
            inputs = [torch.randn(shape, requires_grad=True) for _ in range(3)]
            results = []
            for function in (compiled, attend):
                outputs = function(*inputs)
                loss = sum(one.square().sum() for one in outputs)
                results.append([*outputs, *torch.autograd.grad(loss, inputs)])
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other)
