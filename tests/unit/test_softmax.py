"""The row softmax and its gradient: values, second order, and bits for any number of threads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import REAL_DTYPES, SIMILARITIES
from rounding import eps
from same_bits import check_threads
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import circulant_attention as ca
from circulant_attention.ops.softmax import softmax

native = torch.ops.circulant_attention.softmax_backward


def exact(grad: Tensor, weights: Tensor) -> Tensor:
    grad, weights = grad.double(), weights.double()
    return weights * (grad - (weights * grad).sum(-1, keepdim=True))


@pytest.mark.parametrize("dtype", REAL_DTYPES, ids=str)
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40),
    width=st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 31, 63, 64, 65, 225, 1225]),
    seed=st.integers(0, 2**16),
)
def test_native_gradient(dtype: torch.dtype, rows: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    grad = torch.randn(2, rows, width).to(dtype)
    weights = torch.randn(2, rows, width).softmax(-1).to(dtype)
    result = native(grad, weights)
    assert result.dtype == dtype
    # A dot product of `width` terms in float32 at least, a difference, a product, a rounding.
    accumulated = eps(torch.float64 if dtype == torch.float64 else torch.float32)
    size = weights.double() * (grad.double().abs() + (weights * grad).double().abs().sum(-1, True))
    bound = (width + 3) * accumulated * size + 2 * eps(dtype) * exact(grad, weights).abs()
    error = (result.double() - exact(grad, weights)).abs()
    # The smallest positive number of the half types, where rounding is absolute.
    assert (error <= bound + torch.finfo(dtype).smallest_normal * eps(dtype)).all()


def test_native_gradient_takes_any_layout() -> None:
    grad, weights = torch.randn(5, 7, 3).mT, torch.rand(5, 7, 3).mT
    assert_close(native(grad, weights), exact(grad, weights).float())
    assert_close(native(grad[:, :0], weights[:, :0]), grad[:, :0].contiguous())
    expanded = torch.ones(()).expand(5, 3, 7)
    assert_close(native(expanded, weights), exact(expanded, weights).float())


def test_native_gradient_keeps_infinities_in_their_rows() -> None:
    grad, weights = torch.randn(4, 9), torch.rand(4, 9)
    grad[1, 2] = torch.inf
    weights[3, 0] = torch.nan
    result = native(grad, weights)
    assert result[[0, 2]].isfinite().all()
    assert result[[1, 3]].isnan().any(-1).all()


@pytest.mark.parametrize(
    ("grad", "weights"),
    [
        (torch.ones(2, 3), torch.ones(2, 4)),
        (torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64)),
        (torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long)),
    ],
    ids=["shape", "dtypes", "dtype"],
)
def test_native_gradient_refuses(grad: Tensor, weights: Tensor) -> None:
    with pytest.raises(RuntimeError, match="softmax_backward"):
        native(grad, weights)


def test_derivatives() -> None:
    values = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(softmax, values, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(softmax, values)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_gradients_through_a_have_the_same_bits_for_any_number_of_threads(name: str) -> None:
    """torch's gradient of a softmax does not."""
    x, v = torch.randn(2, 1, 4, 40, 37)
    x.requires_grad_()

    def gradients() -> tuple[Tensor, ...]:
        a = ca.circulant_adjacency(SIMILARITIES[name], x, x, 9)
        first = torch.autograd.grad((a @ v).square().sum(), x)
        _, a = ca.circulant_attention(SIMILARITIES[name], x, x, v, 9)
        second = torch.autograd.grad((a @ v).square().sum(), x)
        s = ca.circulant_similarity(SIMILARITIES[name], x, x, 9)
        third = torch.autograd.grad((ca.softmax(s) @ v).square().sum(), x, create_graph=True)
        return *first, *second, *third, *torch.autograd.grad(third[0].square().sum(), x)

    check_threads(gradients)
