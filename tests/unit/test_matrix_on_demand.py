"""Attention without its matrix: the fused op, and A computed on first use, in torch's modes."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from functorch.compile import make_boxed_func
from inputs import SIMILARITIES
from rounding import eps
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import circulant_attention as ca
import circulant_attention.nn
from circulant_attention import Circulant, circulant_attention, circulant_mh_attention, mh
from circulant_attention.ops import primitives as ops


def calls(function: Any, *args: Any) -> tuple[list[str], Any]:
    """The ops that a call runs, in order, and its result."""
    names: list[str] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        result = function(*args)
    return names, result


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("grad", [False, True])
def test_a_dropped_matrix_is_never_computed(name: str, grad: bool, device: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 5, device=device).requires_grad_(grad)

    def run() -> Any:
        y, a = circulant_mh_attention(SIMILARITIES[name], q, k, v, 3, 2)
        assert (a.shape, a.dtype, a.device) == ((2, 2, 30, 30), q.dtype, q.device)
        assert (a.requires_grad, a.window, a.nnz) == (grad, (3, 3), 2 * 2 * 30 * 9)
        if grad:
            torch.autograd.grad(y.sum(), (q,)) if q.is_leaf else y.sum().backward()
        return y

    names, _ = calls(run)
    native = [name.split(".")[1] for name in names if name.startswith("circulant_attention.")]
    assert native == ["attention", "attention_backward"][: 1 + grad]


def test_y_is_the_same_with_and_without_the_matrix(device: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 5, device=device)
    y, _ = circulant_attention(q, k, v, 3)
    z, a = circulant_attention(q, k, v, 3)
    assert a.sum() > 0
    assert torch.equal(y, z)
    assert_close(a @ v, y)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_matrix_on_demand_is_the_adjacency(name: str, device: str) -> None:
    """And carries its gradient to q and k."""
    q, k, v = (
        torch.randn(2, 4, 6, 5, dtype=torch.float64, device=device, requires_grad=True)
        for _ in "qkv"
    )
    _, a = circulant_mh_attention(SIMILARITIES[name], q, k, v, (5, 3), 2)
    weights = torch.randn_like(a.to_dense())
    _, dense = reference.attention(name, q, k, v, (5, 3), 2)
    assert_close(a.to_dense(), dense)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), (q, k)) for x in (a.to_dense(), dense))
    assert_close(ours, theirs)


@pytest.mark.parametrize("backend", [None, "eager", "aot_eager"])
def test_a_matrix_whose_inputs_were_changed_raises(backend: str | None, device: str) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 5, device=device).unbind()
    _, early = circulant_attention(q, k, v, 3)
    values = early.values.clone()
    _, late = circulant_attention(q, k, v, 3)
    k.add_(1)
    assert torch.equal(early.values, values)
    for use in (lambda A: A.sum(), lambda A: A @ v):
        with pytest.raises(RuntimeError, match="changed in place"):
            (compiled(use, backend) if backend else use)(late)
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
    assert_close((y[1], lse[1]), (one, one_lse))


def test_compiled_graphs_drop_an_unused_matrix(device: str) -> None:
    seen: list[list[str]] = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        targets = (str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        seen.append([name.split(".")[1] for name in targets if name.startswith("circulant_att")])
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=compiler, bw_compiler=compiler)
    x = torch.randn(1, 2, 5, 6, device=device, requires_grad=True)
    dropped = torch.compile(
        lambda x: circulant_attention(x, x, x, 3)[0], fullgraph=True, backend=backend
    )
    dropped(x).sum().backward()
    assert seen == [["attention"], ["attention_backward"]]
    seen.clear()
    torch._dynamo.reset()
    kept = torch.compile(lambda x: circulant_attention(x, x, x, 3), fullgraph=True, backend=backend)
    y, a = kept(x)
    assert isinstance(a, Circulant)
    assert seen[0] == ["attention", "adjacency"]
    assert_close(a @ x, y)


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
        y, _ = circulant_attention(*leaves, window)
        if grad:
            y.sum().backward()

    run()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    run()
    assert resident() - before < entries / 4


def attended(requires_grad: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor, Circulant]:
    q, k, v = (torch.randn(2, 4, 6, 5, requires_grad=requires_grad) for _ in "qkv")
    return q, k, v, *circulant_attention(q, k, v, 3)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def compiled(function: Any, backend: str = "aot_eager", fullgraph: bool = True) -> Any:
    return torch.compile(function, backend=backend, fullgraph=fullgraph)


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_lazy_matrix_enters_a_compiled_function(backend: str, fullgraph: bool) -> None:
    _, _, v, y, a = attended()
    apply = compiled(lambda a, x: a @ x, backend, fullgraph)
    assert_close(apply(a, v), y)
    _, _, v, y, a = attended()
    assert_close(apply(a.mT, v), a.mT @ v)
    assert_close(compiled(lambda a: a.mT.sum(-1), backend, fullgraph)(a), a.mT.sum(-1))


# The compiler looks at the gradients of its inputs; it hides the warning unless it is an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_function_differentiates_a_lazy_matrix() -> None:
    torch.manual_seed(0)
    q, _, v, _, a = attended(requires_grad=True)
    (expected,) = torch.autograd.grad((a @ v).square().sum(), q)
    torch.manual_seed(0)
    q, _, v, _, a = attended(requires_grad=True)
    result = compiled(lambda a, x: (a @ x).square().sum())(a, v)
    assert_close(torch.autograd.grad(result, q)[0], expected)


def test_a_transposed_matrix_leaves_a_compiled_function() -> None:
    _, _, v, _, a = attended()
    transposed = compiled(lambda a: a.mT)(a)
    assert_close(transposed @ v, a.mT @ v)
    assert transposed == a.mT


class _Row(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return circulant_attention(x, x, x, 3)[1][0, 0, 7]


class _Dense(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return circulant_attention(x, x, x, 3)[1].to_dense()


def check_real_indices(size: tuple[int, ...]) -> None:
    a = Circulant(3, (1, 1, *size))
    for indices in (a.col_indices(), a.crow_indices()):
        assert not isinstance(indices, FakeTensor)
    assert a.to_dense().sum() == a.nnz


@pytest.mark.parametrize("strict", [False, True])
def test_export_leaves_no_fake_indices(strict: bool) -> None:
    x = torch.randn(1, 4, 7, 6)
    for module in (_Row(), _Dense(), _Row()):
        exported = torch.export.export(module, (x,), strict=strict)
        check_real_indices((7, 6))
        assert_close(exported.module()(x), module(x))


def test_fake_tensor_mode_leaves_no_fake_indices() -> None:
    """Neither with an empty cache, nor with one that holds real indices."""
    for _ in range(2):
        with FakeTensorMode():
            a = Circulant(3, (1, 1, 7, 5))
            assert isinstance(a.col_indices(), FakeTensor)
            assert isinstance(a.to_dense(), FakeTensor)
        check_real_indices((7, 5))


def test_fake_tensor_mode_leaves_no_fake_entries() -> None:
    q, k, v = torch.randn(3, 1, 4, 6, 5)
    y, a = ca.circulant_attention(q, k, v, 3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert isinstance(a.values, FakeTensor)
    assert_close(a @ v, y)


def test_make_fx_leaves_no_fake_indices() -> None:
    x = torch.randn(1, 4, 5, 8)
    graph = make_fx(_Dense(), tracing_mode="fake")(x)
    check_real_indices((5, 8))
    assert_close(graph(x), _Dense()(x))


def test_indices_that_a_user_writes_to_are_not_shared() -> None:
    a = Circulant(3, (1, 1, 9))
    columns = a.col_indices().clone()
    a.col_indices().zero_()
    a.crow_indices().zero_()
    assert torch.equal(Circulant(3, (1, 1, 9)).col_indices(), columns)
    assert a.data.to_dense().sum() == 27


def test_indices_made_in_inference_mode_serve_gradients() -> None:
    with torch.inference_mode():
        Circulant(3, (1, 1, 11)).col_indices()
    values = torch.ones(1, 1, 33, requires_grad=True)
    Circulant(values, 3, (11,)).to_dense().sum().backward()
    assert torch.equal(values.grad, torch.ones(1, 1, 33))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_inference_mode_is_never_stale(name: str) -> None:
    with torch.inference_mode():
        x = torch.randn(2, 4, 6, 5)
        before = x.clone()
        y, a = circulant_mh_attention(SIMILARITIES[name], x, x, x, 3, 2)
        x += y
        assert_close(a @ mh @ before, y)


def test_a_look_in_inference_mode_cuts_no_gradient() -> None:
    torch.manual_seed(0)
    q, _, _, y, a = attended(requires_grad=True)
    (expected,) = torch.autograd.grad(y.mean() + a.rows[..., 0].sum(), q)
    torch.manual_seed(0)
    q, _, v, y, a = attended(requires_grad=True)
    transposed = a.mT
    with torch.inference_mode():
        a.values.mean()
        transposed.values.mean()
        transposed @ v
    assert a.requires_grad
    assert transposed.requires_grad
    (gradient,) = torch.autograd.grad(y.mean() + a.rows[..., 0].sum(), q)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("scale", [1, 3, 10, 1000])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SIMILARITIES)
def test_half_precision_weights_are_rounded_once(
    name: str, dtype: torch.dtype, scale: int, autocast: bool
) -> None:
    """The scores stay in float32: only the softmax and y are rounded."""
    spatial, window = ((8, 8), 5) if scale == 1000 else ((12, 10), 7)
    q, k, v = (torch.randn(1, 32, *spatial).to(dtype) for _ in "qkv")
    q, k = q * scale, k * scale
    inputs = [x.float() for x in (q, k, v)] if autocast else [q, k, v]
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        y, a = circulant_attention(SIMILARITIES[name], *inputs, window)
        assert a.dtype == y.dtype == dtype
        values = a.values
        applied = a @ inputs[2]
    assert values.dtype == dtype
    exact, dense = reference.attention(name, *(x.double() for x in (q, k, v)), window, 1)
    # Scores are sums of 32 products in float32; their error e multiplies a weight by exp(e).
    score = q.double().abs().max() * k.double().abs().max() * 32**0.5 * 4
    bound = torch.expm1(64 * eps(torch.float32) * score)
    assert_close(a.to_dense().double(), dense, rtol=float(eps(dtype) + bound), atol=eps(dtype) ** 2)
    # Each weight and y are rounded once: |y| is at most the largest |v|.
    largest = float(v.double().abs().max())
    tolerance = float(2 * eps(dtype) + bound) * largest
    for result in (y, applied):
        assert_close(result.double(), exact, rtol=0, atol=tolerance)


def test_threads_compute_a_lazy_matrix_once() -> None:
    calls = []
    _, _, _, _, a = attended()
    source = a._source
    compute = source.compute

    def count(*inputs: Tensor) -> Tensor:
        calls.append(1)
        return compute(*inputs)

    source.compute = count
    barrier = threading.Barrier(4)

    def look() -> None:
        barrier.wait()
        source.get()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_infix_heads_compile_with_a_graph_break() -> None:
    """torch traces ``@`` only if one side is a tensor, as the docstring of ``mh`` says."""
    x = torch.randn(2, 4, 6, 5)
    a = ca.circulant_mh_adjacency(ca.DotSimilarity(), x, x, 3, 2)
    assert_close(compiled(lambda a, x: mh(a, x))(a, x), mh(a, x))
    assert_close(compiled(lambda a, x: a @ mh @ x, fullgraph=False)(a, x), mh(a, x))
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"matmul|_Heads"):
        compiled(lambda a, x: a @ mh @ x)(a, x)


@pytest.mark.filterwarnings("ignore")
def test_jit_trace_is_refused_with_a_hint() -> None:
    x = torch.randn(1, 4, 6, 5)
    with pytest.raises(TypeError, match=r"use torch.compile or torch.export"):
        torch.jit.trace(lambda x: circulant_attention(x, x, x, 3)[0], x)


def test_modules_in_inference_mode_copy_no_features() -> None:
    """Copies of q and k serve a lazy A; without weights there is none."""
    module = nn.Sequential(ca.nn.CirculantAttention2d(8, heads=2, window=3)).eval()
    with torch.inference_mode():
        names, _ = calls(module, torch.randn(1, 8, 6, 5))
    assert "aten.clone.default" not in names
    assert "circulant_attention.attention.default" in names
