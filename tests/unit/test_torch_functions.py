"""torch's own functions on Circulants: those that have a twin, and the refusal of all others."""

from __future__ import annotations

import pytest
import torch
from inputs import features, matrix
from test_elementwise import FUNCTIONS
from torch import Tensor
from torch.testing import assert_close

from circulant_attention import Circulant, cat
from circulant_attention.matrix.circulant import TORCH_FUNCTIONS
from circulant_attention.matrix.torch_functions import ACTIVATIONS

# What a torch function gives, beside what the Circulant's own operator, method or function does.
TWINS = {
    torch.add: [
        (lambda A, B, x: torch.add(A, B), lambda A, B, x: A + B),
        (lambda A, B, x: torch.add(A, B, alpha=2), lambda A, B, x: A + 2 * B),
    ],
    torch.sub: [
        (lambda A, B, x: torch.sub(A, B), lambda A, B, x: A - B),
        (lambda A, B, x: torch.sub(A, B, alpha=2), lambda A, B, x: A - 2 * B),
    ],
    torch.subtract: [(lambda A, B, x: torch.subtract(A, B), lambda A, B, x: A - B)],
    torch.mul: [
        (lambda A, B, x: torch.mul(A, 2), lambda A, B, x: 2 * A),
        (lambda A, B, x: torch.mul(_m(A), A), lambda A, B, x: A.scale(_m(A))),
    ],
    torch.multiply: [(lambda A, B, x: torch.multiply(A, _m(A)), lambda A, B, x: _m(A) * A)],
    torch.div: [(lambda A, B, x: torch.div(A, _m(A)), lambda A, B, x: A / _m(A))],
    torch.divide: [(lambda A, B, x: torch.divide(A, 2), lambda A, B, x: A / 2)],
    torch.true_divide: [(lambda A, B, x: torch.true_divide(A, 2), lambda A, B, x: A / 2)],
    torch.matmul: [(lambda A, B, x: torch.matmul(A, x), lambda A, B, x: A @ x)],
    torch.sum: [
        (lambda A, B, x: torch.sum(A), lambda A, B, x: A.sum()),
        (lambda A, B, x: torch.sum(A, -2, True), lambda A, B, x: A.sum(-2, keepdim=True)),
        (lambda A, B, x: torch.sum(A, dim=1), lambda A, B, x: A.sum(1)),
    ],
    torch.mean: [
        (lambda A, B, x: torch.mean(A, (-2, -1)), lambda A, B, x: A.mean((-2, -1))),
        (
            lambda A, B, x: torch.mean(A, dim=0, dtype=torch.float32),
            lambda A, B, x: A.mean(0, dtype=torch.float32),
        ),
    ],
    torch.numel: [(lambda A, B, x: torch.numel(A), lambda A, B, x: 6 * 20 * 20)],
    torch.diagonal: [(lambda A, B, x: torch.diagonal(A, 0, 2, 3), lambda A, B, x: A.diagonal())],
    torch.linalg.diagonal: [
        (lambda A, B, x: torch.linalg.diagonal(A), lambda A, B, x: A.diagonal())
    ],
    torch.softmax: [
        (lambda A, B, x: torch.softmax(A, -1), lambda A, B, x: A.softmax()),
        (lambda A, B, x: torch.softmax(A, dim=3), lambda A, B, x: A.softmax()),
        (
            lambda A, B, x: torch.softmax(A, -1, dtype=torch.float32),
            lambda A, B, x: A.float().softmax(),
        ),
    ],
    torch.nn.functional.softmax: [
        (lambda A, B, x: torch.nn.functional.softmax(A, dim=-1), lambda A, B, x: A.softmax()),
        (
            lambda A, B, x: torch.nn.functional.softmax(A, -1, dtype=torch.float32),
            lambda A, B, x: A.float().softmax(),
        ),
    ],
    torch.vdot: [(lambda A, B, x: torch.vdot(A, B), lambda A, B, x: A.dot(B))],
    torch.cat: [
        (lambda A, B, x: torch.cat([A, B]), lambda A, B, x: cat(A, B, dim=0)),
        (lambda A, B, x: torch.cat((A, B), dim=1), lambda A, B, x: cat(A, B, dim=1)),
    ],
    torch.concat: [(lambda A, B, x: torch.concat([A, B], 1), lambda A, B, x: cat(A, B))],
    torch.concatenate: [(lambda A, B, x: torch.concatenate([A, B], 1), lambda A, B, x: cat(A, B))],
    torch.equal: [
        (lambda A, B, x: torch.equal(A, A.clone()), lambda A, B, x: True),
        (lambda A, B, x: torch.equal(A, B), lambda A, B, x: False),
    ],
    torch.allclose: [
        (lambda A, B, x: torch.allclose(A, A * (1 + 1e-7)), lambda A, B, x: True),
        (lambda A, B, x: torch.allclose(A, A * (1 + 1e-7), rtol=1e-9), lambda A, B, x: False),
        (lambda A, B, x: torch.allclose(A, B, atol=1e3), lambda A, B, x: True),
    ],
    torch.clone: [(lambda A, B, x: torch.clone(A), lambda A, B, x: A)],
    torch.detach: [(lambda A, B, x: torch.detach(A), lambda A, B, x: A)],
    torch.conj: [(lambda A, B, x: torch.conj(_z(A, B)), lambda A, B, x: _z(A, B).conj())],
    torch.real: [(lambda A, B, x: torch.real(_z(A, B)), lambda A, B, x: A)],
    torch.imag: [(lambda A, B, x: torch.imag(_z(A, B)), lambda A, B, x: B)],
    torch.adjoint: [(lambda A, B, x: torch.adjoint(_z(A, B)), lambda A, B, x: _z(A, B).mH)],
    torch.transpose: [(lambda A, B, x: torch.transpose(A, -1, -2), lambda A, B, x: A.mT)],
    torch.reshape: [
        (
            lambda A, B, x: torch.reshape(A, (3, 2, 20, 20)),
            lambda A, B, x: A.reshape(3, 2, 20, 20),
        ),
    ],
    torch.is_complex: [
        (lambda A, B, x: torch.is_complex(A), lambda A, B, x: False),
        (lambda A, B, x: torch.is_complex(_z(A, B)), lambda A, B, x: True),
    ],
    torch.is_floating_point: [
        (lambda A, B, x: torch.is_floating_point(A), lambda A, B, x: True),
        (lambda A, B, x: torch.is_floating_point(_z(A, B)), lambda A, B, x: False),
    ],
    torch.zeros_like: [(lambda A, B, x: torch.zeros_like(A), lambda A, B, x: 0 * A)],
    torch.ones_like: [
        (lambda A, B, x: torch.ones_like(A), lambda A, B, x: 0 * A + _ones(A)),
        (
            lambda A, B, x: torch.ones_like(A, dtype=torch.float32),
            lambda A, B, x: Circulant(3, (2, 3, 5, 4), device=A.device),
        ),
    ],
    torch.empty_like: [(lambda A, B, x: 0 * torch.empty_like(A).shape[0], lambda A, B, x: 0)],
    torch.rand_like: [
        (lambda A, B, x: bool((torch.rand_like(A).values <= 1).all()), lambda A, B, x: True)
    ],
    torch.randn_like: [(lambda A, B, x: _spread(torch.randn_like(A)), lambda A, B, x: True)],
    Tensor.mul: [(lambda A, B, x: _m(A).mul(A), lambda A, B, x: A * _m(A))],
    Tensor.__mul__: [(lambda A, B, x: _m(A) * A, lambda A, B, x: A * _m(A))],
}


