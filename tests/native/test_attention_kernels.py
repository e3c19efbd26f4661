"""The fused kernels, forward and backward, against the dense reference in float64."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import check_threads
from shapes import problems

from circulant_attention.ops import primitives as ops

# Beside random problems, which are small: windows as large as the grid, grids that are cut in all
# directions, windows that are treated in segments.
GRIDS = [
    ((1, 1), (1, 1)),
    ((9, 15), (9, 15)),
    ((34, 21), (15, 7)),
    ((36, 16), (35, 3)),
    ((64, 17), (5, 9)),
    ((550,), (31,)),
    ((810,), (5,)),
    ((600,), (599,)),
    ((3, 280), (3, 279)),
    ((9, 8, 6), (5, 7, 3)),
    ((2, 9, 33), (1, 3, 5)),
]
grids = pytest.mark.parametrize("grid", GRIDS, ids=str)
# The first alone on large grids, where the dense formula takes long.
CHANNELS = [(3, 5), (1, 3), (16, 5), (7, 26)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
NATIVE = torch.ops.circulant_attention


def run(q, k, v, dy, window, kind, scale):
    y, lse = NATIVE.attention(q, k, v, list(window), kind, scale)
    return y, lse, *NATIVE.attention_backward(dy, q, k, v, y, lse, list(window), kind, scale)


def check(size, window, groups, channels, kind, dtype, device):
    """Compares y, lse and the gradients with the dense formula on random numbers."""
    scale, (c, c_v) = 0.3, channels
    q, k = (torch.randn(groups, c, *size, device=device).to(dtype) for _ in "qk")
    v, dy = (torch.randn(groups, c_v, *size, device=device).to(dtype) for _ in "vg")
    y, lse, *gradients = run(q, k, v, dy, window, kind, scale)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    name = "dot" if kind == ops.SimilarityKind.DOT else "distance"
    near = reference.mask(size, window).to(device)
    scores = scale * reference.similarity(name, *leaves[:2], window)
    scores = torch.where(near, scores, -torch.inf)
    expected = reference.apply(scores.softmax(-1), leaves[2])
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(expected, leaves, dy.double())
    compare((y, *gradients), (expected, *found), c + math.prod(window))


def compare(ours, theirs, terms):
    """Compares results of the fused kernels with those of float64.

    Scores are sums of C products, results of K, `terms` together: rounded to half precision at the
    end (and y once more where the backward reads it), kept in float32 or better before.
    """
    dtype = ours[0].dtype
    sums = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    tolerance = 4 * torch.finfo(dtype).eps + 16 * terms * sums
    for one, two in zip(ours, theirs, strict=True):
        assert one.dtype == dtype
        # Gradients are differences of products of this size.
        atol = tolerance * max(two.abs().max().item(), 0.1)
        torch.testing.assert_close(one.double(), two, rtol=0, atol=atol)


@grids
@pytest.mark.parametrize("kind", list(ops.SimilarityKind))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values(grid, kind, dtype, device):
    for channels in CHANNELS if math.prod(grid[0]) < 400 else CHANNELS[:1]:
        check(*grid, 2, channels, kind, dtype, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_of_every_width(dtype, device):
    """Rows below, at and above the vectors of every instruction set: 2 to 16 elements."""
    for width in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49):
        largest = (width - 1) | 1
        for window in {(3, 1), (1, min(largest, 5)), (3, largest)}:
            check((5, width), window, 1, (3, 2), width % 2, dtype, device)


@given(
    problem=problems(),
    value_channels=st.integers(1, 9),
    kind=st.sampled_from(list(ops.SimilarityKind)),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_values_of_random_shapes(problem, value_channels, kind, dtype, device):
    (groups, channels, *size), window = problem
    check(tuple(size), window, groups, (channels, value_channels), kind, dtype, device)


@pytest.mark.parametrize(
    ("size", "window"), [((2, 2100), (1, 7)), ((5, 2050), (3, 5)), ((150, 9), (9, 5))], ids=str
)
@pytest.mark.parametrize("kind", list(ops.SimilarityKind))
def test_values_of_large_grids(size, window, kind, device):
    """Grids that are cut, where the dense formula would take long, against the primitives."""
    q, k, v, dy = torch.randn(4, 2, 3, *size, device=device)
    y, _, *gradients = run(q, k, v, dy, window, kind, 0.3)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    weights = torch.softmax(0.3 * ops.similarity(*leaves[:2], list(window), kind), -1)
    expected = ops.apply(weights, leaves[2], list(window))
    found = torch.autograd.grad(expected, leaves, dy.double())
    compare((y, *gradients), (expected.detach(), *found), 3 + math.prod(window))


@grids
@pytest.mark.parametrize("groups", [1, 5])
def test_same_bits_for_any_number_of_threads(grid, groups, device):
    size, window = grid
    q, k, v, dy = torch.randn(4, groups, 6, *size, device=device)
    check_threads(lambda: run(q, k, v, dy, window, 0, 0.4))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_pixel_that_is_not_finite_stays_in_its_windows(value, device):
    """Beyond them, bits do not change: nothing is multiplied by zero padding."""
    q, k, v, dy = torch.randn(4, 1, 3, 20, 18, device=device)
    clean = run(q, k, v, dy, (5, 3), 0, 0.5)
    k[..., 9, 17] = value
    v[..., 9, 17] = value
    spoiled = run(q, k, v, dy, (5, 3), 0, 0.5)
    near = reference.mask((20, 18), (5, 3))[9 * 18 + 17]
    # Gradients of keys reach as far as two windows: through the queries that see the pixel.
    twice = reference.mask((20, 18), (9, 5))[9 * 18 + 17]
    for at, (one, two) in enumerate(zip(clean, spoiled, strict=True)):
        reach = (near if at < 3 else twice).to(device)
        assert torch.equal(
            one.flatten(2)[..., ~reach] if one.dim() > 2 else one[..., ~reach],
            two.flatten(2)[..., ~reach] if two.dim() > 2 else two[..., ~reach],
        )


def test_strided_and_expanded_inputs(device):
    q, k, v, dy = torch.randn(4, 3, 6, 9, 8, device=device).mT
    v = v[:1].expand(3, -1, -1, -1)
    ours = run(q, k, v, dy, (3, 5), 1, 0.2)
    theirs = run(*(x.contiguous() for x in (q, k, v, dy)), (3, 5), 1, 0.2)
    assert all(map(torch.equal, ours, theirs))
    y, lse, *gradients = theirs
    y, lse = y.mT.contiguous().mT, lse.repeat_interleave(2, 1)[:, ::2]
    assert not y.is_contiguous() and not lse.is_contiguous()
    ours = NATIVE.attention_backward(dy, q, k, v, y, lse, [3, 5], 1, 0.2)
    assert all(map(torch.equal, ours, gradients))


def test_no_groups(device):
    q = torch.empty(0, 3, 5, 4, device=device)
    y, lse, *gradients = run(q, q, q, q, (3, 3), 0, 1.0)
    assert y.shape == q.shape
    assert lse.shape == (0, 20)
    assert all(x.shape == q.shape for x in gradients)
