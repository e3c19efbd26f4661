"""Derivatives of every public function, first and second, reverse and forward, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from inputs import SIMILARITIES
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import circulant_attention as ca
from circulant_attention import Circulant, DotSimilarity

GRIDS = {
    "1d": ((5,), 3),
    "2d": ((3, 4), (1, 3)),
    "3d": ((3, 1, 3), (3, 1, 1)),
}
DTYPES = {"real": torch.float64, "complex": torch.complex128}

Function = Callable[..., "Tensor | tuple[Tensor, ...]"]


def features(
    spatial: tuple[int, ...], dtype: torch.dtype, device: str, channels: int = 2
) -> Tensor:
    return torch.randn(1, channels, *spatial, dtype=dtype, device=device, requires_grad=True)


def check(function: Function, *inputs: Tensor) -> None:
    """First derivatives in both modes, batched by vmap too, and second derivatives in both modes.

    Second derivatives are compared along random directions ("fast mode"), which a wrong formula
    fails as surely; the first are compared entry by entry.
    """
    assert gradcheck(
        function,
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(
        function, inputs, check_fwd_over_rev=True, check_batched_grad=True, fast_mode=True
    )


# Complex numbers and the number of dims meet in no formula.
cases = pytest.mark.parametrize(
    ("grid", "dtype"), [("1d", "real"), ("2d", "real"), ("2d", "complex"), ("3d", "real")]
)


@pytest.fixture(params=SIMILARITIES.values(), ids=SIMILARITIES.keys())
def simfun(request: pytest.FixtureRequest) -> ca.AbstractSimilarity:
    return request.param


@cases
def test_similarity(grid, dtype, simfun, device: str) -> None:
    spatial, window = GRIDS[grid]
    x, y = (features(spatial, DTYPES[dtype], device) for _ in range(2))
    check(lambda x, y: ca.circulant_similarity(simfun, x, y, window).values, x, y)


def test_adjacency_of_heads(simfun, device: str) -> None:
    x, y = (features((4, 3), torch.float64, device, 4) for _ in range(2))
    check(lambda x, y: ca.circulant_mh_adjacency(simfun, x, y, (1, 3), 2).values, x, y)


@cases
def test_attention(grid, dtype, simfun, device: str) -> None:
    spatial, window = GRIDS[grid]
    q, k, v = (features(spatial, DTYPES[dtype], device, channels) for channels in (2, 2, 3))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y, a = ca.circulant_attention(simfun, q, k, v, window)
        return y, a.values

    check(attend, q, k, v)


def test_attention_of_heads(simfun, device: str) -> None:
    q, k = (features((4,), torch.complex128, device, 4) for _ in range(2))
    v = features((4,), torch.complex128, device, 2)
    check(lambda q, k, v: ca.circulant_mh_attention(simfun, q, k, v, 3, 2)[0], q, k, v)


APPLICATIONS = {
    "apply": lambda a, x: a @ x,
    "transposed": lambda a, x: ca.circulant_transposed_attention(a, x),
    "adjoint": lambda a, x: a.mH @ x,
    "transposed entries": lambda a, x: (a.mT * 2) @ x,
}


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.parametrize(
    ("grid", "values_dtype", "dtype"),
    [("1d", "real", "real"), ("3d", "real", "real")]
    + [("2d", *dtypes) for dtypes in itertools.product(DTYPES, repeat=2)],
)
def test_application(name: str, grid, values_dtype, dtype, device: str) -> None:
    spatial, window = GRIDS[grid]
    entries = ca.Circulant(window, (1, 1, *spatial)).nnz
    values = torch.randn(1, 1, entries, dtype=DTYPES[values_dtype], device=device).requires_grad_()
    x = features(spatial, DTYPES[dtype], device)
    check(lambda v, x: APPLICATIONS[name](Circulant(v, window, spatial), x), values, x)


MATRIX_FUNCTIONS: dict[str, Callable[[Circulant], Tensor | Circulant]] = {
    "softmax": ca.softmax,
    "transpose": lambda a: a.mT,
    "row sums": lambda a: a.sum(-1),
    "column sums": lambda a: a.sum(-2),
    "sum of heads": lambda a: a.sum(1),
    "sum of batch and heads": lambda a: a.sum((0, 1)),
    "sum": lambda a: a.sum(),
    "dense": lambda a: a.to_dense(),
    "column": lambda a: a[..., 2],
    "head": lambda a: a[:, 1],
    "repeat": lambda a: a.repeat(2, 1, 1, 1),
    "reshape": lambda a: a.reshape(2, 1, *a.shape[2:]),
    "cat": lambda a: ca.cat(a, 2 * a, dim=1),
    "dot": lambda a: ca.dot(a, a * a.values.sum()),
    "mix": lambda a: 2 * a - a / 3 + (-a),
}


@pytest.mark.parametrize("name", MATRIX_FUNCTIONS)
def test_functions_of_a_matrix(name: str, device: str) -> None:
    values = torch.randn(1, 2, 27, dtype=torch.float64, device=device, requires_grad=True)

    def function(values: Tensor) -> Tensor:
        result = MATRIX_FUNCTIONS[name](Circulant(values, (1, 3), (3, 3)))
        return result.values if isinstance(result, Circulant) else result

    check(function, values)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_scale(dtype: torch.dtype, device: str) -> None:
    """Both sides broadcast, as in Julia's rule test, and both get a gradient."""
    values = torch.randn(2, 1, 45, dtype=torch.float64, device=device, requires_grad=True)
    m = torch.randn(1, 3, 1, 1, dtype=dtype, device=device, requires_grad=True)
    check(lambda m, v: (m * Circulant(v, 3, (15,)).to(dtype)).values, m, values)


