"""Element-wise functions and operators, against torch's on the dense matrix in float64."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from inputs import dense, matrix
from torch import Tensor, nn
from torch.testing import assert_close

from circulant_attention import Circulant
from circulant_attention.matrix.torch_functions import ACTIVATIONS, NAMESAKES

# The namesakes that are no functions of one entry are tested elsewhere.
FUNCTIONS = NAMESAKES[: NAMESAKES.index("adjoint")]
# Undefined outside of (-1, 1), or below -1.
INSIDE = {"arcsin", "arctanh", "asin", "atanh", "erfinv", "log1p", "sqrt"}
ARGUMENTS = {"clamp": (-0.5, 0.25), "clip": (-0.5,)}


def _inputs(name: str, device: str) -> Circulant:
    A = matrix((5, 4), 3, device)
    if name in INSIDE:
        A = A.with_values(A.values.tanh().abs() if name == "sqrt" else A.values.tanh() * 0.9)
    return A.requires_grad_()


def _check(ours: Circulant, function, A: Circulant) -> None:
    """The result and the gradient are those of ``function`` on the dense matrix."""
    D = dense(A).detach().requires_grad_()
    expected = function(D)
    assert type(ours) is Circulant
    assert ours.dtype == expected.dtype
    assert_close(ours.to_dense(), expected, rtol=1e-14, atol=0)
    weight = torch.randn_like(ours.values)
    (gradient,) = torch.autograd.grad((ours.values * weight).sum(), A.values)
    near = dense(torch.ones_like(A.detach())) != 0
    (full,) = torch.autograd.grad(expected[near], D, weight.flatten())
    assert_close(gradient.flatten(), full[near], rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_that_keep_zeros(name, device):
    A = _inputs(name, device)
    arguments = ARGUMENTS.get(name, ())
    for call in (getattr(Circulant, name), getattr(torch, name)):
        _check(call(A, *arguments), lambda x: getattr(torch, name)(x, *arguments), A)


@pytest.mark.parametrize("function", ACTIVATIONS, ids=lambda function: function.__name__)
def test_activations(function, device):
    if function is F.dropout:
        A = Circulant(3, (2, 3, 5, 4), dtype=torch.float64, device=device)
        assert function(A, 0.25, training=False) == A
        kept = function(A, 0.25).values
        assert set(kept.unique().tolist()) == {0.0, 1 / 0.75}
        return
    A = _inputs(function.__name__, device)
    _check(function(A), function, A)


def test_modules_of_activations(device):
    A = _inputs("relu", device)
    for module in (nn.ReLU(), nn.GELU(), nn.LeakyReLU(0.3), nn.Tanh(), nn.SiLU()):
        _check(module(A), module, A)
    with pytest.raises(TypeError, match="expected inplace=False"):
        nn.ReLU(inplace=True)(A)


def test_of_complex_entries(device):
    A = matrix((5, 4), 3, device, dtype=torch.complex128)
    assert A.abs().dtype == torch.float64
    for name in ("abs", "sgn", "square", "sin", "tanh"):
        assert_close(getattr(A, name)().to_dense(), getattr(torch, name)(dense(A)))


def test_nan_and_infinite_entries(device):
    A = matrix((5, 4), 3, device)
    A.values[0, 0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    assert_close(
        A.nan_to_num(1.0, 2.0, -2.0).to_dense(), dense(A).nan_to_num(1.0, 2.0, -2.0), rtol=0, atol=0
    )
    assert A.clamp(min=0).values[0, 0, 0].isnan()


@pytest.mark.parametrize("exponent", [2, 1, 0.5, np.float32(3), np.array(2)], ids=repr)
def test_positive_powers(exponent, device):
    A = _inputs("sqrt", device)
    for power in (A**exponent, A.pow(exponent), torch.pow(A, float(exponent))):
        _check(power, lambda x: x ** float(exponent), A)


def test_operators_of_python(device):
    A = matrix((5, 4), 3, device)
    assert abs(A) == A.abs()
    assert +A is A
    assert_close((-A).to_dense(), -dense(A), rtol=0, atol=0)
    assert sum([A, A, A]) == A + A + A


# --- two matrices ---

PAIRS = {
    "A + B": (operator.add, torch.add),
    "A - B": (operator.sub, torch.sub),
    "A * B": (lambda A, B: A * B, torch.mul),
    "mul": (lambda A, B: A.mul(B), torch.mul),
    "torch.mul": (torch.mul, torch.mul),
    "torch.multiply": (torch.multiply, torch.mul),
    "minimum": (lambda A, B: A.minimum(B), torch.minimum),
    "torch.minimum": (torch.minimum, torch.minimum),
    "maximum": (lambda A, B: A.maximum(B), torch.maximum),
    "torch.maximum": (torch.maximum, torch.maximum),
    "lerp": (lambda A, B: A.lerp(B, 0.3), lambda a, b: torch.lerp(a, b, 0.3)),
    "torch.lerp": (lambda A, B: torch.lerp(A, B, 2), lambda a, b: torch.lerp(a, b, 2)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("lead", [(2, 3), (1, 3), (2, 1), (1, 1)], ids=str)
def test_two_matrices(name, lead, device):
    ours, theirs = PAIRS[name]
    A = matrix((5, 4), 3, device, heads=1 if lead == (1, 3) else 3).requires_grad_()
    B = matrix((5, 4), 3, device, batch=lead[0], heads=lead[1]).requires_grad_()
    for first, second in ((A, B), (B, A)):
        result = ours(first, second)
        assert type(result) is Circulant
        assert (result.shape, result.geometry) == ((2, 3, 20, 20), A.geometry)
        expected = theirs(dense(first), dense(second))
        assert_close(result.to_dense(), expected, rtol=1e-14 if "lerp" in name else 0, atol=0)
        weight = torch.randn_like(result.values)
        inputs = (first.values, second.values)
        assert inputs[0]._version == inputs[1]._version == 0
        gradients = torch.autograd.grad(result.values, inputs, weight)
        assert_close(gradients, torch.autograd.grad(theirs(*inputs), inputs, weight))


@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (2, 3, 1, 1)], ids=str)
def test_lerp_with_a_weight_per_head(shape, device):
    A = matrix((5, 4), 3, device, batch=1)
    B = matrix((5, 4), 3, device)
    weight = torch.rand(shape, dtype=torch.float64, device=device, requires_grad=True)
    expected = torch.lerp(dense(A), dense(B), weight)
    for result in (A.lerp(B, weight), torch.lerp(A, B, weight)):
        assert_close(result.to_dense(), expected, rtol=1e-14, atol=0)
    (gradient,) = torch.autograd.grad(A.lerp(B, weight).values.square().sum(), weight)
    assert_close(gradient, torch.autograd.grad(expected.square().sum(), weight)[0])


# --- a matrix and a scale ---

SHAPES = [(), (1,), (1, 1), (3, 1, 1), (1, 1, 1), (1, 3, 1, 1), (2, 1, 1, 1), (2, 3, 1, 1)]
SCALED = {
    "m * A": (lambda A, m: m * A, torch.mul),
    "A * m": (lambda A, m: A * m, torch.mul),
    "A.mul(m)": (lambda A, m: A.mul(m), torch.mul),
    "m.mul(A)": (lambda A, m: m.mul(A), torch.mul),
    "A.scale(m)": (lambda A, m: A.scale(m), torch.mul),
    "A / m": (lambda A, m: A / m, torch.div),
    "A.div(m)": (lambda A, m: A.div(m), torch.div),
    "torch.div": (torch.div, torch.div),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_scale_broadcasts_as_a_tensor_does(name, shape, device):
    ours, theirs = SCALED[name]
    m = nn.Parameter(torch.rand(shape, dtype=torch.float64, device=device) + 0.5)
    for batch, heads in ((2, 3), (2, 1), (1, 3)):
        A = matrix((5, 4), 3, device, batch=batch, heads=heads).requires_grad_()
        result, expected = ours(A, m), theirs(dense(A), m)
        assert type(result) is Circulant
        assert_close(result.to_dense(), expected, rtol=0, atol=0)
        gradients = torch.autograd.grad(result.values.square().sum(), (A.values, m))
        # The dense gradient of the values comes through `dense`, which gathers them.
        wanted = torch.autograd.grad(expected.square().sum(), (A.values, m))
        assert m._version == A.values._version == 0
        assert_close(gradients, wanted)


def test_arrays_of_numpy_without_dims_are_numbers(device):
    A, B = matrix((5, 4), 3, device), matrix((5, 4), 3, device)
    two, half = np.array(2.0), np.float32(0.5)
    assert two * A == A * two == A.scale(two) == 2 * A
    assert A / two == A.div(half * 4) == A / 2
    assert A.add(B, alpha=two) == A + 2 * B
    assert A.sub(B, alpha=half) == A - B / 2
    assert A.lerp(B, half) == A.lerp(B, 0.5)
    assert A.clamp(-half, two) == A.clamp(-0.5, 2)


# --- compiled ---


def _every_operator(A: Circulant, B: Circulant, scales: list[Tensor]) -> list[Tensor]:
    results = [
        *(2 * A, A / 3, -A, abs(A), A**2, A + B, A - B, A * B, A.lerp(B, 0.3), A.clamp(min=0)),
        *(A.complex(), torch.abs(A), F.relu(A), A[:1].expand(4, -1, -1, -1)),
    ]
    for m in scales:
        results += [A * m, m * A, A / m]
    return [*(one.values for one in results), A.mean(-1), A.diagonal()]


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled(backend, device):
    A, B = matrix((5, 4), 3, device), matrix((5, 4), 3, device)
    a, b = A.values.requires_grad_(), B.values.requires_grad_()
    scales = [
        (torch.rand(shape, dtype=torch.float64, device=device) + 0.5).requires_grad_()
        for shape in ((), (1,), (2, 3, 1, 1))
    ]

    def function(a, b, scales):
        return _every_operator(A.with_values(a), A.with_values(b), scales)

    compiled = torch.compile(function, fullgraph=True, backend=backend)
    results, expected = compiled(a, b, scales), function(a, b, scales)
    assert_close(results, expected)
    gradients = [
        torch.autograd.grad(sum(one.abs().square().sum() for one in found), (a, b, *scales))
        for found in (results, expected)
    ]
    assert_close(*gradients)


# --- refused ---

NOT_ZERO_AT_ZERO = {
    "torch.exp(A)": r"exp is not defined.*A\.with_values\(A\.values\.exp\(\)\).*A\.to_dense\(\)",
    "torch.sigmoid(A)": r"A\.with_values\(A\.values\.sigmoid\(\)\)",
    "torch.cos(A)": r"A\.with_values\(A\.values\.cos\(\)\)",
    "torch.gt(A, 0)": r"use A\.values\.gt\(\.\.\.\) for the stored entries",
    "torch.where(A, A, A)": r"use A\.values\.where\(\.\.\.\)",
    "torch.amax(A, -1)": r"A\.rows\.amax\(-1\) for those of each row",
    "torch.max(A)": r"use A\.values\.max\(\.\.\.\) for the stored entries",
    "torch.stack([A, A])": r"five dims.*torch\.cat\(\[A, B\], 0\)",
    "torch.bmm(A, x)": r"bmm is not defined.*use A\.to_dense\(\) for a dense tensor or A\.data",
    "torch.einsum('bhij,bhjk->bhik', A, x)": r"einsum is not defined.*to_dense\(\).*A\.data",
    "torch.permute(A, (0, 1, 3, 2))": r"torch's permute is not defined.*to_dense\(\).*A\.data",
    "x.add_(A)": r"torch's add_ is not defined.*to_dense\(\).*A\.data",
    "A + 1": r"addition, got a int: the result would be dense; use A\.with_values",
    "1 + A": "addition, got a int: the result would be dense",
    "A + x": "addition, got a Tensor: the result would be dense",
    "x + A": "addition, got a Tensor: the result would be dense",
    "A + np.ones(3)": "addition, got a ndarray: the result would be dense",
    "A - 1.0": "subtraction, got a float: the result would be dense",
    "1 - A": "subtraction, got a int: the result would be dense",
    "torch.add(A, 1)": "addition, got a int: the result would be dense",
    "torch.minimum(A, x)": "the minimum, got a Tensor: the result would be dense",
    "A.add(x)": "expected a Circulant, got Tensor: use A.with_values",
    "A.mul('2')": "expected a number or a tensor to scale with, got str",
    "A * np.ones(3)": "expected a number or a tensor to scale with, got ndarray",
    "A.add(A, alpha='2')": "expected alpha to be a number, got str",
    "2 ** A": "a power, got a int: the result would be dense",
    "A ** x": r"expected the exponent to be a number, got Tensor: use A\.with_values",
    "x ** A": "a power, got a Tensor: the result would be dense",
    "A > 0": r"compare its stored entries, A\.values",
    "0 <= A": r"compare its stored entries, A\.values",
    "A / A": "most of its entries are zero; use A.values",
    "A @ A": r"larger window: apply one after the other, A @ \(B @ x\)",
    "torch.matmul(A, A)": r"larger window: apply one after the other, A @ \(B @ x\)",
    "A.clamp('a')": "expected min to be a number, got str",
    "A.clamp(max=1j)": "expected real bounds of a clamp",
}
OUT_OF_RANGE = {
    "A ** 0": r"expected a positive exponent.*got 0: use A\.with_values\(A\.values \*\* 0\)",
    "A ** -1.5": "expected a positive exponent.*got -1.5",
    "A ** math.nan": "expected a positive exponent",
    "A ** 1j": "expected a positive exponent",
    "A.clamp(0.5)": "expected min <= 0 <= max, which keeps zeros zero, got min 0.5 and max None",
    "A.clamp(max=-1)": "expected min <= 0 <= max.*got min None and max -1",
    "A.clamp(math.nan, 1)": "expected min <= 0 <= max",
}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [(call, TypeError, message) for call, message in NOT_ZERO_AT_ZERO.items()]
    + [(call, ValueError, message) for call, message in OUT_OF_RANGE.items()],
)
def test_what_changes_zeros_is_refused_with_a_hint(call, error, message, device):
    A = matrix((5, 4), 3, device)
    x = torch.ones(6, 2, 5, 4, dtype=torch.float64, device=device)
    with pytest.raises(error, match=message):
        eval(call, {"A": A, "x": x, "np": np, "math": math, "torch": torch})
    assert bool((x == 1).all())


ATTRIBUTES = {
    "T": "use A.mT",
    "H": "use A.mH",
    "exp": r"use A\.with_values\(A\.values\.exp\(\)\)",
    "max": r"A\.rows\.max\(-1\)",
    "amax": r"A\.rows\.amax\(-1\)",
    "grad": r"use A\.values\.grad",
    "numpy": r"A\.to_scipy\(\)",
    "view": r"use A\.reshape",
    "relu_": r"no method changes a Circulant in place, but A\.values\.relu_ its entries",
    "einsum_of_mine": "has no attribute 'einsum_of_mine'$",
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_missing_attributes_say_what_to_use(name, device):
    A = matrix((5, 4), 3, device)
    assert not hasattr(A, name)
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}'") as caught:
        getattr(A, name)
    assert caught.match(ATTRIBUTES[name])


def test_an_object_without_entries_has_attribute_errors(device):
    empty = object.__new__(Circulant)
    with pytest.raises(AttributeError, match=r"has no attribute '(_source|values)'$"):
        empty.values  # noqa: B018
