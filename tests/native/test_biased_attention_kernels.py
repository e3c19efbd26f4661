"""Biased attention with any window, against dense matrices made from the definition."""

from __future__ import annotations

import biases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import check_threads
from test_window_kernels import DTYPES, LARGE, check_close
from torch import Tensor
from windows import CIRCULAR, TRUNCATED, VALID, Dims, key_sizes, native, sizes, windows

ops = torch.ops.circulant_attention

HALVES = DTYPES[2:]


def random_biases(
    dims: Dims, heads: int | None, rows: int | None, absent: float, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """A bias of ``heads`` rows and a key bias of ``rows``; a part ``absent`` of each is -inf."""
    dtype = torch.float32 if dtype in HALVES else dtype
    offsets = torch.Size([dim.before + dim.after + 1 for dim in dims]).numel()
    keys = torch.Size(key_sizes(dims)).numel()

    def random(count: int | None, width: int) -> Tensor | None:
        if count is None:
            return None
        x = torch.randn(count, width, dtype=dtype)
        return x.masked_fill(torch.rand(count, width) < absent, -torch.inf)

    return random(heads, offsets), random(rows, keys)


def check_attention(
    dims: Dims,
    dtype: torch.dtype,
    groups: int,
    channels: int,
    kind: int,
    bias: Tensor | None,
    key_bias: Tensor | None,
    scale: float,
) -> None:
    """The op and its gradients, against autograd of the dense formula."""
    W = native(dims)
    q, dy = torch.randn(2, groups, channels, *sizes(dims)).to(dtype)
    k, v = torch.randn(2, groups, channels, *key_sizes(dims)).to(dtype)
    y, lse = ops.biased_attention(q, k, v, bias, key_bias, W, kind, scale)
    dlse = torch.randn_like(lse)

    exact = [x.double().flatten(2).requires_grad_() for x in (q, k, v)]
    exact += [x if x is None else x.double().requires_grad_() for x in (bias, key_bias)]
    expected = biases.attention(*exact, dims, kind, scale)
    terms = 16 * channels
    check_close(y, expected.y.detach(), terms)
    empty = expected.lse == -torch.inf
    assert torch.equal(lse == -torch.inf, empty)
    check_close(lse.where(~empty, 0), expected.lse.where(~empty, 0).detach(), terms)
    assert (y.flatten(2).mT[empty] == 0).all()

    found = ops.biased_attention_backward(dy, q, k, v, bias, key_bias, y, lse, dlse, W, kind, scale)
    inputs = [x for x in exact if x is not None]
    seeds = [dy.double().flatten(2), dlse.double().where(~empty, 0)]
    outputs = [expected.y, expected.lse.where(~empty, 0)]
    gradients = iter(torch.autograd.grad(outputs, inputs, seeds))
    assert (found[0].flatten(2).mT[empty] == 0).all()

    # delta is computed from y, which is rounded: so much may each gradient of a score be off.
    rounding = torch.finfo(dtype).eps if dtype in HALVES else 0
    magnitude = (dy.double() * y.double()).abs().sum(1).flatten(1)
    errors = rounding * expected.weights.detach() * magnitude[..., None]
    of_biases = biases.sum_over_offsets(errors.sum(0), dims).max(), errors.sum((0, 1)).max()
    for at, (own, x) in enumerate(zip(found, exact, strict=True)):
        if x is None:
            assert own.numel() <= 1
            continue
        wanted = next(gradients)
        if at >= 3:
            rounded = 64 * terms * torch.finfo(own.dtype).eps
            bound = of_biases[at - 3] + rounded * wanted.abs().max().clamp(min=1)
            assert (own.double() - wanted).abs().max() <= bound
        elif rounding:
            bound = 64 * channels * rounding * wanted.abs().max().clamp(min=1)
            assert (own.double() - wanted.reshape(own.shape)).abs().max() <= bound
        else:
            check_close(own, wanted, terms * 8)


@pytest.mark.parametrize("dims", LARGE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_values_on_cuts(dims, dtype):
    torch.manual_seed(0)
    both = random_biases(dims, 2, 1, 0.1, dtype)
    check_attention(dims, dtype, 2, 3, 1, *both, 0.6)
    check_attention(dims, dtype, 2, 3, 0, None, both[1], 0.6)


@given(
    windows(boundaries=(CIRCULAR, TRUNCATED, VALID)),
    st.sampled_from(DTYPES),
    st.sampled_from([(1, 1, 1), (2, 1, 2), (2, 2, 1), (4, 2, 2), (6, None, 3), (6, 3, None)]),
    st.sampled_from([1, 3, 17]),
    st.sampled_from([0, 1]),
    st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    st.sampled_from([0.0, 0.5, -1.0]),
    st.integers(0, 2**30),
)
@settings(deadline=None, max_examples=100)
def test_values_of_random_windows(dims, dtype, rows, channels, kind, absent, scale, seed):
    """Of any biases too: with rows without keys, and at scale 0."""
    torch.manual_seed(seed)
    groups, *counts = rows
    # The scores are of order one.
    scale = scale * channels**-0.5 if kind == 0 else abs(scale) / channels
    both = random_biases(dims, *counts, absent, dtype)
    check_attention(dims, dtype, groups, channels, kind, *both, scale)


@pytest.mark.parametrize("dims", LARGE, ids=str)
def test_the_same_bits_for_any_number_of_threads(dims):
    torch.manual_seed(0)
    W = native(dims)
    q, dy = torch.randn(2, 4, 3, *sizes(dims))
    k, v = torch.randn(2, 4, 3, *key_sizes(dims))
    both = random_biases(dims, 2, 2, 0.1, torch.float32)

    def compute() -> list[Tensor]:
        y, lse = ops.biased_attention(q, k, v, *both, W, 0, 0.5)
        back = ops.biased_attention_backward(dy, q, k, v, *both, y, lse, None, W, 0, 0.5)
        return [y, lse, *back]

    check_threads(compute)


def test_values_without_biases_have_the_bits_of_attention():
    torch.manual_seed(0)
    q, k, v, dy = torch.randn(4, 2, 5, 20, 33)
    W = [5, 7]
    for kind in (0, 1):
        plain = ops.attention(q, k, v, W, kind, 0.5)
        y, lse = ops.biased_attention(q, k, v, None, None, W, kind, 0.5)
        assert torch.equal(y, plain[0])
        assert torch.equal(lse, plain[1])
        expected = ops.attention_backward(dy, q, k, v, y, lse, W, kind, 0.5)
        found = ops.biased_attention_backward(dy, q, k, v, None, None, y, lse, None, W, kind, 0.5)
        for one, other in zip(expected, found[:3], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [0, 1])
def test_values_of_a_mask_are_those_of_a_smaller_window(kind):
    """-inf at the outer offsets leaves a window of the other ones."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 5, 12, 33, dtype=torch.float64)
    bias = torch.full((1, 5, 7), -torch.inf, dtype=torch.float64)
    bias[:, 1:4, 2:5] = 0
    found = ops.biased_attention(q, k, v, bias.flatten(1), None, [5, 7], kind, 0.5)
    for one, other in zip(found, ops.attention(q, k, v, [3, 3], kind, 0.5), strict=True):
        check_close(one, other, 80)


BAD = {
    "columns": ((2, 8), None, "bias must have 9 columns"),
    "rows": ((3, 9), None, "rows of bias must divide the 4 groups, got 3"),
    "no rows": ((0, 9), None, "rows of bias must divide the 4 groups, got 0"),
    "dims": ((1, 2, 9), None, "bias must have 9 columns"),
    "keys": (None, (1, 29), "key_bias must have 30 columns"),
    "rows of keys": (None, (8, 30), "rows of key_bias must divide the 4 groups, got 8"),
}


@pytest.mark.parametrize("shape, key_shape, message", BAD.values(), ids=BAD)
def test_refuses_biases(shape, key_shape, message):
    x = torch.randn(4, 2, 5, 6)
    both = [None if s is None else torch.zeros(s) for s in (shape, key_shape)]
    with pytest.raises(RuntimeError, match=message):
        ops.biased_attention(x, x, x, *both, [3, 3], 0, 1.0)


def test_refuses_other_dtypes():
    x = torch.randn(4, 2, 5, 6).half()
    with pytest.raises(RuntimeError, match="bias must be Float, got Half"):
        ops.biased_attention(x, x, x, x.new_zeros(1, 9), None, [3, 3], 0, 1.0)