@pytest.mark.parametrize("subset", list(itertools.product([False, True], repeat=3))[1:])
def test_each_subset_of_inputs(subset: tuple[bool, ...], simfun, device: str) -> None:
    """Gradients come for what asks for them, equal those of all together, and for nothing else."""
    inputs = [features((5, 4), torch.float64, device) for _ in range(3)]
    full = torch.autograd.grad(ca.circulant_attention(simfun, *inputs, 3)[0].pow(2).sum(), inputs)
    chosen = [x.detach().requires_grad_(wanted) for x, wanted in zip(inputs, subset, strict=True)]
    ca.circulant_attention(simfun, *chosen, 3)[0].pow(2).sum().backward()
    for x, wanted, expected in zip(chosen, subset, full, strict=True):
        assert (x.grad is not None) == wanted
        if wanted:
            torch.testing.assert_close(x.grad, expected)


def test_gradients_of_values_are_never_dense(device: str) -> None:
    """With 4096 pixels a dense matrix would have 16 million entries; nothing comes near."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for x in torch.utils._pytree.tree_leaves(out):
                if isinstance(x, Tensor):
                    largest = max(largest, x.numel())
            return out

    x = torch.randn(1, 2, 64, 64, device=device, requires_grad=True)
    with Watch():
        y, a = ca.circulant_attention(x, x, x, 3)
        (y.pow(2).sum() + (a.mT @ x).sum() + a.sum(-2).pow(2).sum()).backward()
    assert 64 * 64 * 9 <= largest <= 2 * 64 * 64 * 9


def test_data_is_differentiable_once(device: str) -> None:
    """Through torch's own sparse operations: the entries, their sum, the product of a slice."""
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, device=device, requires_grad=True)
    y = torch.randn(16, 3, dtype=torch.float64, device=device)
    a = ca.circulant_similarity(DotSimilarity(), x, x, 3)
    pairs = {
        "entries": (a.data.values().pow(2).sum(), a.values.pow(2).sum()),
        "sum": (torch.sum(a.data), a.sum()),
        "product": ((a.data[0, 0] @ y).sin().sum(), (a.to_dense()[0, 0] @ y).sin().sum()),
    }
    for from_data, from_values in pairs.values():
        torch.testing.assert_close(from_data, from_values)
        got, expected = (
            torch.autograd.grad(total, x, retain_graph=True) for total in (from_data, from_values)
        )
        torch.testing.assert_close(got, expected)
