"""Sums of scaled matrices: values, gradients, modes of torch, changes in place."""

from __future__ import annotations

import copy
import gc
import itertools
import platform
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from expressions import EXPRESSIONS, operands
from inputs import DTYPES, dtypes, exact, matrix
from rounding import eps
from same_bits import check_threads
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from circulant_attention import Circulant
from circulant_attention.matrix.scaled import ScaledValues
from circulant_attention.ops import memory

expressions = pytest.mark.parametrize("name", EXPRESSIONS)


@pytest.fixture(params=["small", "large"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Results that torch allocates, and those that go into memory of ours."""
    monkeypatch.setattr(memory, "LARGE", 0 if request.param == "large" else 2**62)
    return request.param


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix counts as large."""
    monkeypatch.setattr(memory, "LARGE", 0)


def on_values(name: str, A: Circulant, B: Circulant, C: Circulant, m: Tensor) -> Tensor:
    """The plain expression of the entries."""
    sizes = (*(1,) * (4 - m.dim()), *m.shape)
    factor = m.reshape(sizes[:3]) if m.dim() else m
    return EXPRESSIONS[name](A.values, B.values, C.values, factor)


@expressions
@dtypes
def test_values(name: str, dtype: torch.dtype, size: str, device: str) -> None:
    A, B, C, m = operands(device, dtype)
    result = EXPRESSIONS[name](A, B, C, m)
    assert result.dtype == dtype
    assert result.shape == A.shape
    inputs = [x.with_values(exact(x.values)) for x in (A, B, C)]
    expected = on_values(name, *inputs, exact(m))
    # At most four products and three sums, each rounded to eps of terms below 2 |A| + |B| + |C|.
    terms = sum(exact(x.values).abs() for x in (A, A, B, C)) + exact(A.values * B.values).abs()
    assert bool(((exact(result.values) - expected).abs() <= 8 * eps(dtype) * terms).all())


SAME_BITS = ["a A", "-A", "m A", "A / a", "A / m", "A + B", "A - B", "A B", "lerp", "lerp by m"]
# Of processors without a fused multiply-add in their baseline.
SAME_BITS += ["a A + b B", "a A - b B"] if platform.machine() == "x86_64" else []


@expressions
@dtypes
def test_bits_are_those_of_the_entries(
    name: str, dtype: torch.dtype, size: str, device: str
) -> None:
    """Except for large products within sums, which need not be rounded."""
    if size == "large" and name not in SAME_BITS:
        return
    inputs = operands(device, dtype)
    result = EXPRESSIONS[name](*inputs).values
    assert torch.equal(result, on_values(name, *inputs))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype, size: str) -> None:
    A, B, C = (matrix((40, 37), 9, "cpu", batch=1, heads=2, dtype=dtype) for _ in range(3))
    m = torch.rand(2, 1, 1).to(dtype)
    check_threads(lambda: [f(A, B, C, m).values for f in EXPRESSIONS.values()])


@pytest.mark.parametrize("factor", [(), (1,), (3, 1, 1), (2, 1, 1, 1), (2, 3, 1, 1)], ids=str)
@expressions
def test_shapes_broadcast(name: str, factor: tuple[int, ...], size: str, device: str) -> None:
    A, B, C, m = operands(device, factor=factor)
    A, B = A[:1, :1], B[:, :1]
    result = EXPRESSIONS[name](A, B, C, m)
    expected = on_values(name, A, B, C, m)
    assert result.shape[:2] == expected.shape[:2]
    assert_close(result.values, expected)


FACTORS: dict[str, Any] = {
    "int": 2,
    "bool": True,
    "float": 0.3,
    "complex": 1 - 2j,
    "0-d float64": torch.tensor(0.3, dtype=torch.float64),
    "float64": torch.full((2, 1, 1, 1), 0.3, dtype=torch.float64),
    "float32": torch.full((2, 1, 1, 1), 0.3),
    "bfloat16": torch.full((3, 1, 1), 0.3, dtype=torch.bfloat16),
    "complex64": torch.full((1,), 0.3 + 1j, dtype=torch.complex64),
    "int64": torch.full((1,), 3),
    "uint8": torch.full((1,), 3, dtype=torch.uint8),
    "bools": torch.full((3, 1, 1), True),
}


@pytest.mark.parametrize("kind", FACTORS)
def test_dtypes_are_promoted_as_by_torch(kind: str, size: str, device: str) -> None:
    m = FACTORS[kind]
    if isinstance(m, Tensor):
        m = m.to(device)
    factor = m.reshape(*(1,) * (4 - m.dim()), *m.shape)[..., 0] if getattr(m, "ndim", 0) else m
    # A half times a complex number is torch's experimental ComplexHalf.
    dtypes = DTYPES[2:] if kind.startswith("complex") else DTYPES
    for one, other in itertools.product(dtypes, dtypes):
        A = matrix((5, 4), 3, device, dtype=one)
        B = matrix((5, 4), 3, device, dtype=other)
        a, b = A.values, B.values
        for result, expected in (
            (m * A, factor * a),
            (A / m, a / factor),
            (A + m * B, a + factor * b),
            (A - m * B, a - factor * b),
            (m * A + B, factor * a + b),
            (m * A - B / m, factor * a - b / factor),
        ):
            assert result.dtype == expected.dtype
            rounding = max(eps(x) for x in (one, other, expected.dtype))
            assert_close(result.values, expected, rtol=4 * rounding, atol=16 * rounding)


def test_infinities_stay_infinite(size: str, device: str) -> None:
    A = Circulant(torch.full((1, 1, 9), -torch.inf, device=device), 3, (3,))
    assert 0.3 * A + 0.7 * A == A
    assert A / 0 + A == A
    assert bool((A - A / 2).values.isnan().all())


def test_wrong_operands_raise_before_anything_is_computed(device: str) -> None:
    A, B = matrix((5, 4), 3, device), matrix((4, 5), 3, device)
    with pytest.raises(ValueError, match="spatial size"):
        2 * A + B
    with pytest.raises(ValueError, match="number of heads 3"):
        A - 2 * A[:, :2]
    with pytest.raises(TypeError, match="dense"):
        2 * A + 1
    with pytest.raises(ValueError, match="scale of shape"):
        torch.ones(5, 1, 1, device=device) * A


# --- derivatives ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@expressions
def test_derivatives_of_large_results(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """To every order, in both modes, of matrices and factors that broadcast."""
    monkeypatch.setattr(memory, "LARGE", 0)
    inputs = [torch.randn(batch, 2, 9, dtype=dtype, device=device) for batch in (1, 2, 2)]
    inputs.append(torch.rand(2, 1, 1, dtype=dtype, device=device) + 0.5)

    def function(a: Tensor, b: Tensor, c: Tensor, m: Tensor) -> Tensor:
        return EXPRESSIONS[name](*(Circulant(x, 3, (3,)) for x in (a, b, c)), m).values

    for x in inputs:
        x.requires_grad_()
    checks = {"fast_mode": True, "check_batched_grad": device == "cpu"}
    assert gradcheck(function, inputs, check_forward_ad=True, **checks)
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True, **checks)


@expressions
def test_gradients_have_the_dtypes_of_their_inputs(name: str, size: str, device: str) -> None:
    A, B, C, m = operands(device, torch.float32)
    B = B.double() if "lerp" not in name else B
    leaves = [x.values.requires_grad_() for x in (A, B, C)] + [m.requires_grad_()]
    result = EXPRESSIONS[name](A, B, C, m).values
    weights = torch.randn_like(result)
    found = torch.autograd.grad(result, leaves, weights, allow_unused=True)
    plain = on_values(name, A, B, C, m)
    expected = torch.autograd.grad(plain, leaves, weights, allow_unused=True)
    for gradient, wanted, leaf in zip(found, expected, leaves, strict=True):
        assert (gradient is None) == (wanted is None)
        if gradient is not None:
            assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype)
            # Sums of 240 entries in float32.
            assert_close(gradient, wanted, rtol=1e-5, atol=240 * eps(torch.float32))


