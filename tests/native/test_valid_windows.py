"""Valid windows: on keys with a halo copied from the other side they are circular ones."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from windows import CIRCULAR, VALID, Dim, Dims, key_sizes, native, sizes, table, windows

from circulant_attention.ops import primitives

ops = torch.ops.circulant_attention


def wrapped(x: Tensor, dims: Dims) -> Tensor:
    """Images ``(*, *spatial)`` with the halo of valid dims."""
    for at, dim in enumerate(dims, x.dim() - len(dims)):
        if dim.boundary == VALID:
            index = torch.arange(dim.keys) - dim.dilation * dim.before
            x = x.index_select(at, index % dim.size)
    return x


def folded(x: Tensor, dims: Dims) -> Tensor:
    """The transpose of :func:`wrapped`."""
    zeros = x.new_zeros(*x.shape[: x.dim() - len(dims)], *sizes(dims), requires_grad=True)
    return torch.autograd.grad(wrapped(zeros, dims), zeros, x)[0]


def by_offsets(values: Tensor, dims: Dims) -> Tensor:
    """Values of circular dims in the slots of ``dims``, valid ones in the order of the offsets."""
    circular = tuple(dim._replace(boundary=CIRCULAR) for dim in dims)
    pixel = wrapped(torch.arange(torch.Size(sizes(dims)).numel()).view(sizes(dims)), dims).flatten()
    own, keys = table(circular), pixel[table(dims)]
    slot = (keys[:, :, None] == own[:, None, :]).int().argmax(2)
    return values.gather(2, slot.expand(len(values), -1, -1))


@given(windows(boundaries=(VALID, CIRCULAR), most=200), st.sampled_from([0, 1]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_equal_to_circular_windows(dims, kind, double):
    """In bits; sums over queries are folded in another order, and equal up to rounding."""
    assume(all(dim.reach < dim.size for dim in dims))
    torch.manual_seed(0)
    dtype = torch.float64 if double else torch.float32
    circular = native(tuple(dim._replace(boundary=CIRCULAR) for dim in dims))
    valid = native(dims)
    q, k, v, dy = torch.randn(4, 2, 3, *sizes(dims), dtype=dtype)
    keys, values = wrapped(k, dims), wrapped(v, dims)

    for op, scale in ((ops.similarity, []), (ops.adjacency, [0.5])):
        expected = op(q, k, circular, kind, *scale)
        found = op(q, keys, valid, kind, *scale)
        if op is ops.similarity:
            assert torch.equal(found, by_offsets(expected, dims))
        else:
            # The softmax adds in the order of the slots.
            torch.testing.assert_close(found, by_offsets(expected, dims))
    A = torch.randn(expected.shape, dtype=dtype)
    B = by_offsets(A, dims)
    assert torch.equal(ops.apply(B, values, valid), ops.apply(A, v, circular))
    found = folded(ops.apply_transposed(B, dy, valid), dims)
    close = {"rtol": 0, "atol": 64 * A.shape[2] * torch.finfo(dtype).eps}
    torch.testing.assert_close(found, ops.apply_transposed(A, dy, circular), **close)

    expected = ops.attention(q, k, v, circular, kind, 0.5)
    found = ops.attention(q, keys, values, valid, kind, 0.5)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    wanted = ops.attention_backward(dy, q, k, v, *expected, circular, kind, 0.5)
    found = ops.attention_backward(dy, q, keys, values, *expected, valid, kind, 0.5)
    torch.testing.assert_close(found[0], wanted[0], **close)
    for one, other in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(folded(one, dims), other, **close)


DIMS = (Dim(4, 1, 0, 2, VALID), Dim(3, 1, 1, 1, CIRCULAR))


def test_derivatives():
    """Of every op, of the first and the second order."""
    torch.manual_seed(0)
    W, real = native(DIMS), {"dtype": torch.float64, "requires_grad": True}
    q, x = (torch.randn(1, 2, *sizes(DIMS), **real) for _ in range(2))
    k, v = (torch.randn(1, 2, *key_sizes(DIMS), **real) for _ in range(2))
    A = torch.randn(1, *table(DIMS).shape, **real)
    functions = {
        "similarity": (lambda q, k: primitives.similarity(q, k, W, 0), (q, k)),
        "distance": (lambda q, k: primitives.similarity(q, k, W, 1), (q, k)),
        "apply": (lambda A, v: primitives.apply(A, v, W), (A, v)),
        "apply_transposed": (lambda A, x: primitives.apply_transposed(A, x, W), (A, x)),
        "attention": (lambda q, k, v: ops.attention(q, k, v, W, 0, 0.5)[0], (q, k, v)),
    }
    for name, (function, inputs) in functions.items():
        # The fused op has no forward mode; functions that need it compose the others.
        forward = name != "attention"
        assert gradcheck(function, inputs, check_forward_ad=forward, fast_mode=True)
        assert gradgradcheck(function, inputs, fast_mode=True)
