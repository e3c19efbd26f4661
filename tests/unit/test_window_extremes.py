"""Windows at the ends of their range: far wider than a side of the grid, dilated beyond it.

The dense matrices are Kronecker products of masks of one dim, made in NumPy from the definition.
"""

from __future__ import annotations

import subprocess
import sys
from functools import reduce

import numpy as np
import pytest
import torch
from same_bits import check_threads

import circulant_attention as ca
from circulant_attention import Circulant, DotSimilarity, Window
from circulant_attention.geometry import make_geometry
from circulant_attention.nn import CirculantAttention2d, CirculantTransformerBlock

ENDS = "truncated"

# The grid, the window, and its reaches before and after the pixel.
CASES = {
    "one row": ((1, 17), Window((5, (3, 1)), boundary=ENDS), [(2, 2), (3, 1)]),
    "one column": ((17, 1), Window((4, 9), boundary=ENDS), [(2, 1), (4, 4)]),
    "one pixel": ((1, 1), Window(9, boundary=ENDS), [(4, 4), (4, 4)]),
    "wide, truncated": ((4, 400), Window((3, 301), boundary=ENDS), [(1, 1), (150, 150)]),
    "wide, circular": ((4, 400), Window((3, 302)), [(1, 1), (151, 150)]),
    "wide, mixed": (
        (4, 400),
        Window((3, (0, 301)), boundary=("circular", ENDS)),
        [(1, 1), (0, 301)],
    ),
    "classes of one pixel": (
        (7, 11),
        Window((3, 5), dilation=(7, 11), boundary=ENDS),
        [(1, 1), (2, 2)],
    ),
    "dilated beyond the grid": (
        (7, 11),
        Window(3, dilation=2**30, boundary=ENDS),
        [(1, 1), (1, 1)],
    ),
    "the whole circle": ((12, 9), Window(3, dilation=(4, 3)), [(1, 1), (1, 1)]),
    "half of the pixels": ((30,), Window(((0, 14),), dilation=2), [(0, 14)]),
    "no common divisor": ((29,), Window(((0, 4),), dilation=6), [(0, 4)]),
    "all of the grid": ((13, 9), Window((25, 17), boundary=ENDS), [(12, 12), (8, 8)]),
    "far beyond the grid": (
        (3, 2, 4),
        Window((7, 1, 50), boundary=ENDS),
        [(3, 3), (0, 0), (25, 24)],
    ),
}


def dense_mask(size: tuple[int, ...], W: Window, reaches: list[tuple[int, int]]) -> np.ndarray:
    """Whether pixel i sees pixel j, ``(N, N)``."""
    masks = []
    for at, (n, (before, after)) in enumerate(zip(size, reaches, strict=True)):
        d = W.dilation if isinstance(W.dilation, int) else W.dilation[at]
        circular = (W.boundary if isinstance(W.boundary, str) else W.boundary[at]) == "circular"
        seen = np.zeros((n, n), bool)
        for i in range(n):
            for j in range(i - d * before, i + d * after + 1, d):
                if circular or 0 <= j < n:
                    seen[i, j % n] = True
        masks.append(seen)
    return reduce(np.kron, masks)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    size, W, reaches = request.param
    return size, W, torch.from_numpy(dense_mask(size, W, reaches))


