"""Kernels on a part of a grid, with a halo: the bits of the whole grid, wherever the part begins.

Kernels treat four rows of queries together, from the first row of a part on, and add key rows to
large windows in batches. So the keys of a query come in other batches in a part.
"""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from windows import CIRCULAR, VALID

ops = torch.ops.circulant_attention
# The widest windows for which a test is quick.
WIDEST = {1: (301,), 2: (35, 35), 3: (11, 9, 11)}


@st.composite
def parts(draw):
    """A window, a grid, and a part of it along some dims: (first, last) or None for a whole dim."""
    widest = draw(st.sampled_from(list(WIDEST.values())))
    window = [2 * draw(st.integers(0, most // 2)) + 1 for most in widest]
    size = [draw(st.integers(w, w + 11)) for w in window]
    part = []
    for n in size:
        first = draw(st.integers(0, n - 1))
        part.append(draw(st.sampled_from([None, (first, draw(st.integers(first + 1, n)))])))
    return window, size, part


@given(
    parts(),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    st.sampled_from([0, 1]),
    st.booleans(),
    st.integers(1, 9),
    # Scores that exceed each other, so that the softmax takes other references in a part.
    st.sampled_from([1, 3]),
)
@settings(deadline=None, max_examples=150, derandomize=True)
def test_values_of_parts_have_the_bits_of_the_grid(problem, dtype, kind, biased, channels, largest):
    window, size, part = problem
    torch.manual_seed(0)
    q, k, v = (largest * torch.randn(3, 1, channels, *size)).to(dtype)
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    biases = [None, None]
    if biased:
        biases = [torch.randn(1, prod(window), dtype=sums), torch.randn(1, *size, dtype=sums)]
        biases[1] = biases[1].masked_fill(torch.rand(biases[1].shape) < 0.1, -torch.inf)

    expected = _run(q, k, v, biases, window, kind)
    numbers: list[int] = []
    own = [slice(None)] * len(size)
    for dim, (length, n, cut) in enumerate(zip(window, size, part, strict=True)):
        reach = length // 2
        numbers += [reach, reach, 1, CIRCULAR if cut is None else VALID]
        if cut is None:
            continue
        own[dim] = slice(*cut)
        halo = torch.arange(cut[0] - reach, cut[1] + reach) % n
        k, v = k.index_select(dim + 2, halo), v.index_select(dim + 2, halo)
        if biased:
            biases[1] = biases[1].index_select(dim + 1, halo)
    index = (..., *own)
    q = q[index].contiguous()
    found = _run(q, k.contiguous(), v.contiguous(), biases, numbers, kind)

    for name in ("y", "lse"):
        assert torch.equal(found[name], expected[name][index]), name
    if not biased:
        # By value: the slots of a circular dim are in another order.
        rows, own_rows = (x["A"].movedim(-1, 1) for x in (expected, found))
        rows, own_rows = rows[index].sort(1).values, own_rows.sort(1).values
        # Numbers with fewer bits are rounded from others.
        normal = rows >= torch.finfo(sums).tiny
        assert torch.equal(rows[normal], own_rows[normal])


def _run(
    q: Tensor, k: Tensor, v: Tensor, biases: list[Tensor | None], window: list[int], kind: int
) -> dict[str, Tensor]:
    size = q.shape[2:]
    bias, keys = biases
    if keys is not None:
        y, lse = ops.biased_attention(q, k, v, bias, keys.flatten(1), window, kind, 0.4)
        return {"y": y, "lse": lse.reshape(1, *size)}
    y, lse = ops.attention(q, k, v, window, kind, 0.4)
    A = ops.adjacency(q, k, window, kind, 0.4)
    return {"y": y, "lse": lse.reshape(1, *size), "A": A.reshape(1, *size, -1)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_for_scores_of_any_size(dtype):
    """Rising and falling scores up to the largest ones: in float64, up to their own rounding."""
    rising = torch.linspace(-1, 1, 40, dtype=dtype)[:, None] * torch.ones(30, dtype=dtype)
    for largest in (1.0, 1e2, 1e4, 3e6, 2e7, 1e12, 1e30):
        for scores in (rising, -rising, rising.abs(), -rising.abs()):
            keys = (largest * scores)[None, None]
            queries = torch.ones_like(keys)
            A = ops.adjacency(queries, keys, [35, 9], 0, 1.0)
            # The scores as the kernel has them, with base 2 and rounded once.
            values = (ops.similarity(queries, keys, [35, 9], 0) * torch.tensor(2.0).log2()).double()
            exact = torch.softmax(values, -1)
            rounding = largest * torch.finfo(dtype).eps
            close = torch.ones_like(exact) * min(1.0, 4 * rounding + 64 * torch.finfo(dtype).eps)
            assert ((A.double() - exact).abs() <= close * exact + 1e-37).all(), largest
            ones = torch.ones(1, 1, 40, 30, dtype=dtype)
            y, lse = ops.attention(queries, keys, ones, [35, 9], 0, 1.0)
            torch.testing.assert_close(y, ones, rtol=0, atol=64 * torch.finfo(dtype).eps)
            torch.testing.assert_close(
                lse.double(), values.logsumexp(-1), rtol=4 * torch.finfo(dtype).eps, atol=1e-5
            )
