"""The reference's cotangents against finite differences of the reference's values."""

import dataclasses

import numpy as np
import pytest

from parity import cases, reference
from parity.cases import doubles, few_grids, normal, random_circulant, simfuns
from parity.reference import cotangents, network


def directional(f, arguments: tuple, directions: tuple, step: float = 1e-4) -> float:
    """Differentiate a real function along a direction, to the fourth order of the step."""

    def at(t: float) -> float:
        return f(*(x + t * d for x, d in zip(arguments, directions, strict=True)))

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


# The truncation error of the difference is of the order of step^4 = 1e-16 times a fifth derivative.
# A sum of at most 72 * 49 * 6 = 2.1e4 products of size 1.5 is rounded by at most 1e-16 times 3e4 in
# blocks, whichever way BLAS orders it, and the quotient magnifies that by 18 / 12 over the step:
# below 1e-7. A wrong cotangent is wrong in the first digits.
DIFFERENCE = 1e-7


@doubles
@few_grids
def test_cotangents_are_those_of_finite_differences(grid, dtype):
    x, y, u, v = cases.images(grid, 3, 6, dtype, "xyuv")
    a, b = (random_circulant(grid, 2, 3, dtype, name) for name in "ab")
    seed = random_circulant(grid, 1, 6, np.float64, "seed")

    for simfun in cases.REFERENCE_SIMFUN.values():

        def similarity(x, y, simfun=simfun):
            return cases.inner(
                seed.nzVal, reference.circulant_similarity(simfun, x, y, grid.window).nzVal
            )

        dx, dy = cotangents.similarity(simfun, x, y, seed)
        ours = cases.inner(dx, u) + cases.inner(dy, v)
        assert directional(similarity, (x, y), (u, v)) == pytest.approx(ours, abs=DIFFERENCE)

    for apply, rule in (
        (reference.circulant_attention, cotangents.attention),
        (reference.circulant_transposed_attention, cotangents.transposed_attention),
    ):

        def applied(values, x, apply=apply):
            return cases.inner(y, apply(a.like(values), x))

        da, dx = rule(a, x, y)
        ours = cases.inner(da.nzVal, b.nzVal) + cases.inner(dx, u)
        found = directional(applied, (a.nzVal, x), (b.nzVal, u))
        assert found == pytest.approx(ours, abs=DIFFERENCE)


@doubles
@pytest.mark.parametrize("broadcast", ["neither", "scale", "array"])
def test_scale_cotangents_are_those_of_finite_differences(dtype, broadcast):
    grid = cases.Grid((4, 5), 3)
    heads, batch = (1, 1) if broadcast == "array" else (2, 3)
    a, b = (random_circulant(grid, heads, batch, dtype, name) for name in "ab")
    shape = (1, 1, 1, 3) if broadcast == "scale" else (1, 1, 2, 3)
    c, d = normal(shape, dtype, "c"), normal(shape, dtype, "d")
    seed = random_circulant(grid, 2, 3, dtype, "seed")

    def scaled(c, values):
        return cases.inner(seed.nzVal, reference.scale(c, a.like(values)).nzVal)

    dc, da = cotangents.scaling(c, a, seed)
    assert dc.shape == c.shape and da.nzVal.shape == a.nzVal.shape
    ours = cases.inner(dc, d) + cases.inner(da.nzVal, b.nzVal)
    found = directional(scaled, (c, a.nzVal), (d, b.nzVal))
    assert found == pytest.approx(ours, abs=DIFFERENCE)


@doubles
@simfuns
def test_cotangents_of_whole_attention_are_those_of_finite_differences(dtype, simfun):
    grid = cases.Grid((5, 4), 3)
    simfun = cases.REFERENCE_SIMFUN[simfun]
    q, k, v, dq, dk, dv, seed = cases.images(grid, 4, 2, dtype, "qkvabcs")

    def one_head(q, k, v):
        return cases.inner(seed, reference.circulant_attention(simfun, q, k, v, 3)[0])

    def two_heads(q, k, v):
        return cases.inner(seed, reference.circulant_mh_attention(simfun, q, k, v, 3, 2)[0])

    for f, found in (
        (one_head, cotangents.attention_of_qkv(simfun, q, k, v, 3, seed)),
        (two_heads, cotangents.mh_attention_of_qkv(simfun, q, k, v, 3, 2, seed)),
    ):
        ours = sum(map(cases.inner, found, (dq, dk, dv)))
        assert directional(f, (q, k, v), (dq, dk, dv)) == pytest.approx(ours, abs=DIFFERENCE)


@doubles
@pytest.mark.parametrize("kernel", [(3,), (3, 2)], ids=["1-d", "2-d"])
def test_convolution_is_the_definition(dtype, kernel):
    x = normal((*(6, 5)[: len(kernel)], 2, 3), dtype, "x")
    w = normal((*kernel, 2, 4), dtype, "w")
    y = network.conv(x, w)
    out = [n - k + 1 for n, k in zip(x.shape, kernel, strict=False)]
    assert y.shape == (*out, 4, 3)
    for index in cases.pairs(tuple(out)):
        expected = 0
        for tap in cases.pairs(kernel):
            # y[i] = sum_t w[t] x[i + K - t], everything from one.
            at = tuple(i + k - t - 1 for i, k, t in zip(index, kernel, tap, strict=True))
            expected = expected + w[tuple(t - 1 for t in tap)].T @ x[at]
        here = tuple(i - 1 for i in index)
        np.testing.assert_allclose(y[here], expected, rtol=0, atol=1e-13)


@doubles
@simfuns
@pytest.mark.parametrize("nheads", [1, 2])
@pytest.mark.parametrize("dims", [1, 2])
def test_network_gradients_are_those_of_finite_differences(dims, nheads, simfun, dtype):
    case = cases.network_case(dims, nheads, dtype)
    simfun = cases.REFERENCE_SIMFUN[simfun]
    names = [field.name for field in dataclasses.fields(network.Parameters)]
    weights = tuple(getattr(case.parameters, name) for name in names)
    directions = tuple(
        normal(w.shape, w.dtype, name, "d") for name, w in zip(names, weights, strict=True)
    )

    def loss(*weights):
        return network.loss(case.x, case.target, network.Parameters(*weights), simfun, 3, nheads)

    _, gradient = loss(*weights)
    ours = sum(cases.inner(getattr(gradient, n), d) for n, d in zip(names, directions, strict=True))
    found = directional(lambda *w: loss(*w)[0], weights, directions)
    assert found == pytest.approx(ours, rel=DIFFERENCE)

    _, dwx, dalpha = network.adjacency_loss(
        case.z1, case.z2, case.parameters.wx, case.parameters.alpha, simfun, 3, nheads
    )
    ours = cases.inner(dwx, directions[0]) + cases.inner(dalpha, directions[-1])
    found = directional(
        lambda w, alpha: network.adjacency_loss(case.z1, case.z2, w, alpha, simfun, 3, nheads)[0],
        (weights[0], weights[-1]),
        (directions[0], directions[-1]),
    )
    assert found == pytest.approx(ours, rel=DIFFERENCE)
