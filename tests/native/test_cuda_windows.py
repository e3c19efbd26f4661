"""Windows of every kind on a GPU, by the tests that they pass on a CPU."""

from __future__ import annotations

import pytest
import test_biased_attention_kernels as biased
import test_window_kernels
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cuda import cuda as cuda
from windows import CIRCULAR, KINDS, TRUNCATED, VALID, native, sizes, windows

each_kind = pytest.mark.parametrize("dims", KINDS.values(), ids=KINDS)


@pytest.mark.parametrize("dims", test_window_kernels.LARGE, ids=str)
@pytest.mark.parametrize("dtype", test_window_kernels.DTYPES, ids=str)
def test_values_on_cuts(dims, dtype, cuda: torch.device):
    with cuda:
        test_window_kernels.check_linear_ops(dims, dtype, 2, 3, 0)
        test_window_kernels.check_attention(dims, dtype, 2, 3, 1)
        both = biased.random_biases(dims, 2, 1, 0.1, dtype)
        biased.check_attention(dims, dtype, 2, 3, 1, *both, 0.6)


def test_values_of_random_windows(cuda: torch.device):
    @given(
        windows(boundaries=(CIRCULAR, TRUNCATED, VALID)),
        st.sampled_from(test_window_kernels.DTYPES),
        st.integers(1, 3),
        st.sampled_from([1, 3, 17, 70]),
        st.sampled_from([0, 1]),
        st.integers(0, 2**30),
    )
    @settings(deadline=None, max_examples=200)
    def check(dims, dtype, groups, channels, kind, seed):
        torch.manual_seed(seed)
        with cuda:
            test_window_kernels.check_linear_ops(dims, dtype, groups, channels, kind)
            test_window_kernels.check_attention(dims, dtype, groups, channels, kind)
            both = biased.random_biases(dims, groups, 1, 0.1, dtype)
            biased.check_attention(dims, dtype, groups, channels, kind, *both, 0.5 / channels)

    check()


@each_kind
def test_the_same_bits_in_every_run(dims, cuda: torch.device):
    ops, W = torch.ops.circulant_attention, native(dims)
    with cuda:
        q, k, v, dy = torch.randn(4, 2, 5, *sizes(dims))
        both = biased.random_biases(dims, 2, 1, 0.1, torch.float32)
        results = []
        for _ in range(2):
            y, lse = ops.attention(q, k, v, W, 1, 0.5)
            back = ops.attention_backward(dy, q, k, v, y, lse, W, 1, 0.5)
            y_b, lse_b = ops.biased_attention(q, k, v, *both, W, 1, 0.5)
            back += ops.biased_attention_backward(dy, q, k, v, *both, y_b, lse_b, None, W, 1, 0.5)
            results.append([y, lse, y_b, lse_b, *back])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
