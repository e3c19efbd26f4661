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
@pytest.mark.parametrize("nheads", [1, 3])
@simfuns
@grids
def test_attention_of_queries_keys_and_values(grid, simfun, nheads, dtype):
    q, k, v = images(grid, 6, 2, dtype, "qkv")
    y, y_bound, a, a_bound = expected_attention(
        REFERENCE_SIMFUN[simfun], q, k, v, grid.window, nheads, dtype
    )
    arguments = (*map(to_torch, (q, k, v)), grid.window)
    found = [ca.circulant_mh_attention(SIMFUN[simfun], *arguments, nheads)]
    if nheads == 1:
        found.append(ca.circulant_attention(SIMFUN[simfun], *arguments))
    if nheads == 1 and simfun == "dot":  # the default
        found += [ca.circulant_attention(*arguments), ca.circulant_mh_attention(*arguments, 1)]
    for ours in found:
        assert_image(ours[0], y, y_bound, torch_dtype(dtype))
        assert_circulant(ours[1], a, a_bound, torch_dtype(real_of(dtype)))


def check_applied(found, expected, a, x, dtype):
    """Compare results of the package with what a function of the reference makes of a and x."""
    a, (x,) = a.like(*exact(a.nzVal)), exact(x)
    bound = of_product(expected, a, x, dtype)
    for name, ours in found.items():
        assert_image(ours, expected(a, x), bound, torch_dtype(dtype), name)


@dtypes
@grids
def test_attention_with_a_ready_array(grid, dtype):
    # Two heads of three batches act on a batch of six images.
    a = random_circulant(grid, 2, 3, real_of(dtype))
    (x,) = images(grid, 5, 6, dtype, "x")
    ours, image = circulant_to_torch(a), to_torch(x)
    into, into_transposed = torch.empty_like(image), torch.empty_like(image)
    assert ca.circulant_attention_(into, ours, image) is into
    found = {
        "attention(A, x)": ca.circulant_attention(ours, image),
        "A @ x": ours @ image,
        "attention_(y, A, x)": into,
    }
    check_applied(found, reference.circulant_attention, a, x, dtype)
    assert ca.circulant_transposed_attention_(into_transposed, ours, image) is into_transposed
    found = {
        "transposed_attention(A, x)": ca.circulant_transposed_attention(ours, image),
        "A.mT @ x": ours.mT @ image,
        "transposed_attention_(y, A, x)": into_transposed,
    }
    check_applied(found, reference.circulant_transposed_attention, a, x, dtype)


@dtypes
@grids
def test_heads_with_a_ready_array(grid, dtype):
    a = random_circulant(grid, 3, 2, real_of(dtype))
    (x,) = images(grid, 6, 2, dtype, "x")
    ours, image, mh = circulant_to_torch(a), to_torch(x), ca.mh
    found = {
        "mh_attention(A, x)": ca.circulant_mh_attention(ours, image),
        "mh(A, x)": mh(ours, image),
        "A @ mh @ x": ours @ mh @ image,
    }
    check_applied(found, reference.circulant_mh_attention, a, x, dtype)
    found = {
        "mh_transposed_attention(A, x)": ca.circulant_mh_transposed_attention(ours, image),
        "A.mT @ mh @ x": ours.mT @ mh @ image,
    }
    check_applied(found, reference.circulant_mh_transposed_attention, a, x, dtype)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128], ids=lambda t: t.__name__)
@pytest.mark.parametrize("real", ["neither", "x", "A"])
@few_grids
def test_complex_arrays(grid, real, dtype):
    a = random_circulant(grid, 2, 3, real_of(dtype) if real == "A" else dtype)
    (x,) = images(grid, 4, 6, real_of(dtype) if real == "x" else dtype, "x")
    A, image = circulant_to_torch(a), to_torch(x)
    check_applied({"A @ x": A @ image}, reference.circulant_attention, a, x, dtype)
    check_applied({"A.mT @ x": A.mT @ image}, reference.circulant_transposed_attention, a, x, dtype)
    found = {"A.mH @ x": A.mH @ image, "A.adjoint() @ x": A.adjoint() @ image}
    check_applied(found, reference.circulant_adjoint_attention, a, x, dtype)
    x, image = x[..., :3], image[:3]
    found = {"mh": ca.circulant_mh_attention(A, image)}
    check_applied(found, reference.circulant_mh_attention, a, x, dtype)
    found = {"mh transposed": ca.circulant_mh_transposed_attention(A, image)}
    check_applied(found, reference.circulant_mh_transposed_attention, a, x, dtype)


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
