"""The native ops against their definitions, written out with explicit indices in float64."""

from __future__ import annotations

import itertools
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

# (G, C, *spatial) and window, beside random problems, which are small. A vector holds 2 to 16
# pixels of a row, a tile up to 4 rows. Long rows, and images of many rows, are cut.
CASES = [
    ((1, 1, 1), (1,)),
    # rows shorter than, as long as, and longer than vectors
    *[((2, 3, 5, width), (3, 3)) for width in (3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47)],
    # windows as large as the grid, in some dims or in all
    ((1, 3, 17, 17), (17, 17)),
    ((1, 2, 7, 20), (7, 1)),
    ((1, 2, 6, 21), (1, 21)),
    # channels and rows that fill no tile, short rows
    ((1, 13, 9, 19), (5, 9)),
    ((2, 3, 40, 2), (9, 1)),
    ((2, 3, 4, 5, 6), (3, 1, 5)),
    # rows that are cut, with long windows; rows that are cut where sums are scattered
    ((1, 2, 600), (31,)),
    ((1, 2, 2, 2100), (1, 3)),
    ((1, 1, 3, 1030), (3, 3)),
    ((1, 2, 3, 150), (3, 131)),
    # windows that are treated in segments, in the middle of the grid and around it
    ((1, 2, 600), (599,)),
    ((2, 1, 900), (301,)),
    ((1, 3, 2, 310), (1, 303)),
    ((1, 2, 5, 270), (5, 261)),
    # many rows, cut into blocks; many channels
    ((1, 3, 150, 9), (9, 5)),
    ((1, 700, 6, 40), (3, 3)),
]


