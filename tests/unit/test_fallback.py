"""The native ops by torch's own functions: against the kernels, and on a device without kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor
from torch._library import custom_ops
from torch.testing import assert_close
from windows import CIRCULAR, TRUNCATED, VALID, Dim, key_sizes, native, sizes, table

import circulant_attention as ca
from circulant_attention.ops import fallback
from circulant_attention.ops.library import NAMESPACE

_native = getattr(torch.ops, NAMESPACE)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
GRIDS = [
    ((7,), [3]),
    ((5,), [5]),
    ((1,), [1]),
    ((6, 5), [3, 5]),
    ((2, 3, 4), [1, 3, 3]),
    ((4, 5, 6), [3, 1, 5]),
]
WINDOWS = {
    "causal": (Dim(7, 2, 0, 1, TRUNCATED),),
    "larger": (Dim(3, 4, 5, 1, TRUNCATED), Dim(4, 1, 1, 1, CIRCULAR)),
    "even": (Dim(6, 2, 1, 1, TRUNCATED), Dim(5, 2, 1, 1, CIRCULAR)),
    "one-sided": (Dim(4, 0, 1, 3, CIRCULAR), Dim(7, 3, 0, 2, CIRCULAR)),
    "dilated": (Dim(5, 1, 1, 2, CIRCULAR), Dim(6, 1, 2, 2, TRUNCATED)),
    "halo": (Dim(3, 2, 1, 2, VALID), Dim(1, 3, 3, 1, VALID)),
    "all": (Dim(3, 1, 0, 2, TRUNCATED), Dim(2, 0, 2, 1, VALID), Dim(3, 1, 1, 1, CIRCULAR)),
}
SCALE = 0.7


def calls(
    size: Sequence[int], keys: Sequence[int], window: list[int], present: Tensor, dtype: torch.dtype
) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Each native op and arguments for it, with queries on ``size`` and keys on ``keys``."""

    def features(channels: int, grid: Sequence[int]) -> Tensor:
        return torch.randn(2, channels, *grid, dtype=dtype)

    values = torch.randn(2, *present.shape, dtype=dtype).where(present, 0)
    q, k, v, dy = features(3, size), features(3, keys), features(4, keys), features(4, size)
    for kind in ca.ops.primitives.SimilarityKind:
        yield "similarity", (q, k, window, kind)
        yield "adjacency", (q, k, window, kind, SCALE)
        yield "attention", (q, k, v, window, kind, SCALE)
        y, lse = _native.attention(q, k, v, window, kind, SCALE)
        yield "attention_backward", (dy, q, k, v, y, lse, window, kind, SCALE)
    yield "apply", (values, v, window)
    yield "apply_transposed", (values, dy, window)
    if size == keys:
        yield "transpose", (values, size, window)
    yield "softmax_backward", (values, values.softmax(-1))
    if dtype in (torch.float32, torch.float64):
        rows = values.flatten(1)
        yield "linear_combination", (rows, rows[:, 0], rows.cos(), rows[0, :1])


def test_every_native_op_has_a_fallback():
    names = (name.split("::") for name in torch._C._dispatch_get_all_op_names())
    defined = {name for namespace, name in names if namespace == NAMESPACE}
    of_python = {name.split("::")[1] for name in custom_ops.OPDEFS} | {"unchanged"}
    assert defined - of_python == {op.__name__ for op in fallback._OPS}


def check(arguments: Iterator[tuple[str, tuple[object, ...]]], dtype: torch.dtype) -> None:
    """As the kernels: both round sums of at most 75 terms in another order, halves once more."""
    half = dtype in (torch.float16, torch.bfloat16)
    rounding = torch.finfo(dtype).eps if half else 100 * torch.finfo(dtype).eps
    for name, inputs in arguments:
        expected = getattr(_native, name)(*inputs)
        found = getattr(fallback, name)(*inputs)
        if isinstance(expected, Tensor):
            expected, found = (expected,), (found,)
        for one, other in zip(expected, found, strict=True):
            assert other.is_contiguous()
            largest = max(1.0, one.abs().max().item())
            assert_close(
                other, one, rtol=rounding, atol=rounding * largest, msg=f"{name}: {{}}".format
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "window"), GRIDS)
def test_values(size, window, dtype):
    present = torch.ones(math.prod(size), math.prod(window), dtype=torch.bool)
    check(calls(size, size, window, present, dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", WINDOWS.values(), ids=WINDOWS)
def test_values_of_other_windows(dims, dtype):
    check(calls(sizes(dims), key_sizes(dims), native(dims), table(dims) >= 0, dtype), dtype)


def test_pixels_that_are_not_seen_do_not_matter():
    """Not even infinities: an absent key is no factor zero."""
    window = [1, 0, 1, 1]
    x = torch.tensor([[[1.0, 2.0, math.inf]]])
    values = torch.tensor([[[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]])
    assert fallback.apply(values, x, window).tolist() == [[[1, 3, math.inf]]]
    y, _ = fallback.attention(*(torch.ones(1, 1, 3),) * 2, x, window, 0, 1.0)
    assert y.tolist() == [[[1, 1.5, math.inf]]]


def test_a_gpu_without_kernels_is_announced():
    with pytest.warns(UserWarning, match="built without CUDA kernels"):
        fallback.warn_of_missing_kernels(torch.device("cuda", 0))


def test_new_values():
    """Uninitialized, so only their kind is compared."""
    arguments = (torch.ones(2), [2, 3], torch.float16)
    one, other = _native.new_values(*arguments), fallback.new_values(*arguments)
    assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


@pytest.fixture
def without_kernels(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> torch.device:
    if not request.config.getoption("--emulated"):
        pytest.skip("--emulated is not given")
    import emulated_device

    monkeypatch.setattr(emulated_device, "HAS_KERNELS", False)
    return torch.device("emulated", 0)


def heads_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    y, A = ca.circulant_mh_attention(q, k, v, 3, 2)
    return y * A.mT.values.cos().mean()


def through_matrix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    A = ca.circulant_adjacency(ca.DistanceSimilarity(), q, k, 3)
    return (A + A.mT) @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ca.circulant_attention(q, k, v, 3)[0]


def other_windows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    W = ca.Window(((2, 0), 4), dilation=(2, 1), boundary=("truncated", "circular"))
    y, A = ca.circulant_mh_attention(q, k, v, W, 2)
    return y + A.mT @ ca.mh @ v


FUNCTIONS = [heads_attention, through_matrix, fused, other_windows]


def derivatives(function, inputs: list[Tensor]) -> list[Tensor]:
    """Values, gradients, second derivatives, tangents and a batch."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = function(*inputs)
    first = torch.autograd.grad(y.abs().square().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.abs().square().sum() for g in first), inputs)
    plain = tuple(x.detach() for x in inputs)
    tangent = torch.func.jvp(function, plain, tuple(x.cos() for x in plain))[1]
    batch = torch.vmap(function)(*(torch.stack([x, -x]) for x in plain))
    return [y, *first, *second, tangent, batch]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_device_without_kernels(function, dtype, without_kernels: torch.device):
    """Values and derivatives of every kind, as on the CPU."""
    inputs = [torch.randn(2, 4, 5, 4, dtype=dtype) / 2 for _ in range(3)]
    there = [x.to(without_kernels) for x in inputs]
    for one, other in zip(derivatives(function, there), derivatives(function, inputs), strict=True):
        assert one.device == without_kernels
        # Sums of at most some thousand terms of magnitude one, in another order.
        assert_close(one.cpu(), other, rtol=1e-11, atol=1e-10)
