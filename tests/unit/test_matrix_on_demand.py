"""Attention without its matrix: the fused op, and A computed only when somebody looks at it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from functorch.compile import make_boxed_func
from inputs import SIMILARITIES
from torch._dynamo.backends.common import aot_autograd

import circulant_attention as ca
from circulant_attention import Circulant
from circulant_attention.ops import primitives as ops


def calls(function: Any, *args: Any) -> tuple[list[str], Any]:
    """The native ops that a call runs, in order, and its result."""
    names: list[str] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "circulant_attention":
                names.append(func._opname)
            return func(*args, **(kwargs or {}))

    with Watch():
        result = function(*args)
    return names, result


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("grad", [False, True])
def test_a_dropped_matrix_is_never_computed(name: str, grad: bool, device: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 5, device=device).requires_grad_(grad)

    def run() -> Any:
        y, a = ca.circulant_mh_attention(SIMILARITIES[name], q, k, v, 3, 2)
        assert (a.shape, a.dtype, a.device) == ((2, 2, 30, 30), q.dtype, q.device)
        assert (a.requires_grad, a.window, a.nnz) == (grad, (3, 3), 2 * 2 * 30 * 9)
        if grad:
            torch.autograd.grad(y.sum(), (q,)) if q.is_leaf else y.sum().backward()
        return y

    names, _ = calls(run)
    assert names == ["attention", "attention_backward"][: 1 + grad]


def test_y_is_the_same_whether_or_not_somebody_looks(device: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 5, device=device)
    y, _ = ca.circulant_attention(q, k, v, 3)
    z, a = ca.circulant_attention(q, k, v, 3)
    assert a.sum() > 0
    assert torch.equal(y, z)
    torch.testing.assert_close(a @ v, y)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_matrix_on_demand_is_the_adjacency(name: str, device: str) -> None:
    """And carries its gradient to q and k."""
    q, k, v = (
        torch.randn(2, 4, 6, 5, dtype=torch.float64, device=device, requires_grad=True)
        for _ in "qkv"
    )
    _, a = ca.circulant_mh_attention(SIMILARITIES[name], q, k, v, (5, 3), 2)
    weights = torch.randn_like(a.to_dense())
    _, dense = reference.attention(name, q, k, v, (5, 3), 2)
    torch.testing.assert_close(a.to_dense(), dense)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), (q, k)) for x in (a.to_dense(), dense))
    torch.testing.assert_close(ours, theirs)


def test_a_matrix_whose_inputs_were_changed_raises(device: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 5, device=device).unbind()
    _, early = ca.circulant_attention(q, k, v, 3)
    values = early.values.clone()
    _, late = ca.circulant_attention(q, k, v, 3)
    k.add_(1)
    assert torch.equal(early.values, values)
    with pytest.raises(RuntimeError, match="changed in place"):
        late.sum()
    with pytest.raises(RuntimeError, match="changed in place"):
        late @ v
    assert late.shape == (2, 1, 30, 30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_opcheck(dtype: torch.dtype, device: str) -> None:
    q, k, v = torch.randn(3, 2, 3, 4, 5, dtype=dtype, device=device)
    settings = ([3, 3], int(ops.SimilarityKind.DOT), 0.5)
    forward, backward = (
        torch.ops.circulant_attention.attention.default,
        torch.ops.circulant_attention.attention_backward.default,
    )
    torch.library.opcheck(forward, (*(x.requires_grad_() for x in (q, k, v)), *settings))
    y, lse = forward(q.detach(), k.detach(), v.detach(), *settings)
    args = (torch.randn_like(y), q.detach(), k.detach(), v.detach(), y, lse)
    torch.library.opcheck(backward, (*args, *settings))


def test_vmap_of_the_bare_ops(device: str) -> None:
    q, k, v = torch.randn(3, 4, 2, 3, 4, 5, dtype=torch.float64, device=device)
    settings = ([3, 3], int(ops.SimilarityKind.DOT), 0.5)
    native = torch.ops.circulant_attention
    y, lse = torch.func.vmap(lambda q, k: native.attention(q, k, v[0], *settings))(q, k)
    one, one_lse = native.attention(q[1], k[1], v[0], *settings)
    torch.testing.assert_close((y[1], lse[1]), (one, one_lse))


def test_compiled_graphs_drop_an_unused_matrix(device: str) -> None:
    seen: list[list[str]] = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        targets = (str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        seen.append([name.split(".")[1] for name in targets if name.startswith("circulant_att")])
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=compiler, bw_compiler=compiler)
    x = torch.randn(1, 2, 5, 6, device=device, requires_grad=True)
    dropped = torch.compile(
        lambda x: ca.circulant_attention(x, x, x, 3)[0], fullgraph=True, backend=backend
    )
    dropped(x).sum().backward()
    assert seen == [["attention"], ["attention_backward"]]
    seen.clear()
    torch.compiler.reset()
    kept = torch.compile(
        lambda x: ca.circulant_attention(x, x, x, 3), fullgraph=True, backend=backend
    )
    y, a = kept(x)
    assert isinstance(a, Circulant)
    assert seen[0] == ["attention", "similarity"]
    torch.testing.assert_close(a @ x, y)


def resident() -> int:
    """Bytes resident, and their peak since the last reset, from Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is Linux's")
@pytest.mark.parametrize("grad", [False, True])
def test_peak_memory_without_the_matrix(grad: bool) -> None:
    """The entries of A would take 57 MB here; the whole call stays far below one copy of them."""
    q, k, v = torch.randn(3, 1, 8, 128, 128).unbind()
    leaves = [x.requires_grad_(grad) for x in (q, k, v)]
    window, entries = 29, 128 * 128 * 29 * 29 * 4

    def run() -> None:
        y, _ = ca.circulant_attention(*leaves, window)
        if grad:
            y.sum().backward()

    run()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    run()
    assert resident() - before < entries / 4
