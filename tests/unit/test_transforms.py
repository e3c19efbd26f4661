"""torch.func, vmap, compile, export, autocast and checkpoint on networks of these functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import circulant_attention as ca
from circulant_attention import Circulant, DistanceSimilarity, DotSimilarity


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch.compiler.reset()


def ours(x: Tensor) -> Tensor:
    return ca.circulant_attention(DotSimilarity(), x, x, x, 3)[0].pow(3).sum()


def dense(x: Tensor) -> Tensor:
    return reference.attention("dot", x, x, x, 3)[0].pow(3).sum()


def sample(device: str, *shape: int) -> Tensor:
    return torch.randn(*(shape or (1, 2, 3, 4)), dtype=torch.float64, device=device)


def dual(function: Callable[..., Tensor], x: Tensor, t: Tensor) -> Tensor:
    """The tangent of forward mode. A registered op without it would silently give zero."""
    with torch.autograd.forward_ad.dual_level():
        y = function(torch.autograd.forward_ad.make_dual(x, t))
        return torch.autograd.forward_ad.unpack_dual(y).tangent


TRANSFORMS = {
    "grad": lambda f, x, t: torch.func.grad(f)(x),
    "jacrev": lambda f, x, t: torch.func.jacrev(f)(x),
    "jacfwd": lambda f, x, t: torch.func.jacfwd(f)(x),
    "hessian": lambda f, x, t: torch.func.hessian(f)(x),
    "jvp": lambda f, x, t: torch.func.jvp(f, (x,), (t,)),
    "vjp": lambda f, x, t: torch.func.vjp(f, x)[1](t.sum()),
    "forward mode": dual,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_func(name: str, device: str) -> None:
    x, t = sample(device), sample(device)
    transform = TRANSFORMS[name]
    wanted = TRANSFORMS["jvp"](dense, x, t)[1] if name == "forward mode" else transform(dense, x, t)
    torch.testing.assert_close(transform(ours, x, t), wanted)


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 1)])
def test_vmap(in_dims: tuple[int | None, ...], device: str) -> None:
    """Over the function, and over a Circulant that goes in and comes out as a tree."""

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, Circulant]:
        a = ca.circulant_adjacency(DistanceSimilarity(), x, y, 3)
        return a.mT @ x, 2 * a.mT

    inputs = [
        sample(
            device, *((5, 1, 2, 4, 3) if d == 0 else (1, 5, 2, 4, 3) if d == 1 else (1, 2, 4, 3))
        )
        for d in in_dims
    ]
    y, a = torch.func.vmap(function, in_dims=in_dims)(*inputs)
    for at in range(5):
        one = [x if d is None else x.select(d, at) for x, d in zip(inputs, in_dims, strict=True)]
        expected_y, expected_a = function(*one)
        torch.testing.assert_close(y[at], expected_y)
        torch.testing.assert_close(a.values[at], expected_a.values)


def test_vmap_of_grad_and_of_matrices(device: str) -> None:
    xs = sample(device, 4, 1, 2, 3, 4)
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(ours))(xs), torch.func.vmap(torch.func.grad(dense))(xs)
    )
    values, x = sample(device, 4, 1, 2, 12 * 9), sample(device, 4, 2, 2, 3, 4)
    result = torch.func.vmap(lambda v, x: Circulant(v, 3, (3, 4)) @ x)(values, x)
    torch.testing.assert_close(result[2], Circulant(values[2], 3, (3, 4)) @ x[2])


def test_vjp_of_a_circulant(device: str) -> None:
    """A Circulant is a tree, so its cotangent is a Circulant."""
    x = sample(device)
    a, pullback = torch.func.vjp(lambda x: ca.circulant_adjacency(DotSimilarity(), x, x, 3), x)
    (cotangent,) = pullback(torch.ones_like(a))
    # Rows of an adjacency sum to one whatever x is.
    torch.testing.assert_close(cotangent, torch.zeros_like(x))


def test_the_tree_of_a_circulant_can_be_saved() -> None:
    spec = pytree.tree_structure(Circulant((1, 3), (1, 1, 4, 5)))
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec


class Network(nn.Module):
    """The functions as a network mixes them: heads, distances, sums, scales, both maps."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 12, 1)
        self.alpha = nn.Parameter(torch.full((1, 2, 1, 1), 0.3))

    def forward(self, x: Tensor) -> tuple[Tensor, Circulant]:
        q, k, v = self.project(x).chunk(3, 1)
        y, a = ca.circulant_mh_attention(DistanceSimilarity(), q, k, v, 3, 2)
        b = ca.circulant_mh_adjacency(DotSimilarity(), y, y, 3, 2)
        c = self.alpha * a + (1 - self.alpha) * b - a / 4 + 2 * b.mT
        z = ca.mh(c, y) + ca.mh(c.mT, v)
        stacked = torch.cat([a, torch.softmax(c, -1)], 1)
        column = stacked.sum(-2).sum(1).reshape(x.shape[0], 1, *x.shape[2:])
        u, _ = ca.circulant_attention(z, v, x, (3, 5))
        return u * column, c


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile(dynamic: bool, device: str) -> None:
    """One graph, forward and backward equal to eager; other sizes without a new graph."""
    network = Network().to(device)
    graphs = 0

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic, backend=backend)
    for size in [(6, 5), (8, 7)] if dynamic else [(6, 5)]:
        x = torch.randn(2, 3, *size, device=device)
        results = []
        for function in (compiled, network):
            network.zero_grad()
            y, c = function(x)
            (y.pow(2).sum() + c.values.pow(2).sum()).backward()
            results.append((y, c.values, network.alpha.grad, network.project.weight.grad))
        torch.testing.assert_close(*results)
        assert isinstance(c, Circulant)
    assert graphs == 1