def bound(dtype: torch.dtype, wanted: torch.Tensor) -> float:
    """Of sums of at most 1000 products of numbers of order one, and of a rounded result."""
    sums = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    return (8 * torch.finfo(dtype).eps + 1000 * sums) * max(1, wanted.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_attention_and_its_gradients(case, dtype, device):
    size, W, mask = case
    torch.manual_seed(0)
    mask = mask.to(device)
    q, k, v, dy = torch.randn(4, 2, 4, *size, device=device).to(dtype) / 2
    own = [x.clone().requires_grad_() for x in (q, k, v)]
    y, A = ca.circulant_mh_attention(*own, W, 2)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    rows, columns, x = (x.flatten(2).unflatten(1, (2, 2)) for x in exact)
    weights = (rows.mT @ columns * 2**-0.5).masked_fill(~mask, -torch.inf).softmax(-1)
    expected = (x @ weights.mT).reshape(v.shape)
    assert (y - expected).abs().max() <= bound(dtype, expected)
    assert (A.to_dense() - weights).abs().max() <= bound(dtype, weights)
    assert A.nnz == 4 * mask.sum()
    found = torch.autograd.grad(y, own, dy)
    # Sums over queries, of a delta that is computed from the rounded y.
    for one, wanted in zip(found, torch.autograd.grad(expected, exact, dy.double()), strict=True):
        assert (one - wanted).abs().max() <= 8 * bound(dtype, wanted)


def test_the_matrix(case, device):
    size, W, mask = case
    torch.manual_seed(0)
    ones = Circulant(W, (2, 1, *size), device=device)
    A = ones.with_values(torch.randn_like(ones.values))
    D, mask = A.to_dense(), mask.to(device)
    assert torch.equal(D != 0, mask.expand_as(D))
    # No explicit zeros.
    coo = A.data.to_sparse_coo().coalesce()
    assert coo._nnz() == A.nnz == 2 * mask.sum()
    assert torch.equal(coo.to_dense(), D)
    assert A.to_scipy(batch=1).nnz == mask.sum()
    assert torch.equal(A.mT.to_dense(), D.mT)
    assert torch.equal(A.mT.mT.values, A.values)
    assert Circulant(A.data, W, size) == A
    torch.testing.assert_close(A.mean(), D.mean())
    scores = D.masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(A.softmax().to_dense(), scores.softmax(-1))


def test_the_same_bits_for_any_number_of_threads(case):
    size, W, _ = case
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, *size, requires_grad=True) for _ in range(3))

    def results():
        y, A = ca.circulant_mh_attention(q, k, v, W, 2)
        S = ca.circulant_similarity(DotSimilarity(), q, k, W)
        gradients = torch.autograd.grad(y.square().sum(), (q, k, v), retain_graph=True)
        return [y, A.values, S.mT.values, S.softmax().mT @ ca.mh @ v, *gradients]

    check_threads(results)


def test_entries_are_counted_without_the_offsets():
    """A loop over the offsets would take minutes."""
    everything = make_geometry(Window(2**30, boundary=ENDS), (30, 7))
    assert everything.present == 210**2
    past = make_geometry(Window(((2**30, 0),), dilation=4, boundary=ENDS), (30,))
    assert past.present == sum(i // 4 + 1 for i in range(30))


class Network(torch.nn.Module):
    """Windows of every kind in modules, with a grid of any size."""

    def __init__(self):
        super().__init__()
        globe = Window(5, dilation=(1, 2), boundary=(ENDS, "circular"))
        past = Window(((2, 0), 4), boundary=ENDS)
        self.first = CirculantAttention2d(4, 2, globe, relative_bias=True)
        self.second = CirculantTransformerBlock(4, 2, past)

    def forward(self, x):
        return self.second(x + self.first(x))


# Dynamo itself instantiates the autograd.Function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_an_exported_network_runs_in_another_process_on_another_grid(tmp_path):
    torch.manual_seed(0)
    network, x = Network().eval(), torch.randn(2, 4, 6, 11)
    sizes = {2: torch.export.Dim("rows", max=64), 3: torch.export.Dim("columns", min=9, max=64)}
    program = torch.export.export(network, (x,), dynamic_shapes=(sizes,))
    torch.export.save(program, tmp_path / "network.pt2")
    other = torch.randn(2, 4, 3, 23)
    torch.save((other, network(other)), tmp_path / "data.pt")
    code = """
import sys, torch, circulant_attention
program = torch.export.load(sys.argv[1] + "/network.pt2")
x, y = torch.load(sys.argv[1] + "/data.pt")
torch.testing.assert_close(program.module()(x), y)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_inductor_trains_one_graph_on_grids_of_any_size():
    torch.manual_seed(0)
    network = Network()
    compiled = torch.compile(network, fullgraph=True, dynamic=True)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((2, 4, 6, 11), (3, 4, 7, 15)):
            x = torch.randn(shape, requires_grad=True)
            results = []
            for function in (compiled, network):
                y = function(x)
                leaves = [x, *network.parameters()]
                results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
            # Sums of at most 1e3 products, some fused to one rounding.
            for one, other in zip(*results, strict=True):
                scale = max(1, other.abs().max().item())
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)
