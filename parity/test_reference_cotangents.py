"""The reference's cotangents against finite differences of the reference's values.

Cotangents that no test here has are equal to the package's (test_rules.py), which finite
differences check in tests/unit/test_differentiation.py.
"""

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
