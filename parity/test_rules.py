"""Derivative rules: the package's cotangents are those of the reference.

The sizes are those of the Julia package's rule tests: 8 pixels per dim, 4 channels, batch 2, and
windows 3 and 5. Finite differences are in ``tests/unit/test_differentiation.py``.
"""

import numpy as np
import pytest
import torch

import circulant_attention as ca
from parity import cases, reference
from parity.cases import REFERENCE_SIMFUN, SIMFUN, Grid, doubles, images, normal, simfuns
from parity.compare import assert_circulant, assert_close, assert_image
from parity.convention import to_julia, to_torch
from parity.reference import cotangents
from parity.tolerance import of_conditioning, of_product, of_similarity, of_softmax, of_sum

pytestmark = pytest.mark.usefixtures("device")

JULIA_GRIDS = [Grid((8,), 3), Grid((8,), 5), Grid((8, 8), 3), Grid((8, 8), 5)]
julia_grids = pytest.mark.parametrize("grid", JULIA_GRIDS, ids=str)

CHANNELS, BATCH = 4, 2


def leaf(array: np.ndarray) -> torch.Tensor:
    """Give the tensor of an array, asking for its gradient."""
    return to_torch(array).detach().requires_grad_()


def array_of(values: torch.Tensor, grid: Grid) -> ca.Circulant:
    """Give the package's array with these entries."""
    return ca.Circulant(values, grid.window, grid.spatial_size[::-1])


@doubles
@simfuns
@julia_grids
def test_similarity_rule(grid, simfun, dtype):
    x, y = images(grid, CHANNELS, BATCH, dtype, "xy")
    seed = cases.random_circulant(grid, 1, BATCH, np.float64, "seed")
    absolute = seed.like(abs(seed.nzVal))
    ours_x, ours_y = leaf(x), leaf(y)
    ours = ca.circulant_similarity(SIMFUN[simfun], ours_x, ours_y, grid.window)
    expected = reference.circulant_similarity(REFERENCE_SIMFUN[simfun], x, y, grid.window)
    bound = of_similarity(REFERENCE_SIMFUN[simfun], x, y, grid.window, dtype)
    assert_circulant(ours.detach(), expected, bound)

    dx, dy = torch.autograd.grad(ours.values, (ours_x, ours_y), to_torch(seed.nzVal))
    expected_dx, expected_dy = cotangents.similarity(REFERENCE_SIMFUN[simfun], x, y, seed)
    # Twice K products where dS (y - x) is taken apart into dS y - dS x.
    magnitudes = cotangents.similarity(REFERENCE_SIMFUN[simfun], abs(x), -abs(y), absolute)
    bounds = (of_sum(2 * seed.per_row, abs(m), dtype) for m in magnitudes)
    for name, found, wanted, bound in zip(
        ("dx", "dy"), (dx, dy), (expected_dx, expected_dy), bounds, strict=True
    ):
        assert_image(found, wanted, bound, name=name)


# Name, the reference's function and its rule, the package's function.
PRODUCTS = {
    "attention": (reference.circulant_attention, cotangents.attention, ca.circulant_attention),
    "transposed": (
        reference.circulant_transposed_attention,
        cotangents.transposed_attention,
        ca.circulant_transposed_attention,
    ),
    "mh": (reference.circulant_mh_attention, cotangents.mh_attention, ca.circulant_mh_attention),
    "mh-transposed": (
        reference.circulant_mh_transposed_attention,
        cotangents.mh_transposed_attention,
        ca.circulant_mh_transposed_attention,
    ),
}
products = pytest.mark.parametrize("product", PRODUCTS)


def operands(grid: Grid, product: str, dtype: type) -> tuple[reference.Circulant, np.ndarray]:
    """Give a real array and an image for it: the Julia package has no complex ones here."""
    heads = 2 if product.startswith("mh") else 1
    a = cases.random_circulant(grid, heads, BATCH, np.float64, "a")
    return a, normal((*grid.spatial_size, CHANNELS, BATCH), dtype, "x")