def _m(A: Circulant) -> Tensor:
    """A number per batch and head."""
    return torch.arange(1.0, 7.0, dtype=torch.float64, device=A.device).reshape(2, 3, 1, 1)


def _z(A: Circulant, B: Circulant) -> Circulant:
    """``A + i B``."""
    return A.with_values(torch.complex(A.values, B.values))


def _ones(A: Circulant) -> Circulant:
    return Circulant(3, (2, 3, 5, 4), dtype=A.dtype, device=A.device)


def _spread(A: Circulant) -> bool:
    # The mean of 1080 standard normal numbers lies within 5 / sqrt(1080) but once in a million.
    return abs(float(A.values.mean())) < 0.16 and 0.8 < float(A.values.std()) < 1.2


CALLS = [
    pytest.param(call, expected, id=f"{function.__name__}-{number}")
    for function, twins in TWINS.items()
    for number, (call, expected) in enumerate(twins)
]


@pytest.mark.parametrize(("call", "expected"), CALLS)
def test_twins(call, expected, device):
    A, B = matrix((5, 4), 3, device), matrix((5, 4), 3, device)
    x = features(6, 2, (5, 4), device)
    ours, wanted = call(A, B, x), expected(A, B, x)
    assert type(ours) is type(wanted)
    if isinstance(ours, Tensor):
        assert_close(ours, wanted, rtol=0, atol=0)
    elif isinstance(ours, Circulant):
        assert (ours.window, ours.spatial_size) == (wanted.window, wanted.spatial_size)
        assert_close(ours.values.resolve_conj(), wanted.values.resolve_conj(), rtol=0, atol=0)
    else:
        assert ours == wanted


def test_every_function_with_a_twin_is_tested():
    # What torch calls for an operator is reached through the operators themselves, in eager mode
    # and under torch.compile.
    operators = {getattr(Tensor, name) for name in ("matmul", "add", "sub", "div")}
    names = "rmul matmul truediv rtruediv add sub rsub pow rpow".split()
    operators |= {getattr(Tensor, f"__{name}__") for name in names} | {Tensor.pow}
    elementwise = {getattr(torch, name) for name in FUNCTIONS} | {*ACTIVATIONS}
    elementwise |= {torch.lerp, torch.minimum, torch.maximum, torch.pow}
    assert set(TORCH_FUNCTIONS) - operators - elementwise == set(TWINS)


def test_clone_detach_and_like_functions_make_what_torch_would(device):
    A = matrix((5, 4), 3, device).requires_grad_()
    assert torch.clone(A).requires_grad
    assert torch.clone(A).values.data_ptr() != A.values.data_ptr()
    assert not torch.detach(A).requires_grad
    assert torch.detach(A).values.data_ptr() == A.values.data_ptr()
    assert torch.empty_like(A).shape == A.shape
    assert torch.zeros_like(A, dtype=torch.complex64).dtype == torch.complex64
    assert torch.randn_like(A, requires_grad=True).requires_grad


REFUSED = {
    "exp": lambda A, x: torch.exp(A),
    "max": lambda A, x: torch.max(A),
    "einsum": lambda A, x: torch.einsum("bhij,bhjk->bhik", A, x),
    "bmm": lambda A, x: torch.bmm(A, x),
    "permute": lambda A, x: torch.permute(A, (0, 1, 3, 2)),
    "add_": lambda A, x: x.add_(A),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_dense_is_refused(name, device):
    A = matrix((5, 4), 3, device)
    x = features(6, 2, (5, 4), device)
    before = x.clone()
    with pytest.raises(TypeError, match=rf"torch's {name} is not defined.*to_dense\(\).*A\.data"):
        REFUSED[name](A, x)
    assert_close(x, before, rtol=0, atol=0)
