"""Attention in every calling form, its transposed and its adjoint twin."""

import numpy as np
import pytest
import torch

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
from parity.tolerance import of_product, of_similarity, of_softmax

pytestmark = pytest.mark.usefixtures("device")


def expected_attention(simfun, q, k, v, window, nheads, dtype):
    """Give what the reference makes of q, k and v, and how far off it may be."""
    q, k, v = exact(q, k, v)
    y, a = reference.circulant_mh_attention(simfun, q, k, v, window, nheads)
    root = (q.shape[-2] / nheads) ** 0.25
    split = [reference.splitheads(x / root, nheads) for x in (q, k)]
    similarity = reference.circulant_similarity(simfun, *split, window)
    error = of_softmax(of_similarity(simfun, *split, window, dtype), similarity, real_of(dtype))
    y_bound = of_product(reference.circulant_mh_attention, a, v, dtype, error)
    return y, y_bound, a, error * a.nzVal


@dtypes
@simfuns
@grids
def test_attention_of_queries_keys_and_values(grid, simfun, dtype):
    q, k, v = images(grid, 5, 3, dtype, "qkv")
    y, y_bound, a, a_bound = expected_attention(
        REFERENCE_SIMFUN[simfun], q, k, v, grid.window, 1, dtype
    )
    arguments = (*map(to_torch, (q, k, v)), grid.window)
    found = [ca.circulant_attention(SIMFUN[simfun], *arguments)]
    if simfun == "dot":  # the default
        found.append(ca.circulant_attention(*arguments))
    for ours in found:
        assert_image(ours[0], y, y_bound, torch_dtype(dtype))
        assert_circulant(ours[1], a, a_bound, torch_dtype(real_of(dtype)))


@dtypes
@grids
def test_attention_with_a_ready_array(grid, dtype):
    # Two heads of three batches act on a batch of six images.
    a = random_circulant(grid, 2, 3, real_of(dtype))
    (x,) = images(grid, 5, 6, dtype, "x")
    widened = a.like(*exact(a.nzVal))
    ours, image, result = circulant_to_torch(a), to_torch(x), torch_dtype(dtype)

    expected = reference.circulant_attention(widened, *exact(x))
    bound = of_product(reference.circulant_attention, widened, *exact(x), dtype)
    into = torch.empty_like(image)
    assert_image(ca.circulant_attention(ours, image), expected, bound, result, "attention(A, x)")
    assert_image(ours @ image, expected, bound, result, "A @ x")
    assert ca.circulant_attention_(into, ours, image) is into
    assert_image(into, expected, bound, result, "attention_(y, A, x)")

    expected = reference.circulant_transposed_attention(widened, *exact(x))
    bound = of_product(reference.circulant_transposed_attention, widened, *exact(x), dtype)
    transposed = ca.circulant_transposed_attention(ours, image)
    assert_image(transposed, expected, bound, result, "transposed_attention(A, x)")
    assert_image(ours.mT @ image, expected, bound, result, "A.mT @ x")
    assert ca.circulant_transposed_attention_(into, ours, image) is into
    assert_image(into, expected, bound, result, "transposed_attention_(y, A, x)")


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128], ids=lambda t: t.__name__)
@pytest.mark.parametrize("real", ["neither", "x", "A"])
@few_grids
def test_complex_arrays(grid, real, dtype):
    a = random_circulant(grid, 2, 3, real_of(dtype) if real == "A" else dtype)
    (x,) = images(grid, 5, 6, real_of(dtype) if real == "x" else dtype, "x")
    widened = a.like(*exact(a.nzVal))
    ours, image, result = circulant_to_torch(a), to_torch(x), torch_dtype(dtype)
    for name, apply, applied in (
        ("A @ x", reference.circulant_attention, ours @ image),
        ("A.mT @ x", reference.circulant_transposed_attention, ours.mT @ image),
        ("A.mH @ x", reference.circulant_adjoint_attention, ours.mH @ image),
        ("A.adjoint() @ x", reference.circulant_adjoint_attention, ours.adjoint() @ image),
    ):
        bound = of_product(apply, widened, *exact(x), dtype)
        assert_image(applied, apply(widened, *exact(x)), bound, result, name)


@few_grids
def test_transposed_array_holds_the_transposed_entries(grid):
    a = random_circulant(grid, 2, 3, np.complex128)
    dense = reference.to_dense(a)
    for name, ours, expected in (
        ("A.mT", circulant_to_torch(a).mT, dense.transpose(1, 0, 2, 3)),
        ("A.mH", circulant_to_torch(a).mH, dense.conj().transpose(1, 0, 2, 3)),
    ):
        rows = [expected[i - 1, a.columns(i) - 1] for i in range(1, a.pixels + 1)]
        assert_circulant(ours, a.like(np.concatenate(rows)), 0, torch.complex128, name)
