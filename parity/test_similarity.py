"""Similarity, softmax and adjacency, each also into an array that is there already."""

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
from parity.compare import assert_circulant
from parity.convention import circulant_to_torch, spatial_to_torch, to_torch
from parity.tolerance import of_similarity, of_softmax

pytestmark = pytest.mark.usefixtures("device")


@dtypes
@simfuns
@grids
def test_similarity(grid, simfun, dtype):
    x, y = images(grid, 5, 3, dtype, "xy")
    result = torch_dtype(real_of(dtype))
    ours = ca.circulant_similarity(SIMFUN[simfun], to_torch(x), to_torch(y), grid.window)
    expected = reference.circulant_similarity(REFERENCE_SIMFUN[simfun], *exact(x, y), grid.window)
    bound = of_similarity(REFERENCE_SIMFUN[simfun], *exact(x, y), grid.window, dtype)
    assert_circulant(ours, expected, bound, result)

    into = ca.circulant(grid.window, to_torch(x))
    address = into.values.data_ptr()
    given = ca.circulant_similarity_(into, SIMFUN[simfun], to_torch(x), to_torch(y))
    assert given is into and into.values.data_ptr() == address
    assert_circulant(into, expected, bound, result)


@dtypes
@pytest.mark.parametrize("nheads", [1, 3])
@simfuns
@grids
def test_adjacency(grid, simfun, nheads, dtype):
    # The adjacency of heads is not scaled.
    x, y = images(grid, 6, 2, dtype, "xy")
    theirs, ours_x, ours_y = REFERENCE_SIMFUN[simfun], to_torch(x), to_torch(y)
    result = torch_dtype(real_of(dtype))
    split = [reference.splitheads(image, nheads) for image in exact(x, y)]
    similarity = reference.circulant_similarity(theirs, *split, grid.window)
    error = of_similarity(theirs, *split, grid.window, dtype)
    expected = reference.circulant_mh_adjacency(theirs, *exact(x, y), grid.window, nheads)
    bound = of_softmax(error, similarity, real_of(dtype)) * expected.nzVal
    ours = ca.circulant_mh_adjacency(SIMFUN[simfun], ours_x, ours_y, grid.window, nheads)
    assert_circulant(ours, expected, bound, result)
    if nheads > 1:
        return
    ours = ca.circulant_adjacency(SIMFUN[simfun], ours_x, ours_y, grid.window)
    assert_circulant(ours, expected, bound, result)
    into = ca.circulant(grid.window, ours_x)
    given = ca.circulant_adjacency_(into, SIMFUN[simfun], ours_x, ours_y)
    assert given is into
    assert_circulant(into, expected, bound, result)


@simfuns
@few_grids
def test_into_an_array_with_heads(grid, simfun, device):
    # Julia regroups heads and batch of the array to the batch of x, heads running fastest.
    x, y = images(grid, 5, 6, np.float64, "xy")
    spatial_size = spatial_to_torch(grid.spatial_size)
    similarity = reference.circulant_similarity(REFERENCE_SIMFUN[simfun], x, y, grid.window)
    bound = of_similarity(REFERENCE_SIMFUN[simfun], x, y, grid.window, np.float64)
    into = ca.Circulant(grid.window, (3, 2, *spatial_size), dtype=torch.float64, device=device)
    ca.circulant_similarity_(into, SIMFUN[simfun], to_torch(x), to_torch(y))
    grouped = bound.reshape(-1, 2, 3, order="F")
    assert_circulant(into, reference.reshape(similarity, 2, 3), grouped)

    ca.circulant_adjacency_(into, SIMFUN[simfun], to_torch(x), to_torch(y))
    expected = reference.reshape(reference.softmax(similarity), 2, 3)
    assert_circulant(into, expected, of_softmax(bound, similarity, np.float64) * expected.nzVal)


@few_grids
def test_softmax(grid):
    for dtype in (np.float32, np.float64):
        a = random_circulant(grid, 2, 3, dtype)
        widened = a.like(*exact(a.nzVal))
        expected = reference.softmax(widened)
        bound = of_softmax(0.0, widened, dtype) * expected.nzVal
        result = torch_dtype(dtype)
        ours = circulant_to_torch(a)
        before = ours.values.clone()
        assert_circulant(ca.softmax(ours), expected, bound, result, "softmax(A)")
        assert_circulant(torch.softmax(ours, -1), expected, bound, result, "torch.softmax(A, -1)")
        assert torch.equal(ours.values, before)

        into = ca.similar(ours)
        assert ca.softmax_(into, ours) is into
        assert_circulant(into, expected, bound, result, "softmax_(B, A)")
        assert torch.equal(ours.values, before)
        assert ca.softmax_(ours) is ours
        assert_circulant(ours, expected, bound, result, "softmax_(A)")