def test_real_inputs_of_complex_results_have_real_gradients(size: str, device: str) -> None:
    A, B, _, m = operands(device)
    leaves = [A.values.requires_grad_(), m.requires_grad_()]
    result = ((1 + 2j) * A - m * B.complex()).values
    weights = torch.randn_like(result)
    plain = (1 + 2j) * A.values - m[..., 0] * B.values
    expected = torch.autograd.grad(plain, leaves, weights)
    assert_close(torch.autograd.grad(result, leaves, weights), expected)


@pytest.mark.usefixtures("large")
def test_only_what_the_backward_needs_is_kept() -> None:
    """A number needs no operand; a factor with a gradient needs its own."""
    A, B, _, m = operands("cpu")
    values = [A.values.requires_grad_(), B.values.requires_grad_()]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        result = (0.3 * A - 0.7 * B).values
        assert not [x for x in kept if x.numel() >= result.numel()]
        result = (m.requires_grad_() * A - 0.7 * B).values
    large = [x for x in kept if x.numel() >= result.numel()]
    assert [x.data_ptr() for x in large] == [values[0].data_ptr()]


def test_a_clone_is_differentiable(size: str, device: str) -> None:
    A, *_ = operands(device)
    A.requires_grad_()
    B = A.clone()
    assert B == A
    assert B.values.data_ptr() != A.values.data_ptr()
    weights = torch.randn_like(B.values)
    assert torch.equal(torch.autograd.grad(B.values, A.values, weights)[0], weights)


