"""Attention with several heads in every calling form."""

import numpy as np
import pytest

import circulant_attention as ca
from parity import reference
from parity.cases import (
    REFERENCE_SIMFUN,
    SIMFUN,
    dtypes,
    exact,
    few_grids,
    grids,
    images,
    random_circulant,
    real_of,
    simfuns,
    torch_dtype,
)
from parity.compare import assert_circulant, assert_image
from parity.convention import circulant_to_torch, to_torch
from parity.test_attention import expected_attention
from parity.tolerance import of_product, of_similarity, of_softmax

pytestmark = pytest.mark.usefixtures("device")


@dtypes
@simfuns
@grids
def test_attention_of_queries_keys_and_values(grid, simfun, dtype):
    q, k, v = images(grid, 6, 2, dtype, "qkv")
    y, y_bound, a, a_bound = expected_attention(
        REFERENCE_SIMFUN[simfun], q, k, v, grid.window, 3, dtype
    )
    ours = ca.circulant_mh_attention(SIMFUN[simfun], *map(to_torch, (q, k, v)), grid.window, 3)
    assert_image(ours[0], y, y_bound, torch_dtype(dtype))
    assert_circulant(ours[1], a, a_bound, torch_dtype(real_of(dtype)))


@dtypes
@grids
def test_attention_with_a_ready_array(grid, dtype):
    a = random_circulant(grid, 3, 2, real_of(dtype))
    (x,) = images(grid, 6, 2, dtype, "x")
    widened = a.like(*exact(a.nzVal))
    ours, image, result = circulant_to_torch(a), to_torch(x), torch_dtype(dtype)
    mh = ca.mh

    expected = reference.circulant_mh_attention(widened, *exact(x))
    bound = of_product(reference.circulant_mh_attention, widened, *exact(x), dtype)
    applied = ca.circulant_mh_attention(ours, image)
    assert_image(applied, expected, bound, result, "mh_attention(A, x)")
    assert_image(mh(ours, image), expected, bound, result, "mh(A, x)")
    assert_image(ours @ mh @ image, expected, bound, result, "A @ mh @ x")

    expected = reference.circulant_mh_transposed_attention(widened, *exact(x))
    bound = of_product(reference.circulant_mh_transposed_attention, widened, *exact(x), dtype)
    transposed = ca.circulant_mh_transposed_attention(ours, image)
    assert_image(transposed, expected, bound, result, "mh_transposed_attention(A, x)")
    assert_image(ours.mT @ mh @ image, expected, bound, result, "A.mT @ mh @ x")


@few_grids
def test_complex_arrays(grid):
    a = random_circulant(grid, 3, 2, np.complex128)
    (x,) = images(grid, 6, 2, np.complex128, "x")
    ours, image = circulant_to_torch(a), to_torch(x)
    for apply, applied in (
        (reference.circulant_mh_attention, ca.circulant_mh_attention(ours, image)),
        (
            reference.circulant_mh_transposed_attention,
            ca.circulant_mh_transposed_attention(ours, image),
        ),
    ):
        assert_image(applied, apply(a, x), of_product(apply, a, x, np.complex128))


@dtypes
@simfuns
@grids
def test_adjacency_is_not_scaled(grid, simfun, dtype):
    x, y = images(grid, 6, 2, dtype, "xy")
    split = [reference.splitheads(image, 3) for image in exact(x, y)]
    similarity = reference.circulant_similarity(REFERENCE_SIMFUN[simfun], *split, grid.window)
    error = of_similarity(REFERENCE_SIMFUN[simfun], *split, grid.window, dtype)
    expected = reference.circulant_mh_adjacency(
        REFERENCE_SIMFUN[simfun], *exact(x, y), grid.window, 3
    )
    bound = of_softmax(error, similarity, real_of(dtype)) * expected.nzVal
    ours = ca.circulant_mh_adjacency(SIMFUN[simfun], to_torch(x), to_torch(y), grid.window, 3)
    assert_circulant(ours, expected, bound, torch_dtype(real_of(dtype)))
