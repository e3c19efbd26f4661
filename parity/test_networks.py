"""The small networks of the Julia package's gradient tests: losses and gradients, same sizes."""

import dataclasses

import numpy as np
import pytest
import torch

import circulant_attention as ca
from parity import cases
from parity.cases import REFERENCE_SIMFUN, SIMFUN, doubles, simfuns
from parity.compare import assert_close
from parity.convention import to_julia, to_torch
from parity.reference import network
from parity.tolerance import of_conditioning

pytestmark = pytest.mark.usefixtures("device")

WINDOW = 3
NAMES = [field.name for field in dataclasses.fields(network.Parameters)]

dims = pytest.mark.parametrize("dims", [1, 2])
heads = pytest.mark.parametrize("nheads", [1, 2])


def conv(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Convolve as NNlib does, which turns the kernel round, with torch, which does not."""
    spatial = tuple(range(2, x.dim()))
    return (torch.conv1d if len(spatial) == 1 else torch.conv2d)(x, w.flip(spatial))


def output(x, simfun, nheads, wx, wk, wq, wv, wz, alpha):
    """Give the output of a network: with one head in the plain functions, as Julia's test does."""
    xx, k, q, v = (conv(x, w) for w in (wx, wk, wq, wv))
    if nheads == 1:
        a = ca.circulant_adjacency(simfun, k, q, WINDOW)
        b = ca.circulant_adjacency(simfun, xx, xx, WINDOW)
        z = (alpha * a + (1 - alpha) * b) @ v
    else:
        a = ca.circulant_mh_adjacency(simfun, k, q, WINDOW, nheads)
        b = ca.circulant_mh_adjacency(simfun, xx, xx, WINDOW, nheads)
        z = (alpha * a + (1 - alpha) * b) @ ca.mh @ v
    return conv(z, wz)


def adjacency_loss(z1, z2, simfun, nheads, wx, alpha):
    """Give the sum of the squares of an image, weighted by its adjacency with another one."""
    x, y = conv(z1, wx), conv(z2, wx)
    if nheads == 1:
        z = (alpha * ca.circulant_adjacency(simfun, x, y, WINDOW)) @ x
    else:
        z = (alpha * ca.circulant_mh_adjacency(simfun, x, y, WINDOW, nheads)) @ ca.mh @ x
    return z.abs().square().sum()


def leaves(case: cases.NetworkCase, names: list[str]) -> list[torch.Tensor]:
    """Give parameters as tensors that ask for their gradients."""
    return [to_torch(getattr(case.parameters, name)).requires_grad_() for name in names]


def terms(dims: int) -> int:
    """Count the products of the longest sum: a kernel of three per dim over eight channels."""
    return 2 * 8 * 3**dims


def compare(ours, parameters, expected, arguments, names, dims):
    """Compare a loss and its gradients with a function of the reference that gives both."""
    found = [ours, *torch.autograd.grad(ours, parameters)]
    bounds = of_conditioning(expected, arguments, terms(dims))
    for name, mine, theirs, bound in zip(names, found, expected(*arguments), bounds, strict=True):
        assert_close(to_julia(mine.contiguous()), theirs, bound, name)


@doubles
@simfuns
@heads
@dims
def test_loss_and_gradients(dims, nheads, simfun, dtype):
    case = cases.network_case(dims, nheads, dtype)
    parameters = leaves(case, NAMES)
    z = output(to_torch(case.x), SIMFUN[simfun], nheads, *parameters)
    # As many pixels as the target has: 12 less twice 2 per dim.
    assert z.shape == case.target.shape[::-1] == (2, 4, *(8,) * dims)
    ours = (to_torch(case.target) - z).abs().square().sum() / z.numel()

    def expected(x, *arrays):
        settings = REFERENCE_SIMFUN[simfun], WINDOW, nheads
        value, gradient = network.loss(x, case.target, network.Parameters(*arrays), *settings)
        return np.array(value), *(getattr(gradient, name) for name in NAMES)

    arguments = (case.x, *(getattr(case.parameters, name) for name in NAMES))
    compare(ours, parameters, expected, arguments, ["loss", *NAMES], dims)


@doubles
@simfuns
@heads
@dims
def test_adjacency_loss_and_gradients(dims, nheads, simfun, dtype):
    case = cases.network_case(dims, nheads, dtype)
    parameters = leaves(case, ["wx", "alpha"])
    ours = adjacency_loss(*map(to_torch, (case.z1, case.z2)), SIMFUN[simfun], nheads, *parameters)

    def expected(*arrays):
        settings = REFERENCE_SIMFUN[simfun], WINDOW, nheads
        value, *gradients = network.adjacency_loss(*arrays, *settings)
        return np.array(value), *gradients

    arguments = (case.z1, case.z2, case.parameters.wx, case.parameters.alpha)
    compare(ours, parameters, expected, arguments, ["loss", "wx", "alpha"], dims)


@simfuns
@heads
@dims
def test_single_precision_as_in_julia(dims, nheads, simfun):
    # Julia's test runs in Float32 and ComplexF32, and asks for a gradient of every parameter.
    for dtype in (np.float32, np.complex64):
        case = cases.network_case(dims, nheads, dtype)
        parameters = leaves(case, NAMES)
        z = output(to_torch(case.x), SIMFUN[simfun], nheads, *parameters)
        loss = (to_torch(case.target) - z).abs().square().sum() / z.numel()
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            assert g.dtype == p.dtype and g.shape == p.shape
            assert torch.isfinite(torch.view_as_real(g) if g.is_complex() else g).all()
            assert g.abs().max() > 0