# --- modes of torch ---


def test_the_grad_mode_is_that_of_the_product(size: str, device: str) -> None:
    A, B, *_ = operands(device)
    A.requires_grad_()
    with torch.no_grad():
        without = 2 * A
    recorded = 2 * A
    assert (without.requires_grad, recorded.requires_grad) == (False, True)
    assert not (without + B).requires_grad
    with torch.no_grad():
        assert not (recorded + B).requires_grad
        assert recorded.values.requires_grad
    with torch.inference_mode():
        late = 2 * A
    late = 3 * B
    B.requires_grad_()
    assert not late.requires_grad
    assert not late.values.requires_grad


@pytest.mark.parametrize("look", [lambda A: A.values, lambda A: A.sum(-1), lambda A: A + A])
def test_a_first_use_in_inference_mode_cuts_no_gradient(look: Any, size: str) -> None:
    A, *_ = operands("cpu")
    A.requires_grad_()
    D = 2 * A
    with torch.inference_mode():
        look(D)
    (gradient,) = torch.autograd.grad(D.values.sum(), A.values)
    assert_close(gradient, torch.full_like(gradient, 2))


def test_inference_mode_is_never_stale(size: str) -> None:
    """Tensors of inference mode have no version counter."""
    with torch.inference_mode():
        A, *_ = operands("cpu")
        expected = 2 * A.values
        D = 2 * A
        A.values.add_(1)
        assert torch.equal(D.values, expected)


def test_vmap_and_grad(size: str) -> None:
    A, B, *_ = operands("cpu")
    D = 2 * A  # before the transforms, used within
    weights = torch.linspace(0, 1, 5, dtype=torch.float64)

    def blend(w: Tensor) -> Tensor:
        return (w * A + (1 - w) * B - D).values

    def loss(w: Tensor) -> Tensor:
        return blend(w).square().sum()

    expected = torch.stack([w * A.values + (1 - w) * B.values - 2 * A.values for w in weights])
    assert_close(torch.func.vmap(blend)(weights), expected)
    gradients = torch.func.vmap(torch.func.grad(loss))(weights)
    assert_close(gradients, (2 * expected * (A.values - B.values)).sum((1, 2, 3)))
    assert_close(torch.func.hessian(loss)(weights[0]), 2 * (A - B).values.square().sum())
    assert_close(D.values, 2 * A.values)


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend: str, size: str, device: str) -> None:
    A, B, C, m = operands(device)
    m.requires_grad_()

    def network(A: Circulant, B: Circulant, C: Circulant, m: Tensor) -> list[Circulant]:
        return [f(A, B, C, m) for name, f in EXPRESSIONS.items() if "lerp by" not in name]

    compiled = torch.compile(network, backend=backend, fullgraph=True)
    results, expected = (f(3 * A, B, C / m.detach(), m) for f in (compiled, network))
    for result, wanted in zip(results, expected, strict=True):
        assert_close(result.values, wanted.values)
    totals = (torch.stack([x.values for x in many]).square().sum() for many in (results, expected))
    assert_close(*(torch.autograd.grad(total, m)[0] for total in totals))


