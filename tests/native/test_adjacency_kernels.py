"""The kernel of the adjacency against a softmax in float64."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import check_threads
from shapes import problems
from torch import Tensor

import circulant_attention  # noqa: F401  (registers the ops)

ops = torch.ops.circulant_attention

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DOT, DISTANCE = 0, 1
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
kinds = pytest.mark.parametrize("kind", [DOT, DISTANCE], ids=["dot", "distance"])

# (G, C, *spatial) and window, beside random problems, which are small.
CASES = [
    ((1, 1, 1), (1,)),
    # rows shorter than, as long as, and longer than vectors
    *[((2, 3, 5, width), (3, 3)) for width in (3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47)],
    # windows as large as the grid, in some dims or in all
    ((1, 3, 17, 17), (17, 17)),
    ((1, 2, 7, 20), (7, 1)),
    ((1, 2, 6, 21), (1, 21)),
    ((2, 3, 40, 2), (9, 1)),
    ((2, 3, 4, 5, 6), (3, 1, 5)),
    ((1, 2, 5, 7, 9), (5, 5, 3)),
    # rows that are cut, blocks of rows, many channels
    ((1, 2, 600), (31,)),
    ((1, 2, 2, 1100), (1, 3)),
    ((1, 3, 150, 9), (9, 5)),
    ((1, 300, 6, 40), (3, 3)),
    # long windows: the scores of a tile leave the first-level cache
    ((1, 2, 3, 150), (3, 131)),
    ((1, 2, 37, 21), (35, 19)),
    # windows that are treated in segments, in the middle of the grid and around it
    ((1, 2, 600), (599,)),
    ((2, 1, 900), (301,)),
    ((1, 3, 2, 310), (1, 303)),
    ((1, 2, 5, 270), (5, 261)),
]
# Windows of one segment, which keep their exponentials, and of several.
LENGTHS = [((23, 18), (21, 5)), ((300,), (299,))]
lengths = pytest.mark.parametrize(("size", "window"), LENGTHS, ids=["kept", "segments"])


def name(case: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    return "-window-".join("x".join(map(str, sizes)) for sizes in case)


def columns(size: tuple[int, ...], window: tuple[int, ...]) -> Tensor:
    """The columns of every row in ascending order, ``(N, K)``."""
    return reference.mask(size, window).nonzero()[:, 1].view(math.prod(size), math.prod(window))


def scores(x: Tensor, y: Tensor, window: tuple[int, ...], kind: int) -> tuple[Tensor, Tensor]:
    """The similarities in float64, and the sums of the absolute values of their terms."""
    of_row = columns(tuple(x.shape[2:]), window)
    x, y = x.cpu().double().flatten(2), y.cpu().double().flatten(2)
    result = torch.zeros(x.shape[0], *of_row.shape, dtype=torch.float64)
    magnitude = result.clone()
    for one, two in zip(x.unbind(1), y.unbind(1), strict=True):
        pairs = one[..., None], two[:, of_row]
        term = pairs[0] * pairs[1] if kind == DOT else -0.5 * (pairs[0] - pairs[1]) ** 2
        result += term
        magnitude += term.abs()
    return result, magnitude


def check(x: Tensor, y: Tensor, window: tuple[int, ...], kind: int, scale: float) -> None:
    """Compares with the softmax of scores in float64.

    A score is a sum of C terms, each rounded up to four times, in float32 for the half types; it is
    rounded once more where the reference is subtracted, which is a score too. An error e of all
    scores changes an entry by the factor exp(2 e). Exponential, sum and quotient are rounded K + 8
    times; then the entry is rounded to its dtype.
    """
    similarities, magnitude = scores(x, y, window, kind)
    expected = (scale * similarities).softmax(-1)
    actual = ops.adjacency(x, y, window, kind, scale)
    info = torch.finfo(actual.dtype)
    wide = torch.finfo(torch.float32 if actual.dtype.itemsize == 2 else actual.dtype)
    error = (x.shape[1] + 6) * wide.eps * abs(scale) * magnitude.amax(-1, keepdim=True)
    bound = expected * (torch.expm1(2 * error) + (math.prod(window) + 8) * wide.eps)
    # Half the spacing of the numbers around the entry; where they are subnormal, exponential,
    # rescaled exponential and quotient are rounded by that of the numbers around zero.
    bound += info.eps / 2 * (expected + bound + 3 * info.smallest_normal)
    assert actual.shape == expected.shape
    assert actual.dtype == x.dtype
    assert actual.is_contiguous()
    excess = (actual.cpu().double() - expected).abs() - bound
    assert excess.max() <= 0, f"off by {excess.max()} more than {bound.max()}"


def check_random(
    shape: tuple[int, ...], window: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    """Both similarities of random numbers, which stay what they are."""
    x, y = torch.randn(2, *shape, device=device).to(dtype)
    before = x.clone(), y.clone()
    for kind, scale in ((DOT, 0.7), (DISTANCE, 1.3)):
        check(x, y, window, kind, scale)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize(("shape", "window"), CASES, ids=map(name, CASES))
@dtypes
def test_values(shape, window, dtype, device):
    check_random(shape, window, dtype, device)


@given(problem=problems(), dtype=st.sampled_from(DTYPES))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_values_of_random_shapes(problem, dtype, device):
    check_random(*problem, dtype, device)


@kinds
@pytest.mark.parametrize("factor", [-2.0, 0.0, 1e-3])
def test_values_of_other_scales(factor, kind, device):
    x, y = torch.randn(2, 1, 3, 6, 19, device=device)
    check(x, y, (5, 9), kind, factor)


@lengths
@pytest.mark.parametrize("step", [-8.0, -0.5, 0.5, 8.0])
@dtypes
def test_values_of_scores_that_rise(size, window, step, dtype, device):
    """The reference is raised again and again, or never: scores grow or fall by 8 per pixel."""
    y = (step * torch.arange(math.prod(size), device=device) % 512).reshape(1, 1, *size).to(dtype)
    x = torch.ones_like(y)
    check(x, y, window, DOT, 1.0)
    # The highest scores of the first rows are in the middle of the window.
    check(y / 64, y.flip(-1) / 64, window, DISTANCE, 16.0)


@kinds
@dtypes
def test_values_of_large_scores(kind, dtype, device):
    """Scores beyond the range of float16, and such that exp() overflows, in float32 at least."""
    x = 30 * torch.randn(1, 200, 5, 9, device=device).to(dtype)
    y = x + 0.25 * torch.randn_like(x)
    check(x, y, (3, 5), kind, 1.0)


@lengths
@kinds
@dtypes
def test_infinity_and_nan_are_those_of_a_softmax(size, window, kind, dtype, device):
    """And reach no other row, whatever they do to their own."""
    of_row = columns(size, window)
    pixels = math.prod(size)
    clean = torch.rand(2, 1, 2, *size, device=device).to(dtype)
    before = ops.adjacency(*clean, window, kind, 1.0)
    for value in (math.inf, -math.inf, math.nan):
        for pixel in (0, pixels // 2):
            x, y = clean.clone()
            y.flatten(2)[:, 1, pixel] = value
            near = (of_row == pixel).any(1).to(device)
            found = ops.adjacency(x, y, window, kind, 1.0)
            expected = ops.similarity(x, y, window, kind).double().softmax(-1)
            assert torch.equal(found.isnan(), expected.isnan())
            assert torch.equal(found == 0, expected == 0)
            assert torch.equal(found[:, ~near], before[:, ~near])
            x.flatten(2)[:, 0, pixel] = value
            found = ops.adjacency(x, clean[1], window, kind, 1.0)
            assert found[:, pixel].isnan().all()
            others = torch.arange(pixels, device=device) != pixel
            assert torch.equal(found[:, others], before[:, others])


@lengths
@dtypes
def test_rows_of_minus_infinity_are_nan(size, window, dtype, device):
    x = torch.ones(1, 1, *size, dtype=dtype, device=device)
    assert ops.adjacency(x, -math.inf * x, window, DOT, 1.0).isnan().all()
    # All but one score of a row: it has all the weight.
    y = -math.inf * x
    y.flatten()[0] = -3
    found = ops.adjacency(x, y, window, DOT, 1.0)[0]
    holds = (columns(size, window) == 0).to(device)
    # The exponential, its inverse and their product are rounded.
    expected = holds[holds.any(1)].to(dtype)
    close = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 0}
    torch.testing.assert_close(found[holds.any(1)], expected, **close)


SAME_BITS = [
    ((3, 9, 21, 37), (7, 9)),
    ((1, 2, 70, 20), (35, 19)),
    ((2, 5, 6, 7, 9), (3, 5, 3)),
    ((1, 4, 700), (99,)),
    ((1, 2, 2, 610), (1, 601)),
]


@pytest.mark.parametrize(("shape", "window"), SAME_BITS, ids=map(name, SAME_BITS))
@dtypes
def test_neither_threads_nor_other_groups_change_a_bit(shape, window, dtype):
    x, y = 3 * torch.randn(2, *shape).to(dtype)

    def results() -> list[Tensor]:
        return [ops.adjacency(x, y, window, kind, 0.5) for kind in (DOT, DISTANCE)]

    check_threads(results)
    for kind, whole in zip((DOT, DISTANCE), results(), strict=True):
        last = ops.adjacency(x[-1:].clone(), y[-1:].clone(), window, kind, 0.5)
        assert torch.equal(last, whole[-1:])


@dtypes
@kinds
def test_strided_and_expanded_inputs(kind, dtype, device):
    window = (3, 5)
    x = torch.randn(2, 4, 18, 5, device=device).to(dtype).transpose(2, 3)
    y = torch.randn(1, 4, 5, 18, device=device).to(dtype).expand(2, -1, -1, -1)
    for left, right in ((x, y), (y, x)):
        found = ops.adjacency(left, right, window, kind, 0.5)
        assert found.is_contiguous()
        expected = ops.adjacency(left.contiguous(), right.contiguous(), window, kind, 0.5)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 0, 4, 5)], ids=str)
@dtypes
@kinds
def test_no_groups_or_no_channels(shape, kind, dtype, device):
    """Without channels all scores are equal."""
    x = torch.empty(shape, dtype=dtype, device=device)
    values = ops.adjacency(x, x, (3, 3), kind, 0.5)
    assert torch.equal(values, torch.full_like(values, 1 / 9))
    assert values.shape == (shape[0], 20, 9)


SQUARE = torch.ones(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SQUARE, SQUARE.double(), (3, 3), 0), "dtypes differ"),
        ((SQUARE, SQUARE[:1], (3, 3), 0), "sizes of dim 0 differ: 2 and 1"),
        ((SQUARE, SQUARE, (3, 3), 2), "kind must be 0 .* got 2"),
        ((SQUARE, SQUARE, (3, 2), 0), r"window\[1\] must be odd .* got 2"),
        ((SQUARE, SQUARE, (3, 5), 0), r"window\[1\] = 5 is larger .* 4"),
        ((SQUARE, SQUARE, (3,), 0), "1 entries for 2 spatial dims"),
        ((SQUARE.int(), SQUARE.int(), (3, 3), 0), "dtype Int is not one of"),
    ],
)
def test_what_would_leave_the_tensors_is_refused(arguments, message):
    with pytest.raises(RuntimeError, match=f"adjacency: .*{message}"):
        ops.adjacency(*arguments, 1.0)
