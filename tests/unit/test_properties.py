"""What holds for every grid, window, batch and head, found out on random ones."""

from __future__ import annotations

import dataclasses

import rounding
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import SIMILARITIES
from torch import Tensor
from torch.testing import assert_close

from circulant_attention import (
    AbstractSimilarity,
    circulant_mh_attention,
    circulant_similarity,
    circulant_transposed_attention,
    mh,
)

# The same examples on every run, however slow the machine.
quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)

# The largest grid has 150 pixels, so that the dense references stay small.
MAX_SIZES = {1: 30, 2: 12, 3: 5}


@dataclasses.dataclass(frozen=True)
class Problem:
    """Sizes of an attention problem, and the seed of its numbers."""

    name: str
    size: tuple[int, ...]
    window: tuple[int, ...]
    batch: int
    heads: int
    channels: int  # of one head
    complex: bool
    seed: int

    @property
    def simfun(self) -> AbstractSimilarity:
        return SIMILARITIES[self.name]

    @property
    def dtype(self) -> torch.dtype:
        return torch.complex128 if self.complex else torch.float64

    @property
    def spatial(self) -> tuple[int, ...]:
        """The spatial dims of features."""
        return tuple(range(2, 2 + len(self.size)))

    def features(self, device: str, count: int) -> list[Tensor]:
        """``count`` tensors ``(batch, heads * channels, *size)``."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (count, self.batch, self.heads * self.channels, *self.size)
        return list(torch.randn(shape, dtype=self.dtype, generator=generator).to(device))

    def bounds(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[float, float]:
        """How far two computations of y and of A may lie apart."""
        y, A = rounding.of_attention(
            self.name, q, k, v, self.window, torch.float64, heads=self.heads
        )
        return 2 * y, 2 * A


@st.composite
def problems(draw: st.DrawFn, *, odd: bool = False, whole: bool = False) -> Problem:
    """Any problem; with ``odd`` sizes, with the ``whole`` grid as the window."""
    dims = draw(st.integers(1, 3))
    halves = draw(st.lists(st.integers(0, MAX_SIZES[dims] // 2), min_size=dims, max_size=dims))
    parity = [1] * dims if odd else draw(st.tuples(*[st.integers(0, 1)] * dims))
    size = tuple(max(1, 2 * half + rest) for half, rest in zip(halves, parity, strict=True))
    window = tuple(n if whole else 2 * draw(st.integers(0, (n - 1) // 2)) + 1 for n in size)
    return Problem(
        name=draw(st.sampled_from(list(SIMILARITIES))),
        size=size,
        window=window,
        batch=draw(st.integers(1, 3)),
        heads=draw(st.integers(1, 3)),
        channels=draw(st.integers(1, 4)),
        complex=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
    )


@quick
@given(problem=problems(), data=st.data())
def test_shifting_q_k_and_v_shifts_y(problem, data, device):
    q, k, v = problem.features(device, 3)
    shift = data.draw(st.tuples(*(st.integers(-n, n) for n in problem.size)))

    def attend(*inputs: Tensor) -> Tensor:
        y, _ = circulant_mh_attention(problem.simfun, *inputs, problem.window, problem.heads)
        return y

    y = attend(q, k, v)
    shifted = attend(*(x.roll(shift, problem.spatial) for x in (q, k, v)))
    bound, _ = problem.bounds(q, k, v)
    assert_close(shifted, y.roll(shift, problem.spatial), rtol=0, atol=bound)


def _inner(x: Tensor, y: Tensor) -> Tensor:
    return torch.vdot(x.flatten(), y.flatten())


@quick
@given(problem=problems())
def test_the_transpose_is_the_adjoint(problem, device):
    a, b, x, y = problem.features(device, 4)
    similar = circulant_similarity(problem.simfun, a, b, problem.window)
    A = torch.randn_like(similar) if problem.complex else similar
    Z = A.with_values(torch.complex(A.values, similar.values))
    # A product of matrix, x and y for every stored entry and channel.
    terms = 4 * x.shape[1] * A.nnz
    magnitude = _inner(x.abs(), Z.with_values(Z.values.abs()).mT @ y.abs())
    bound = rounding.of_sum(terms, magnitude, torch.float64)
    assert_close(_inner(A @ x, y), _inner(x, A.mT @ y), rtol=0, atol=bound)
    adjoint = circulant_transposed_attention(A, y)
    assert_close(_inner(A @ x, y), _inner(x, adjoint), rtol=0, atol=bound)
    x, y = x.to(torch.complex128), y.to(torch.complex128)
    assert_close(_inner(Z @ x, y), _inner(x, Z.mH @ y), rtol=0, atol=bound)


@quick
@given(problem=problems(odd=True, whole=True))
def test_a_window_as_large_as_the_grid_is_dense_softmax_attention(problem, device):
    q, k, v = problem.features(device, 3)
    y, A = circulant_mh_attention(problem.simfun, q, k, v, problem.window, problem.heads)

    def rows(x: Tensor) -> Tensor:
        """``(batch, heads, pixels, channels)``, complex numbers as pairs of real ones."""
        split = x.reshape(problem.batch, problem.heads, problem.channels, -1).mT.contiguous()
        return torch.view_as_real(split).flatten(-2) if x.is_complex() else split

    scale = problem.channels**-0.5
    if problem.name == "dot":
        # torch's own attention, which divides by the square root of the channels too.
        dense = torch.nn.functional.scaled_dot_product_attention(
            rows(q), rows(k), rows(v), scale=scale
        )
    else:
        differences = rows(q)[..., :, None, :] - rows(k)[..., None, :, :]
        dense = (-0.5 * scale * differences.square().sum(-1)).softmax(-1) @ rows(v)
    y_bound, A_bound = problem.bounds(q, k, v)
    assert_close(rows(y), dense, rtol=0, atol=y_bound)
    assert_close(A.sum(-1), torch.ones_like(A.sum(-1)), rtol=0, atol=A_bound)
    assert A.nnz == A.shape.numel()


@quick
@given(problem=problems(), data=st.data())
def test_permuting_batch_and_heads_permutes_results(problem, data, device):
    q, k, v = problem.features(device, 3)
    batches = data.draw(st.permutations(range(problem.batch)))
    heads = data.draw(st.permutations(range(problem.heads)))

    def permute(x: Tensor) -> Tensor:
        split = x[batches].unflatten(1, (problem.heads, problem.channels))
        return split[:, heads].flatten(1, 2)

    y, A = circulant_mh_attention(problem.simfun, q, k, v, problem.window, problem.heads)
    permuted = (permute(x) for x in (q, k, v))
    z, B = circulant_mh_attention(problem.simfun, *permuted, problem.window, problem.heads)
    y_bound, A_bound = problem.bounds(q, k, v)
    assert_close(z, permute(y), rtol=0, atol=y_bound)
    assert_close(B.values, A[batches][:, heads].values, rtol=0, atol=A_bound)
    assert_close(mh(A[batches][:, heads], permute(v)), permute(y), rtol=0, atol=y_bound)
