"""The functions of torch that take a Circulant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circulant_attention.matrix import hints
from circulant_attention.matrix.algebra import Number
from circulant_attention.matrix.circulant import TORCH_FUNCTIONS, Circulant
from circulant_attention.matrix.functions import cat

Function = Callable[..., Any]


def implements(*functions: Function) -> Callable[[Function], Function]:
    """Registers the decorated function as the implementation of functions of torch."""

    def register(implementation: Function) -> Function:
        TORCH_FUNCTIONS.update(dict.fromkeys(functions, implementation))
        return implementation

    return register


# Beside each function stands the method that operators with a tensor on the left call, and every
# operator with a tensor under torch.compile.


@implements(torch.mul, torch.multiply, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
def _mul(a: Any, b: Any) -> Any:
    matrix, other = (a, b) if isinstance(a, Circulant) else (b, a)
    return Circulant.mul(matrix, other)


@implements(torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.__truediv__)
def _div(a: Any, b: Any) -> Any:
    if isinstance(b, Circulant):
        return b.__rtruediv__(a)  # refused
    return Circulant.div(a, b)


@implements(Tensor.__rtruediv__)
def _rdiv(m: Any, a: Any) -> Any:
    return _div(a, m)


@implements(torch.matmul, Tensor.matmul, Tensor.__matmul__)
def _matmul(a: Any, b: Any) -> Any:
    if isinstance(a, Circulant):
        return a @ b
    if torch.compiler.is_compiling() and isinstance(a, Tensor):
        return Circulant.apply(b, a)  # torch.compile passes `A @ x` as matmul(x, A)
    return Circulant.__rmatmul__(b, a)  # refused


def _pair(
    name: str, a: Any, b: Any, message: Callable[[str, object], str] = hints.dense_result
) -> tuple[Circulant, Circulant]:
    if not isinstance(a, Circulant) or not isinstance(b, Circulant):
        raise TypeError(message(name, b if isinstance(a, Circulant) else a))
    return a, b


@implements(torch.add, Tensor.add, Tensor.__add__)
def _add(a: Any, b: Any, *, alpha: Number = 1) -> Circulant:
    left, right = _pair("addition", a, b)
    return left.add(right, alpha=alpha)


@implements(torch.sub, torch.subtract, Tensor.sub, Tensor.__sub__, Tensor.__rsub__)
def _sub(a: Any, b: Any, *, alpha: Number = 1) -> Circulant:
    left, right = _pair("subtraction", a, b)
    return left.sub(right, alpha=alpha)


@implements(torch.minimum)
def _minimum(a: Any, b: Any) -> Circulant:
    left, right = _pair("the minimum", a, b)
    return left.minimum(right)


@implements(torch.maximum)
def _maximum(a: Any, b: Any) -> Circulant:
    left, right = _pair("the maximum", a, b)
    return left.maximum(right)


@implements(torch.lerp)
def _lerp(a: Any, b: Any, weight: Number | Tensor) -> Circulant:
    left, right = _pair("lerp", a, b)
    return left.lerp(right, weight)


@implements(torch.pow, Tensor.pow, Tensor.__pow__, Tensor.__rpow__)
def _pow(a: Any, b: Any) -> Circulant:
    if not isinstance(a, Circulant):
        raise TypeError(hints.dense_result("a power", a))
    return a.pow(b)


@implements(torch.diagonal)
def _diagonal(a: Circulant, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    return a.diagonal(offset, dim1, dim2)


@implements(torch.linalg.diagonal)
def _linalg_diagonal(a: Circulant, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    return a.diagonal(offset, dim1, dim2)


@implements(torch.vdot)
def _vdot(a: Any, b: Any) -> Tensor:
    left, right = _pair("the inner product", a, b, hints.not_two)
    return left.dot(right)


@implements(torch.softmax, F.softmax)
def _softmax(
    a: Circulant, dim: int = -1, dtype: torch.dtype | None = None, _stacklevel: int = 3
) -> Circulant:
    return (a if dtype is None else a.to(dtype)).softmax(dim)


@implements(torch.cat, torch.concat, torch.concatenate)
def _cat(tensors: Sequence[Any], dim: int = 0) -> Circulant:
    return cat(*tensors, dim=dim)


@implements(torch.equal)
def _equal(a: Any, b: Any) -> bool:
    left, right = _pair("equal", a, b, hints.not_two)
    return left == right


@implements(torch.allclose)
def _allclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    left, right = _pair("allclose", a, b, hints.not_two)
    return torch.allclose(*left._values_with(right), rtol, atol, equal_nan)


@implements(torch.reshape)
def _reshape(a: Circulant, shape: Sequence[int]) -> Circulant:
    return a.reshape(*shape)


def _on_values(function: Function) -> Function:
    """The function of a Circulant that takes ``function`` of its values."""

    def call(a: Circulant, *args: Any, **kwargs: Any) -> Circulant:
        if kwargs.pop("inplace", False):
            raise TypeError("expected inplace=False: torch changes no Circulant in place")
        return a.with_values(function(a.values, *args, **kwargs))

    return call


LIKE: list[Function] = [
    torch.zeros_like,
    torch.ones_like,
    torch.empty_like,
    torch.rand_like,
    torch.randn_like,
]
"""New entries on the same pattern."""

ACTIVATIONS: list[Function] = [
    *(F.celu, F.dropout, F.elu, F.gelu, F.hardshrink, F.hardswish, F.leaky_relu, F.mish),
    *(F.relu, F.relu6, F.selu, F.silu, F.softshrink, F.softsign, F.tanhshrink),
]
"""Functions of ``torch.nn.functional`` that are zero at zero."""

NAMESAKES = """
    abs absolute arcsin arcsinh arctan arctanh asin asinh atan atanh ceil clamp clip deg2rad erf
    erfinv expm1 fix floor frac log1p nan_to_num neg negative positive rad2deg relu round sgn sign
    sin sinh sqrt square tan tanh trunc
    adjoint clone conj detach is_complex is_floating_point mean numel sum transpose
""".split()
"""Methods that do what the function of torch of the same name does."""

TORCH_FUNCTIONS |= {function: _on_values(function) for function in LIKE + ACTIVATIONS}
TORCH_FUNCTIONS |= {getattr(torch, name): getattr(Circulant, name) for name in NAMESAKES}
TORCH_FUNCTIONS |= {torch.real: lambda a: a.real, torch.imag: lambda a: a.imag}
