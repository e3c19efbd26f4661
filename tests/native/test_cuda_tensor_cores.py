"""Attention and the maps of the half types on a GPU, in sizes that run on tensor cores from sm_80
on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import test_biased_attention_kernels as biased
import test_window_kernels
import torch
from test_cuda import cuda as cuda
from windows import CIRCULAR, TRUNCATED, VALID, Dim, native, sizes

ops = torch.ops.circulant_attention

# Odd circular, even, one-sided, truncated, with a halo, larger than the grid, and dilated (which
# may divide the size of the grid or not): in 1-D to 3-D.
PROBLEMS = {
    "circle": (Dim(19, 4, 4, 1, CIRCULAR), Dim(24, 4, 4, 1, CIRCULAR)),
    "globe": (Dim(20, 5, 4, 1, TRUNCATED), Dim(24, 7, 6, 1, CIRCULAR)),
    "halo": (Dim(16, 4, 4, 1, VALID), Dim(16, 6, 6, 1, VALID)),
    "causal": (Dim(300, 63, 0, 1, TRUNCATED),),
    "larger": (Dim(9, 12, 3, 1, TRUNCATED), Dim(40, 9, 9, 1, TRUNCATED)),
    "dilated circle": (Dim(24, 4, 4, 2, CIRCULAR), Dim(48, 4, 4, 3, CIRCULAR)),
    "dilated rows": (Dim(25, 4, 3, 3, CIRCULAR), Dim(16, 4, 4, 1, CIRCULAR)),
    "dilated globe": (Dim(29, 4, 4, 2, TRUNCATED), Dim(43, 5, 4, 3, CIRCULAR)),
    "dilated halo": (Dim(24, 4, 4, 2, VALID), Dim(47, 5, 4, 3, VALID)),
    "dilated causal": (Dim(700, 63, 0, 3, TRUNCATED),),
    "dilated planes": (
        *(Dim(5, 1, 1, 2, TRUNCATED), Dim(18, 2, 2, 2, CIRCULAR)),
        Dim(24, 4, 3, 1, TRUNCATED),
    ),
    "planes": (Dim(4, 1, 1, 1, TRUNCATED), Dim(9, 2, 2, 1, CIRCULAR), Dim(16, 4, 3, 1, TRUNCATED)),
}
# The maps run on them for wider windows.
WIDE = {
    "circle": (Dim(40, 7, 7, 1, CIRCULAR), Dim(48, 8, 8, 1, CIRCULAR)),
    "odd": (Dim(33, 8, 7, 1, CIRCULAR), Dim(37, 9, 9, 1, CIRCULAR)),
    "globe": (Dim(33, 9, 8, 1, TRUNCATED), Dim(40, 11, 10, 1, CIRCULAR)),
    "halo": (Dim(24, 6, 6, 1, VALID), Dim(24, 8, 8, 1, VALID)),
    "causal": (Dim(700, 99, 0, 1, TRUNCATED),),
    "planes": (Dim(4, 1, 1, 1, TRUNCATED), Dim(17, 4, 4, 1, CIRCULAR), Dim(34, 9, 8, 1, CIRCULAR)),
}
wide = pytest.mark.parametrize("dims", WIDE.values(), ids=WIDE)
problems = pytest.mark.parametrize("dims", PROBLEMS.values(), ids=PROBLEMS)
dtypes = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def check_the_same_bits(compute: Callable[[], list[torch.Tensor]]):
    first, *others = (compute() for _ in range(5))
    for other in others:
        assert all(map(torch.equal, first, other))


@problems
@dtypes
@pytest.mark.parametrize("channels", [32, 64, 96])
@pytest.mark.parametrize("kind", [0, 1])
def test_values_and_gradients(dims, dtype, channels, kind, cuda: torch.device):
    torch.manual_seed(0)
    with cuda:
        test_window_kernels.check_attention(dims, dtype, 2, channels, kind)
        scale = channels**-0.5 if kind == 0 else 1 / channels
        for heads, rows in ((2, 1), (None, 2), (1, None)):
            both = biased.random_biases(dims, heads, rows, 0.1, dtype)
            biased.check_attention(dims, dtype, 2, channels, kind, *both, scale)


@problems
@dtypes
def test_the_same_bits_in_every_run(dims, dtype, cuda: torch.device):
    W = native(dims)
    with cuda:
        q, dy = torch.randn(2, 4, 64, *sizes(dims)).to(dtype)
        k, v = torch.randn(2, 4, 64, *(dim.keys for dim in dims)).to(dtype)
        both = biased.random_biases(dims, 2, 2, 0.1, dtype)

        def compute():
            y, lse = ops.biased_attention(q, k, v, *both, W, 1, 0.1)
            back = ops.biased_attention_backward(dy, q, k, v, *both, y, lse, None, W, 1, 0.1)
            return [y, lse, *back]

        check_the_same_bits(compute)


@wide
@dtypes
@pytest.mark.parametrize("channels", [32, 64, 130])
@pytest.mark.parametrize("kind", [0, 1])
def test_values_of_maps(dims, dtype, channels, kind, cuda: torch.device):
    torch.manual_seed(0)
    with cuda:
        test_window_kernels.check_linear_ops(dims, dtype, 2, channels, kind)


@wide
@dtypes
def test_an_infinite_feature_stays_in_its_windows(dims, dtype, cuda: torch.device):
    W = native(dims)
    torch.manual_seed(0)
    with cuda:
        y = torch.randn(1, 64, *(dim.keys for dim in dims)).to(dtype)
        x = torch.randn(1, 64, *sizes(dims)).to(dtype)
        values = torch.rand_like(ops.similarity(x, y, W, 0)) + 0.5
        for op, features in ((ops.apply, y), (ops.apply_transposed, x)):
            before = op(values, features, W)
            # What sees the feature has its entry, 0 where keys are absent.
            one = torch.zeros_like(features)
            one[0, 3].view(-1)[77] = 1
            sees = op(values, one, W) != 0
            features[0, 3].view(-1)[77] = torch.inf
            after = op(values, features, W)
            assert torch.equal(after[~sees], before[~sees])
            assert (after[sees] == torch.inf).all()


@wide
@dtypes
def test_the_same_bits_of_maps(dims, dtype, cuda: torch.device):
    W = native(dims)
    with cuda:
        x = torch.randn(2, 64, *sizes(dims)).to(dtype)
        y = torch.randn(2, 64, *(dim.keys for dim in dims)).to(dtype)

        def compute():
            A = ops.similarity(x, y, W, 1)
            return [A, ops.apply(A, y, W), ops.apply_transposed(A, x, W)]

        check_the_same_bits(compute)
