"""The native ops with any window, against dense matrices made from the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from windows import (
    CIRCULAR,
    TRUNCATED,
    VALID,
    Dim,
    Dims,
    dense,
    key_sizes,
    mask,
    native,
    sizes,
    table,
    windows,
)

ops = torch.ops.circulant_attention

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]

# Windows on cuts of the kernels: segments, blocks of columns and of rows, classes of rows that the
# dilation does not divide, halos longer than the grid.
LARGE = [
    (Dim(356, 183, 166, 1, TRUNCATED),),
    (Dim(300, 4, 4, 1, TRUNCATED),),
    (Dim(900, 150, 151, 1, CIRCULAR),),
    (Dim(700, 90, 0, 3, TRUNCATED),),
    (Dim(300, 140, 160, 1, VALID),),
    (Dim(29, 1, 2, 1, CIRCULAR), Dim(27, 4, 3, 2, TRUNCATED)),
    (Dim(70, 2, 2, 2, TRUNCATED), Dim(20, 2, 2, 1, CIRCULAR)),
    (Dim(65, 4, 3, 3, CIRCULAR), Dim(17, 1, 1, 1, CIRCULAR)),
    (Dim(64, 6, 0, 1, TRUNCATED), Dim(19, 6, 0, 1, TRUNCATED)),
    (Dim(3, 3, 20, 2, VALID), Dim(20, 1, 1, 1, CIRCULAR)),
    (Dim(12, 2, 1, 2, TRUNCATED), Dim(7, 1, 1, 1, CIRCULAR), Dim(9, 1, 1, 1, CIRCULAR)),
    # Classes of planes of different sizes, absent keys at both ends of a long row, packed rows that
    # are not whole cache lines.
    (Dim(7, 1, 1, 2, TRUNCATED), Dim(5, 1, 2, 2, TRUNCATED), Dim(3, 1, 1, 1, CIRCULAR)),
    (Dim(1425, 0, 1, 2, TRUNCATED),),
    (Dim(2, 1, 0, 3, TRUNCATED), Dim(191, 25, 26, 3, CIRCULAR)),
    # Two classes of columns, with and without borders, whole and in segments.
    (Dim(5, 1, 1, 1, CIRCULAR), Dim(97, 7, 7, 2, CIRCULAR)),
    (Dim(5, 1, 1, 1, CIRCULAR), Dim(97, 7, 7, 2, TRUNCATED)),
    (Dim(640, 150, 160, 2, CIRCULAR),),
    (Dim(640, 150, 160, 2, TRUNCATED),),
]


def check_close(found: Tensor, expected: Tensor, terms: int) -> None:
    """Equal up to the rounding of sums of ``terms`` products of numbers of order one."""
    dtype = found.dtype
    assert found.isfinite().all()
    sums = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    error = 8 * torch.finfo(dtype).eps + 8 * terms * torch.finfo(sums).eps
    scale = expected.abs().max().clamp(min=1).item()
    assert (found.double() - expected.reshape(found.shape)).abs().max() <= error * scale


def check_linear_ops(dims: Dims, dtype: torch.dtype, groups: int, channels: int, kind: int) -> None:
    """similarity, both products and the transposition."""
    W, present = native(dims), table(dims) >= 0
    x, y = (
        torch.randn(groups, channels, *sizes(dims)),
        torch.randn(groups, channels, *key_sizes(dims)),
    )
    x, y = x.to(dtype), y.to(dtype)
    similarity = ops.similarity(x, y, W, kind)
    assert (similarity[:, ~present] == 0).all()
    rows, columns = x.double().flatten(2).mT, y.double().flatten(2)
    expected = rows @ columns
    if kind:
        expected = -0.5 * (rows[..., None] - columns[:, None]).square().sum(2)
    check_close(dense(similarity, dims), expected * mask(dims), channels)

    weights = ops.adjacency(x, y, W, kind, 0.5)
    assert (weights[:, ~present] == 0).all()
    scores = (0.5 * expected).masked_fill(~mask(dims), -torch.inf)
    check_close(dense(weights, dims), scores.softmax(-1), 16 * channels)

    values = (torch.randn(groups, *present.shape) * present).to(dtype)
    A, K = dense(values, dims).double(), present.shape[1]
    check_close(ops.apply(values, y, W), columns @ A.mT, K)
    check_close(ops.apply_transposed(values, x, W), rows.mT @ A, max(present.shape))
    if all(dim.boundary != VALID for dim in dims):
        flipped = tuple(dim.mirrored() for dim in dims)
        found = ops.transpose(values, sizes(dims), W)
        assert torch.equal(dense(found, flipped).double(), A.mT)
        assert (found[:, table(flipped) < 0] == 0).all()


def check_attention(dims: Dims, dtype: torch.dtype, groups: int, channels: int, kind: int) -> None:
    """Fused attention and its gradients, against autograd of the dense formula."""
    W, scale = native(dims), channels**-0.5
    q, dy = torch.randn(2, groups, channels, *sizes(dims)).to(dtype)
    k, v = torch.randn(2, groups, channels, *key_sizes(dims)).to(dtype)
    y, lse = ops.attention(q, k, v, W, kind, scale)
    exact = [x.double().flatten(2).requires_grad_() for x in (q, k, v)]
    scores = exact[0].mT @ exact[1]
    if kind:
        scores = -0.5 * (exact[0].mT[..., None] - exact[1][:, None]).square().sum(2)
    scores = (scale * scores).masked_fill(~mask(dims), -torch.inf)
    expected = exact[2] @ scores.softmax(-1).mT
    terms = 16 * channels
    check_close(y, expected.detach(), terms)
    check_close(lse, scores.logsumexp(-1).detach(), terms)
    found = ops.attention_backward(dy, q, k, v, y, lse, W, kind, scale)
    gradients = torch.autograd.grad(expected, exact, dy.double().flatten(2))
    for own, wanted in zip(found, gradients, strict=True):
        # delta is computed from y, which is rounded.
        rounded = torch.finfo(dtype).eps if dtype in DTYPES[2:] else 0
        bound = 64 * channels * rounded * wanted.abs().max().clamp(min=1)
        if rounded:
            assert (own.double() - wanted.reshape(own.shape)).abs().max() <= bound
        else:
            check_close(own, wanted, terms * 8)


@pytest.mark.parametrize("dims", LARGE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_values_on_cuts(dims, dtype):
    torch.manual_seed(0)
    check_linear_ops(dims, dtype, 1, 3, 0)
    check_attention(dims, dtype, 1, 3, 1)


@given(
    windows(boundaries=(CIRCULAR, TRUNCATED, VALID)),
    st.sampled_from(DTYPES),
    st.integers(1, 3),
    st.sampled_from([1, 3, 17]),
    st.sampled_from([0, 1]),
    st.integers(0, 2**30),
)
@settings(deadline=None, max_examples=60)
def test_values_of_random_windows(dims, dtype, groups, channels, kind, seed):
    torch.manual_seed(seed)
    check_linear_ops(dims, dtype, groups, channels, kind)
    check_attention(dims, dtype, groups, channels, kind)


@given(
    windows(boundaries=(CIRCULAR, TRUNCATED, VALID)),
    st.sampled_from(DTYPES),
    st.integers(1, 17),
    st.integers(0, 2**30),
)
@settings(deadline=None, max_examples=60)
def test_infinite_entries_reach_their_pixels_only(dims, dtype, channels, seed):
    """Near a border, a product reads neither entries of other pixels nor absent ones."""
    torch.manual_seed(seed)
    W, present = native(dims), table(dims) >= 0
    infinite = (torch.rand(1, *present.shape) < 0.05) & present
    values = torch.rand(1, *present.shape).mul(present).masked_fill(infinite, torch.inf).to(dtype)
    reached = dense(infinite.to(dtype), dims) > 0
    x = torch.rand(1, channels, *sizes(dims)).add(0.5).to(dtype)
    y = torch.rand(1, channels, *key_sizes(dims)).add(0.5).to(dtype)
    for found, pixels in (
        (ops.apply(values, y, W), reached.any(2)),
        (ops.apply_transposed(values, x, W), reached.any(1)),
    ):
        assert not found.isnan().any()
        assert torch.equal(found.flatten(2).isinf(), pixels[:, None].expand(-1, channels, -1))


@pytest.mark.parametrize("dims", LARGE, ids=str)
def test_the_same_bits_for_any_number_of_threads(dims):
    torch.manual_seed(0)
    W = native(dims)
    q, dy = torch.randn(2, 1, 3, *sizes(dims))
    k, v = torch.randn(2, 1, 3, *key_sizes(dims))
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            A = ops.adjacency(q, k, W, 0, 0.5)
            y, lse = ops.attention(q, k, v, W, 0, 0.5)
            gradients = ops.attention_backward(dy, q, k, v, y, lse, W, 0, 0.5)
            products = ops.apply(A, v, W), ops.apply_transposed(A, dy, W)
            similarity = ops.similarity(q, k, W, 0)
            results.append([A, similarity, y, lse, *gradients, *products])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@given(windows(boundaries=(VALID, CIRCULAR)), st.integers(0, 2**30))
@settings(deadline=None, max_examples=30)
def test_valid_on_wrapped_keys_is_circular_bit_by_bit(dims, seed):
    """Except for the order of the values, and where a halo does not wrap once."""
    if not all(dim.reach < dim.size for dim in dims):
        return
    torch.manual_seed(seed)
    circular = tuple(dim._replace(boundary=CIRCULAR) for dim in dims)
    q = torch.randn(2, 3, *sizes(dims))
    k, v = torch.randn(2, 2, 3, *sizes(dims))
    wrapped = []
    for x in (k, v):
        for at, dim in enumerate(dims, 2):
            if dim.boundary == VALID:
                index = torch.arange(dim.keys) - dim.dilation * dim.before
                x = x.index_select(at, index % dim.size)
        wrapped.append(x)
    expected = ops.attention(q, k, v, native(circular), 0, 0.5)
    found = ops.attention(q, *wrapped, native(dims), 0, 0.5)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


BAD = {
    "lengths": ([1, 1], "window has 2 entries for 1 spatial dims"),
    "reach": ([-1, 1, 1, 0], "reaches of the window of dim 0 must be from 0"),
    "reach after": ([1, 2**31, 1, 1], "from 0 to 2.30, got 1 and 2147483648"),
    "dilation": ([1, 1, 0, 0], "dilation of dim 0 must be from 1"),
    "boundary": ([1, 1, 1, 3], "boundary of dim 0 must be 0"),
    "span": ([2, 2, 2, 0], "spans 9 pixels, more than the spatial size 8"),
    "halo": ([1, 1, 1, 2], "sizes of dim 2 differ: 10 and 8"),
}


@pytest.mark.parametrize("W, message", BAD.values(), ids=BAD)
def test_bad_windows(W, message):
    x = torch.randn(1, 2, 8)
    with pytest.raises(RuntimeError, match=message):
        ops.similarity(x, x, W, 0)


def test_other_refusals():
    with pytest.raises(RuntimeError, match="needs 11 keys, got 8"):
        ops.apply(torch.zeros(1, 1, 11), torch.zeros(1, 2, 8), [5, 5, 1, 2])
    with pytest.raises(RuntimeError, match="a valid window has no transposed one"):
        ops.transpose(torch.zeros(1, 8, 3), [8], [1, 1, 1, 2])
