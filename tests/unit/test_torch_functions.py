"""torch's own functions on Circulants: those that have a twin."""

from __future__ import annotations

import re

import pytest
import torch
from inputs import features, matrix
from test_elementwise import FUNCTIONS
from torch import Tensor
from torch.testing import assert_close

from circulant_attention import Circulant, cat  # noqa: F401
from circulant_attention.matrix.circulant import TORCH_FUNCTIONS
from circulant_attention.matrix.torch_functions import ACTIVATIONS

# What a torch function gives, beside what the Circulant's own operator, method or function does.
# What a torch function gives, and what the Circulant's own operator, method or function gives.
TWINS = {
    "torch.add(A, B)": "A + B",
    "torch.add(A, B, alpha=2)": "A + 2 * B",
    "torch.sub(A, B)": "A - B",
    "torch.sub(A, B, alpha=2)": "A - 2 * B",
    "torch.subtract(A, B)": "A - B",
    "torch.mul(A, 2)": "2 * A",
    "torch.mul(m, A)": "A.scale(m)",
    "torch.multiply(A, m)": "m * A",
    "Tensor.mul(m, A)": "A * m",
    "Tensor.__mul__(m, A)": "A * m",
    "torch.div(A, m)": "A / m",
    "torch.divide(A, 2)": "A / 2",
    "torch.true_divide(A, 2)": "A / 2",
    "torch.matmul(A, x)": "A @ x",
    "torch.sum(A)": "A.sum()",
    "torch.sum(A, -2, True)": "A.sum(-2, keepdim=True)",
    "torch.sum(A, dim=1)": "A.sum(1)",
    "torch.mean(A, (-2, -1))": "A.mean((-2, -1))",
    "torch.mean(A, dim=0, dtype=torch.float32)": "A.mean(0, dtype=torch.float32)",
    "torch.numel(A)": "6 * 20 * 20",
    "torch.diagonal(A, 0, 2, 3)": "A.diagonal()",
    "torch.linalg.diagonal(A)": "A.diagonal()",
    "torch.softmax(A, -1)": "A.softmax()",
    "torch.softmax(A, dim=3)": "A.softmax()",
    "torch.softmax(A, -1, dtype=torch.float32)": "A.float().softmax()",
    "torch.nn.functional.softmax(A, dim=-1)": "A.softmax()",
    "torch.nn.functional.softmax(A, -1, dtype=torch.float32)": "A.float().softmax()",
    "torch.vdot(A, B)": "A.dot(B)",
    "torch.cat([A, B])": "cat(A, B, dim=0)",
    "torch.cat((A, B), dim=1)": "cat(A, B, dim=1)",
    "torch.concat([A, B], 1)": "cat(A, B)",
    "torch.concatenate([A, B], 1)": "cat(A, B)",
    "torch.equal(A, A.clone())": "True",
    "torch.equal(A, B)": "False",
    "torch.allclose(A, A * (1 + 1e-7))": "True",
    "torch.allclose(A, A * (1 + 1e-7), rtol=1e-9)": "False",
    "torch.allclose(A, B, atol=1e3)": "True",
    "torch.clone(A)": "A",
    "torch.detach(A)": "A",
    "torch.conj(Z)": "Z.conj()",
    "torch.real(Z)": "A",
    "torch.imag(Z)": "B",
    "torch.adjoint(Z)": "Z.mH",
    "torch.transpose(A, -1, -2)": "A.mT",
    "torch.reshape(A, (3, 2, 20, 20))": "A.reshape(3, 2, 20, 20)",
    "torch.is_complex(A)": "False",
    "torch.is_complex(Z)": "True",
    "torch.is_floating_point(A)": "True",
    "torch.is_floating_point(Z)": "False",
    "torch.zeros_like(A)": "0 * A",
    "torch.ones_like(A)": "0 * A + ones.double()",
    "torch.ones_like(A, dtype=torch.float32)": "ones",
    "torch.empty_like(A).shape": "A.shape",
    "bool((torch.rand_like(A).values <= 1).all())": "True",
    "is_normal(torch.randn_like(A))": "True",
}


def is_normal(A: Circulant) -> bool:
    # The mean of 1080 standard normal numbers lies within 5 / sqrt(1080) but once in a million.
    return abs(float(A.values.mean())) < 0.16 and 0.8 < float(A.values.std()) < 1.2


@pytest.mark.parametrize(("call", "expected"), TWINS.items())
def test_twins(call, expected, device):
    A, B = matrix((5, 4), 3, device), matrix((5, 4), 3, device)
    names = {
        **{"A": A, "B": B, "Z": A.with_values(torch.complex(A.values, B.values))},
        "x": features(6, 2, (5, 4), device),
        "m": torch.arange(1.0, 7.0, dtype=torch.float64, device=device).reshape(2, 3, 1, 1),
        "ones": Circulant(3, (2, 3, 5, 4), device=device),
    }
    ours, wanted = (eval(code, {**globals(), **names}) for code in (call, expected))
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
    tested = {eval(re.search(r"(torch|Tensor)\.[\w.]+", call)[0]) for call in TWINS}
    assert set(TORCH_FUNCTIONS) - operators - elementwise == tested


def test_clone_detach_and_like_functions_make_what_torch_would(device):
    A = matrix((5, 4), 3, device).requires_grad_()
    assert torch.clone(A).requires_grad
    assert torch.clone(A).values.data_ptr() != A.values.data_ptr()
    assert not torch.detach(A).requires_grad
    assert torch.detach(A).values.data_ptr() == A.values.data_ptr()
    assert torch.empty_like(A).shape == A.shape
    assert torch.zeros_like(A, dtype=torch.complex64).dtype == torch.complex64
    assert torch.randn_like(A, requires_grad=True).requires_grad