def name(case: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    return "-window-".join("x".join(map(str, sizes)) for sizes in case)


dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def columns(size: tuple[int, ...], window: tuple[int, ...]) -> Tensor:
    """The columns of every row in ascending order, ``(N, K)``."""
    return reference.mask(size, window).nonzero()[:, 1].view(math.prod(size), math.prod(window))


class Reference:
    """The four ops in float64 on a CPU, each with the sums of the absolute values of its terms."""

    def __init__(self, size: tuple[int, ...], window: tuple[int, ...]) -> None:
        self.size = size
        self.columns = columns(size, window)

    def similarity(self, x: Tensor, y: Tensor, kind: int) -> tuple[Tensor, Tensor]:
        x, y = x.double().flatten(2), y.double().flatten(2)
        result = torch.zeros(x.shape[0], *self.columns.shape, dtype=torch.float64)
        magnitude = result.clone()
        for c in range(x.shape[1]):
            pairs = x[:, c, :, None], y[:, c][:, self.columns]
            term = pairs[0] * pairs[1] if kind == DOT else -0.5 * (pairs[0] - pairs[1]) ** 2
            result += term
            magnitude += term.abs()
        return result, magnitude

    def apply(self, values: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        values, x = values.double(), x.double()
        gathered = x.flatten(2)[:, :, self.columns]
        result = torch.einsum("gnk,gcnk->gcn", values, gathered)
        magnitude = torch.einsum("gnk,gcnk->gcn", values.abs(), gathered.abs())
        return result.reshape(x.shape), magnitude.reshape(x.shape)

    def apply_transposed(self, values: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        values, x = values.double(), x.double()
        terms = (values[:, None] * x.flatten(2)[..., None]).flatten(2)
        result = torch.zeros_like(x).flatten(2).index_add(2, self.columns.flatten(), terms)
        magnitude = torch.zeros_like(x).flatten(2)
        magnitude = magnitude.index_add(2, self.columns.flatten(), terms.abs())
        return result.reshape(x.shape), magnitude.reshape(x.shape)

    def transpose(self, values: Tensor) -> Tensor:
        pixels = math.prod(self.size)
        rows = torch.arange(pixels)[:, None]
        dense = torch.zeros(values.shape[0], pixels, pixels, dtype=values.dtype)
        dense[:, rows, self.columns] = values
        return dense[:, self.columns, rows]


def check(actual: Tensor, expected: tuple[Tensor, Tensor], terms: int) -> None:
    """Compares with a sum of ``terms`` terms, given with the sum of their absolute values.

    Each of the terms and of the additions is rounded once or twice in the type of the sum, which
    for float16 and bfloat16 is float32; at the end the sum is rounded to its dtype.
    """
    result, magnitude = expected
    info = torch.finfo(actual.dtype)
    wide = torch.finfo(torch.float32 if actual.dtype.itemsize == 2 else actual.dtype)
    bound = (terms + 4) * wide.eps * magnitude
    # Half the spacing of the numbers around the sum, and of those around zero.
    bound = bound + info.eps / 2 * (result.abs() + bound + info.smallest_normal)
    assert actual.shape == result.shape
    assert actual.is_contiguous()
    excess = (actual.cpu().double() - result).abs() - bound
    assert excess.max() <= 0, f"off by {excess.max()} more than {bound.max()}"


def check_ops(
    shape: tuple[int, ...], window: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    """Compares all four ops with the definitions on random numbers, which they do not change."""
    groups, channels, *size = shape
    definition = Reference(tuple(size), window)
    x, y = torch.randn(2, *shape, device=device).to(dtype)
    values = torch.randn(groups, *definition.columns.shape, device=device).to(dtype)
    on_cpu = [each.clone().cpu() for each in (x, y, values)]
    for kind in (DOT, DISTANCE):
        expected = definition.similarity(*on_cpu[:2], kind)
        check(ops.similarity(x, y, window, kind), expected, channels)
    terms = math.prod(window)
    check(ops.apply(values, x, window), definition.apply(on_cpu[2], on_cpu[0]), terms)
    expected = definition.apply_transposed(on_cpu[2], on_cpu[0])
    check(ops.apply_transposed(values, x, window), expected, terms)
    assert torch.equal(ops.transpose(values, size, window).cpu(), definition.transpose(on_cpu[2]))
    assert all(torch.equal(one.cpu(), two) for one, two in zip((x, y, values), on_cpu, strict=True))


@pytest.mark.parametrize(("shape", "window"), CASES, ids=map(name, CASES))
@dtypes
def test_values(shape, window, dtype, device):
    check_ops(shape, window, dtype, device)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_values_of_every_half(dtype, device):
    """Each of the 65536 numbers is read exactly, and products are rounded as torch rounds them."""
    every = torch.arange(-(2**15), 2**15, device=device).to(torch.int16).view(dtype)
    x = every.reshape(1, 1, -1)
    ones = torch.ones(1, x.numel(), 1, dtype=dtype, device=device)
    torch.testing.assert_close(ops.apply(ones, x, (1,)), x, rtol=0, atol=0, equal_nan=True)
    y = every[torch.randperm(x.numel(), device=device)].reshape(1, 1, -1)
    products = (x.float() * y.float()).to(dtype).reshape(ones.shape)
    actual = ops.similarity(x, y, (1,), DOT)
    torch.testing.assert_close(actual, products, rtol=0, atol=0, equal_nan=True)


@given(problem=problems(), dtype=st.sampled_from(DTYPES))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_values_of_random_shapes(problem, dtype, device):
    check_ops(*problem, dtype, device)


def results(shape: tuple[int, ...], window: tuple[int, ...], x: Tensor) -> list[Tensor]:
    """What all ops make of x, which is random."""
    values = ops.similarity(x, x.flip(1), window, DOT)
    return [
        values,
        ops.similarity(x, x.flip(1), window, DISTANCE),
        ops.apply(values, x, window),
        ops.apply_transposed(values, x, window),
        ops.transpose(values, shape[2:], window),
    ]


SAME_BITS = [
    ((3, 9, 21, 37), (7, 9)),
    ((2, 5, 6, 7, 9), (3, 5, 3)),
    ((1, 4, 700), (99,)),
    ((1, 2, 2, 610), (1, 601)),
]


@pytest.mark.parametrize(("shape", "window"), SAME_BITS, ids=map(name, SAME_BITS))
@dtypes
def test_the_number_of_threads_changes_no_bit(shape, window, dtype):
    x = torch.randn(shape).to(dtype)
    check_threads(lambda: results(shape, window, x))


@pytest.mark.parametrize(("shape", "window"), SAME_BITS, ids=map(name, SAME_BITS))
@dtypes
def test_other_groups_change_no_bit(shape, window, dtype, device):
    x = torch.randn(shape, device=device).to(dtype)
    for one, other in zip(
        results(shape, window, x), results(shape, window, x[-1:].clone()), strict=True
    ):
        assert torch.equal(one[-1:], other)


@pytest.mark.parametrize(("shape", "window"), SAME_BITS, ids=map(name, SAME_BITS))
def test_a_circular_shift_changes_no_bit(shape, window, device):
    """Where the grid begins has no influence, as borders are like any other place."""
    x = torch.randn(shape, device=device)
    shifts = tuple(n // 2 + 1 for n in shape[2:])
    dims = tuple(range(2, len(shape)))
    values = ops.similarity(x, x, window, DISTANCE)
    y = ops.apply(values, x, window)
    moved = x.roll(shifts, dims)
    moved_values = ops.similarity(moved, moved, window, DISTANCE)
    assert torch.equal(ops.apply(moved_values, moved, window), y.roll(shifts, dims))


def bits(x: Tensor) -> Tensor:
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.dtype.itemsize])


@dtypes
def test_transpose_moves_bits(dtype, device):
    """Every bit pattern survives, NaNs with their payload too."""
    size, window = (6, 19), (5, 7)
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    limits = torch.iinfo(whole)
    pattern = torch.randint(limits.min, limits.max, (2, 6 * 19, 35), dtype=whole, device=device)
    actual = ops.transpose(pattern.view(dtype), size, window)
    expected = Reference(size, window).transpose(pattern.cpu())
    assert torch.equal(bits(actual).cpu(), expected)
    assert torch.equal(bits(ops.transpose(actual, size, window)), pattern)


@pytest.mark.parametrize(
    ("size", "window"),
    [((37,), (5,)), ((9, 19), (3, 5)), ((8, 3), (5, 3)), ((4, 5, 7), (3, 3, 3)), ((300,), (131,))],
    ids=str,
)
@pytest.mark.parametrize("value", [math.inf, math.nan])
@dtypes
def test_infinity_and_nan_reach_only_their_window(size, window, value, dtype, device):
    """Nothing outside a window is multiplied by zero instead of being left out."""
    columns_of = columns(size, window)
    pixels = math.prod(size)
    clean = torch.rand(1, 3, *size, device=device).to(dtype)
    weights = torch.rand(1, *columns_of.shape, device=device).to(dtype)
    for pixel in (0, pixels // 2, pixels - 1):
        dirty = clean.clone()
        dirty.flatten(2)[:, 1, pixel] = value
        near = (columns_of == pixel).any(1).to(device)
        for op in (ops.apply, ops.apply_transposed):
            y, expected = (op(weights, x, window).flatten(2) for x in (dirty, clean))
            assert not y[:, 1, near].isfinite().any()
            assert torch.equal(y[:, :, ~near], expected[:, :, ~near])
            assert torch.equal(y[:, ::2], expected[:, ::2])
        holds = (columns_of == pixel).to(device)
        for kind in (DOT, DISTANCE):
            expected = ops.similarity(clean, clean, window, kind)
            scores = ops.similarity(clean, dirty, window, kind)
            assert not scores[:, holds].isfinite().any()
            assert torch.equal(scores[:, ~holds], expected[:, ~holds])
            scores = ops.similarity(dirty, clean, window, kind)
            assert not scores[:, pixel].isfinite().any()
            others = torch.arange(pixels, device=device) != pixel
            assert torch.equal(scores[:, others], expected[:, others])
        # The same with one of the weights.
        slot = columns_of.shape[1] // 3
        heavy = weights.clone()
        heavy[:, pixel, slot] = value
        for op, reached in (
            (ops.apply, pixel),
            (ops.apply_transposed, int(columns_of[pixel, slot])),
        ):
            y, expected = (op(v, clean, window).flatten(2) for v in (heavy, weights))
            others = torch.arange(pixels, device=device) != reached
            assert not y[:, :, reached].isfinite().any()
            assert torch.equal(y[:, :, others], expected[:, :, others])


@dtypes
def test_strided_and_expanded_inputs(dtype, device):
    size, window = (5, 18), (3, 5)
    base = torch.randn(2, 4, 18, 5, device=device).to(dtype)
    x = base.transpose(2, 3)
    y = torch.randn(1, 4, 5, 18, device=device).to(dtype).expand(2, -1, -1, -1)
    values = torch.randn(2, 15, 90, device=device).to(dtype).transpose(1, 2)
    one = values[:1].expand(2, -1, -1)
    for left, right in ((x, y), (y, x), (x[..., ::1], x.contiguous())):
        for kind in (DOT, DISTANCE):
            expected = ops.similarity(left.contiguous(), right.contiguous(), window, kind)
            assert torch.equal(ops.similarity(left, right, window, kind), expected)
    for op, v, z in itertools.product((ops.apply, ops.apply_transposed), (values, one), (x, y)):
        actual = op(v, z, window)
        assert actual.is_contiguous()
        assert torch.equal(actual, op(v.contiguous(), z.contiguous(), window))
    for v in (values, one):
        actual = ops.transpose(v, size, window)
        assert actual.is_contiguous()
        assert torch.equal(actual, ops.transpose(v.contiguous(), size, window))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 0, 4, 5)], ids=str)
@dtypes
def test_no_groups_or_no_channels(shape, dtype, device):
    window = (3, 3)
    x = torch.empty(shape, dtype=dtype, device=device)
    for kind in (DOT, DISTANCE):
        values = ops.similarity(x, x, window, kind)
        assert torch.equal(values, torch.zeros(shape[0], 20, 9, dtype=dtype, device=device))
    for op in (ops.apply, ops.apply_transposed):
        assert torch.equal(op(values, x, window), x)
    assert ops.transpose(values, shape[2:], window).shape == values.shape


def wrong(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


SQUARE = wrong((2, 3, 4, 4))
VALUES = wrong((2, 16, 9))


def backward(lse: Tensor, y: Tensor = SQUARE) -> None:
    """The gradients of attention with an lse of (2, 16)."""
    ops.attention_backward(SQUARE, SQUARE, SQUARE, SQUARE, y, lse, (3, 3), 0, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.similarity(SQUARE, SQUARE.double(), (3, 3), 0), "dtypes differ"),
        (lambda: ops.similarity(SQUARE, SQUARE[:1], (3, 3), 0), "sizes of dim 0 differ: 2 and 1"),
        (lambda: ops.similarity(SQUARE, SQUARE[..., 1:], (3, 3), 0), "sizes of dim 3 differ"),
        (lambda: ops.similarity(SQUARE, SQUARE[0], (3, 3), 0), "numbers of dims differ: 4 and 3"),
        (lambda: ops.similarity(SQUARE, SQUARE, (3, 3), 2), "kind must be 0 .* got 2"),
        (lambda: ops.similarity(SQUARE, SQUARE, (3, 2), 0), r"window\[1\] must be odd .* got 2"),
        (lambda: ops.similarity(SQUARE, SQUARE, (-1, 3), 0), r"window\[0\] must be odd .* got -1"),
        (lambda: ops.similarity(SQUARE, SQUARE, (3, 5), 0), r"window\[1\] = 5 is larger .* 4"),
        (lambda: ops.similarity(SQUARE, SQUARE, (3,), 0), "1 entries for 2 spatial dims"),
        (lambda: ops.similarity(SQUARE[0, 0], SQUARE[0, 0], (), 0), "got 2 dims"),
        (lambda: ops.similarity(wrong((1,) * 6), wrong((1,) * 6), (1,) * 4, 0), "got 6 dims"),
        (lambda: ops.similarity(SQUARE.int(), SQUARE.int(), (3, 3), 0), "dtype Int is not one of"),
        (lambda: ops.apply(VALUES.cfloat(), SQUARE.cfloat(), (3, 3)), "dtype ComplexFloat is not"),
        (lambda: ops.apply(VALUES.half(), SQUARE, (3, 3)), "dtypes differ"),
        (lambda: ops.apply(VALUES[0], SQUARE, (3, 3)), r"values must be \(G, N, K\), got 2 dims"),
        (lambda: ops.apply(VALUES[:1], SQUARE, (3, 3)), r"must be \(2, 16, 9\), got \(1, 16, 9\)"),
        (lambda: ops.apply(VALUES[:, 1:], SQUARE, (3, 3)), r"got \(2, 15, 9\)"),
        (lambda: ops.apply(wrong((2, 17, 9)), SQUARE, (3, 3)), r"got \(2, 17, 9\)"),
        (lambda: ops.transpose(wrong((2, 17, 9)), (4, 4), (3, 3)), r"got \(2, 17, 9\)"),
        (lambda: ops.apply_transposed(VALUES[..., 1:], SQUARE, (3, 3)), r"got \(2, 16, 8\)"),
        (lambda: ops.apply_transposed(VALUES, SQUARE, (1, 3)), r"must be \(2, 16, 3\)"),
        (lambda: ops.transpose(VALUES, (4, 5), (3, 3)), r"must be \(2, 20, 9\)"),
        (lambda: ops.transpose(VALUES[0], (4, 4), (3, 3)), "got 2 dims"),
        (lambda: ops.transpose(VALUES, (4, 4), (3, 3, 3)), "3 entries for 2 spatial dims"),
        (lambda: ops.transpose(VALUES.long(), (4, 4), (3, 3)), "dtype Long is not one of"),
        (lambda: backward(wrong((2, 16), torch.float64)), r"lse must be \(G, N\)"),
        (lambda: backward(wrong((2, 16)).half()), r"lse must be \(G, N\)"),
        (lambda: backward(wrong((2, 17))), r"lse must be \(G, N\)"),
        (lambda: backward(wrong((1, 16))), r"lse must be \(G, N\)"),
        (lambda: backward(wrong((2, 4, 4))), r"lse must be \(G, N\)"),
        (lambda: backward(wrong((2, 16)), SQUARE[:, 1:]), "sizes of dim 1 differ: 2 and 3"),
    ],
)
def test_what_would_leave_the_tensors_is_refused(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