def test_compile_with_inductor(device: str) -> None:
    """The default backend, through generated code."""

    def function(x: Tensor) -> Tensor:
        y, a = ca.circulant_attention(x, x, x, 3)
        return (a.mT @ y).relu()

    x = torch.randn(1, 2, 5, 6, device=device, requires_grad=True)
    compiled = torch.compile(function, fullgraph=True)
    (expected,) = torch.autograd.grad(function(x).sum(), x)
    (actual,) = torch.autograd.grad(compiled(x).sum(), x)
    torch.testing.assert_close(compiled(x), function(x))
    torch.testing.assert_close(actual, expected)


def test_export_with_a_dynamic_batch(device: str) -> None:
    network = Network().to(device)
    batch = torch.export.Dim("batch", min=2, max=64)
    x = torch.randn(3, 3, 6, 5, device=device)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
    for image in (x, torch.randn(5, 3, 6, 5, device=device)):
        y, c = program.module()(image)
        expected_y, expected_c = network(image)
        torch.testing.assert_close(y, expected_y)
        torch.testing.assert_close(c.values, expected_c.values)


def test_autocast(device: str) -> None:
    """q, k, v and x are cast as for a matrix product; float64 and complex are left alone."""
    x = torch.randn(1, 4, 6, 5, device=device, requires_grad=True)
    with torch.autocast(device, dtype=torch.bfloat16):
        y, a = ca.circulant_attention(x, x, x, 3)
        s = ca.circulant_similarity(DotSimilarity(), x, x, 3)
        wide, _ = ca.circulant_attention(x.double(), x.double(), x.double(), 3)
        z, _ = ca.circulant_attention(x.cfloat(), x.cfloat(), x.cfloat(), 3)
        low = a.float() @ x
    assert (y.dtype, s.dtype, low.dtype) == (torch.bfloat16,) * 3
    assert (wide.dtype, z.dtype) == (torch.float64, torch.complex64)
    exact = ca.circulant_attention(x.double(), x.double(), x.double(), 3)[0]
    # bfloat16 keeps 8 bits; scores, weights and results are rounded to it once each.
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=4 * 2**-8 * exact.abs().max().item())
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_checkpoint(device: str) -> None:
    """Recomputed activations give the same gradients; a Circulant passes the boundary."""
    x = sample(device, 1, 4, 5, 6).requires_grad_()

    def layer(x: Tensor) -> tuple[Tensor, Circulant]:
        return ca.circulant_mh_attention(DistanceSimilarity(), x, x, x, 3, 2)

    def run(call: Callable[..., Any]) -> Tensor:
        y, a = call(x)
        return torch.autograd.grad((ca.mh(a, y)).pow(2).sum(), x)[0]

    torch.testing.assert_close(run(lambda x: checkpoint(layer, x, use_reentrant=False)), run(layer))