@doubles
@products
@julia_grids
def test_attention_rule(grid, product, dtype):
    apply, rule, ours_apply = PRODUCTS[product]
    a, x = operands(grid, product, dtype)
    seed = normal(x.shape, dtype, "seed")
    values, image = leaf(a.nzVal), leaf(x)
    ours = ours_apply(array_of(values, grid), image)
    assert_image(ours, apply(a, x), of_product(apply, a, x, dtype))

    da, dx = torch.autograd.grad(ours, (values, image), to_torch(seed))
    expected_da, expected_dx = rule(a, x, seed)
    of_da, of_dx = rule(a.like(abs(a.nzVal)), abs(x), abs(seed))
    assert da.dtype == torch.float64
    bound = of_sum(CHANNELS, of_da.nzVal, dtype)
    assert_circulant(array_of(da, grid), expected_da, bound, name="dA")
    assert_image(dx, expected_dx, of_sum(a.per_row, of_dx, dtype), name="dx")


@julia_grids
def test_softmax_rule(grid):
    a, seed = (cases.random_circulant(grid, 2, BATCH, np.float64, name) for name in "as")
    values = leaf(a.nzVal)
    ours = ca.softmax(array_of(values, grid))
    expected = reference.softmax(a)
    error = of_softmax(0.0, a, np.float64)
    assert_circulant(ours.detach(), expected, error * expected.nzVal)

    (da,) = torch.autograd.grad(ours.values, values, to_torch(seed.nzVal))
    # Y (dY - sum Y dY): the error of Y enters twice.
    largest = np.max(abs(seed.nzVal))
    bound = (2 * error + of_sum(a.per_row, 1, np.float64)) * 2 * largest * expected.nzVal
    assert_circulant(array_of(da, grid), cotangents.row_softmax(expected, seed), bound, name="dA")


# Heads and batch of the scale, then of the array: the Julia package's test has two of each.
SCALES = {
    "both": ((2, 2), (2, 2)),
    "one-scale": ((1, 1), (2, 2)),
    "scale-heads": ((2, 1), (2, 2)),
    "scale-batch": ((1, 2), (2, 2)),
    "one-array": ((2, 2), (1, 1)),
    "array-heads": ((1, 2), (2, 1)),
}
scales = pytest.mark.parametrize("case", SCALES)


@doubles
@scales
@julia_grids
def test_scale_rule(grid, case, dtype):
    scale_batch, batch = SCALES[case]
    m = normal((1, 1, *scale_batch), dtype, "m")
    a = cases.random_circulant(grid, *batch, dtype, "a")
    seed = cases.random_circulant(grid, *np.maximum(scale_batch, batch), dtype, "seed")
    ours_m, values = leaf(m), leaf(a.nzVal)
    ours = ca.scale(ours_m, array_of(values, grid))
    expected = reference.scale(m, a)
    assert_circulant(ours.detach(), expected, of_sum(1, abs(expected.nzVal), dtype))

    dm, da = torch.autograd.grad(ours.values, (ours_m, values), to_torch(seed.nzVal))
    expected_dm, expected_da = cotangents.scaling(m, a, seed)
    absolute = (x.like(abs(x.nzVal)) for x in (a, seed))
    of_dm, of_da = cotangents.scaling(abs(m), *absolute)
    assert_close(to_julia(dm.contiguous()), expected_dm, of_sum(seed.nnz, of_dm, dtype), "dm")
    bound = of_sum(4, of_da.nzVal, dtype)
    assert_circulant(array_of(da, grid), expected_da, bound, name="dA")


@doubles
@pytest.mark.parametrize("nheads", [1, 2])
@simfuns
@julia_grids
def test_rule_of_whole_attention(grid, simfun, nheads, dtype):
    q, k, v, seed = images(grid, CHANNELS, BATCH, dtype, "qkvs")
    tensors = [leaf(x) for x in (q, k, v)]
    y, _ = ca.circulant_mh_attention(SIMFUN[simfun], *tensors, grid.window, nheads)
    found = torch.autograd.grad(y, tensors, to_torch(seed))

    def rule(q, k, v, seed):
        return cotangents.mh_attention_of_qkv(
            REFERENCE_SIMFUN[simfun], q, k, v, grid.window, nheads, seed
        )

    expected = rule(q, k, v, seed)
    # The longest sum is that over a window, with real and imaginary parts.
    bounds = of_conditioning(rule, (q, k, v, seed), 2 * grid.window ** len(grid.spatial_size))
    for name, ours, wanted, bound in zip("qkv", found, expected, bounds, strict=True):
        assert_image(ours, wanted, bound, name="d" + name)
    if nheads == 1:
        y, _ = ca.circulant_attention(SIMFUN[simfun], *tensors, grid.window)
        plain = torch.autograd.grad(y, tensors, to_torch(seed))
        assert all(map(torch.equal, plain, found))