def test_autocast_changes_no_dtype(device: str) -> None:
    A, B, *_ = operands(device, torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            D = 0.3 * A
            assert (D + B).dtype == D.values.dtype == A.lerp(B, 0.5).dtype == torch.float32


# --- deferred products ---


@pytest.mark.usefixtures("large")
def test_a_change_of_a_in_place_is_noticed(device: str) -> None:
    if device != "cpu":
        pytest.skip("subclasses of tensors are multiplied at once")
    A, B, *_ = operands(device)
    early, late = 2 * A, 2 * A
    values, total = early.values.clone(), late + B
    expected = total.values.clone()
    A.values.add_(1)
    assert torch.equal(early.values, values)
    assert torch.equal(total.values, expected)
    uses = [lambda D: D.values, lambda D: D + B, lambda D: D[0, 0, 3], lambda D: 3 * D]
    for use in uses:
        with pytest.raises(RuntimeError, match="changed in place"):
            use(late)
    assert late.shape == A.shape


def test_a_factor_is_that_of_the_time_of_the_product(size: str, device: str) -> None:
    A, B, _, m = operands(device)
    m.requires_grad_()
    expected = m.detach()[..., 0] * A.values
    first, second = m * A, m * A
    with torch.no_grad():
        m.add_(1)
    assert_close(first.values, expected)
    assert_close((second + B).values, expected + B.values)
    (gradient,) = torch.autograd.grad((second + B).sum(), m)
    assert_close(gradient[..., 0], A.values.sum(-1, keepdim=True))


@pytest.mark.usefixtures("large")
def test_a_computed_product_lets_its_operand_go() -> None:
    for use in (lambda D: D.values, lambda D: D.sum(-1)):
        A, *_ = operands("cpu")
        D, operand = 2 * A, weakref.ref(A.values.untyped_storage())
        del A
        assert operand() is not None
        use(D)
        gc.collect()
        assert operand() is None


@pytest.mark.usefixtures("large")
def test_a_pending_product_knows_its_attributes(device: str) -> None:
    A, _, _, m = operands(device, torch.float32)
    A = A[:1]
    D = A / m.double()
    assert isinstance(D._source, ScaledValues) == (device == "cpu")
    assert (D.shape, D.dtype, D.device) == ((2, 3, 20, 20), torch.float64, A.device)
    assert (D.nnz, D.requires_grad) == (2 * 3 * 20 * 9, False)
    assert "float64" in repr(D)
    if device == "cpu":
        assert D._source._values is None


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("factor", [2.0, (), (3, 1, 1)], ids=str)
def test_rows_alone(factor: Any) -> None:
    A, _, _, m = operands("cpu", factor=factor if isinstance(factor, tuple) else ())
    A = A[:, :1]
    m = m if isinstance(factor, tuple) else factor
    whole = (m * A).to_dense()
    D = m * A
    assert torch.equal(D[-1, -1, 7], whole[-1, -1, 7])
    assert torch.equal(D[0, -1, 3, 4], whole[0, -1, 3, 4])
    assert torch.equal(D._source.matrix(D.shape[1]), (m * A).rows[1, 0])
    assert D._source._values is None


@pytest.mark.usefixtures("large")
def test_threads_use_one_product_at_once() -> None:
    A, B, *_ = operands("cpu")
    for _ in range(50):
        D = 2 * A
        barrier = threading.Barrier(4)
        failed: list[BaseException] = []

        def use(call: Any, D: Circulant = D, barrier: Any = barrier, failed: Any = failed) -> None:
            barrier.wait()
            try:
                call(D)
            except BaseException as error:
                failed.append(error)

        calls = [lambda D: D.values, lambda D: D + B, lambda D: D[0, 0, 3], lambda D: D.values]
        threads = [threading.Thread(target=use, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed


@pytest.mark.usefixtures("large")
def test_copies_of_a_pending_product() -> None:
    A, B, *_ = operands("cpu")
    D = copy.deepcopy(2 * A)
    A.values.zero_()
    assert not torch.equal(D.values, A.values)
    assert (2 * B).detach() == 2 * B
    assert sum([2 * B, B]) == 3 * B


@pytest.mark.usefixtures("large")
def test_a_running_mean_holds_one_matrix() -> None:
    """No chain of products and sums grows behind it."""
    mean = matrix((5, 4), 3, "cpu")
    first = weakref.ref(mean.values.untyped_storage())
    for _ in range(3):
        mean = 0.9 * mean + 0.1 * matrix((5, 4), 3, "cpu")
    gc.collect()
    assert first() is None
