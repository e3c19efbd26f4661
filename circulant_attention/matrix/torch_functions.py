"""How torch sees a Circulant: its functions, its pytrees, and what they do with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from circulant_attention.geometry import Geometry
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
def _mul(a: Any, b: Any) -> Circulant:
    matrix, m = (a, b) if isinstance(a, Circulant) else (b, a)
    if isinstance(m, Circulant):
        return matrix * m  # refused
    return Circulant.scale(matrix, m)


@implements(torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.__truediv__)
def _div(a: Any, b: Any) -> Circulant:
    if isinstance(b, Circulant):
        return b.__rtruediv__(a)  # refused
    return Circulant.div(a, b)


@implements(torch.matmul, Tensor.matmul, Tensor.__matmul__)
def _matmul(a: Any, b: Any) -> Tensor:
    if isinstance(a, Circulant) and isinstance(b, Tensor):
        return a.apply(b)
    if torch.compiler.is_compiling() and isinstance(a, Tensor):
        return Circulant.apply(b, a)  # torch.compile passes `A @ x` as matmul(x, A)
    return Circulant.__rmatmul__(b, a)  # refused


def _pair(name: str, a: Any, b: Any) -> tuple[Circulant, Circulant]:
    if not isinstance(a, Circulant) or not isinstance(b, Circulant):
        other = b if isinstance(a, Circulant) else a
        raise TypeError(f"expected two Circulants for {name}, got a {type(other).__name__}")
    return a, b


@implements(torch.add, Tensor.add, Tensor.__add__)
def _add(a: Any, b: Any, *, alpha: Number = 1) -> Circulant:
    left, right = _pair("addition", a, b)
    return left.add(right, alpha=alpha)


@implements(torch.sub, torch.subtract, Tensor.sub, Tensor.__sub__)
def _sub(a: Any, b: Any, *, alpha: Number = 1) -> Circulant:
    left, right = _pair("subtraction", a, b)
    return left.sub(right, alpha=alpha)


@implements(torch.vdot)
def _vdot(a: Any, b: Any) -> Tensor:
    left, right = _pair("the inner product", a, b)
    return left.dot(right)


@implements(torch.softmax, torch.nn.functional.softmax)
def _softmax(
    a: Circulant, dim: int = -1, dtype: torch.dtype | None = None, _stacklevel: int = 3
) -> Circulant:
    return (a if dtype is None else a.to(dtype)).softmax(dim)


@implements(torch.cat, torch.concat, torch.concatenate)
def _cat(tensors: Sequence[Any], dim: int = 0) -> Circulant:
    return cat(*tensors, dim=dim)


@implements(torch.equal)
def _equal(a: Any, b: Any) -> bool:
    left, right = _pair("equal", a, b)
    return left == right


@implements(torch.allclose)
def _allclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    left, right = _pair("allclose", a, b)
    left._check_compatible(right)
    return torch.allclose(left.values, right.values, rtol, atol, equal_nan)


@implements(torch.reshape)
def _reshape(a: Circulant, shape: Sequence[int]) -> Circulant:
    return a.reshape(*shape)


def _filled_like(function: Function) -> Function:
    def fill(a: Circulant, **kwargs: Any) -> Circulant:
        return a.with_values(function(a.values, **kwargs))

    return fill


for _function in (
    *(torch.zeros_like, torch.ones_like, torch.empty_like),
    *(torch.rand_like, torch.randn_like),
):
    TORCH_FUNCTIONS[_function] = _filled_like(_function)

TORCH_FUNCTIONS |= {
    torch.neg: Circulant.neg,
    torch.negative: Circulant.neg,
    torch.sum: Circulant.sum,
    torch.clone: Circulant.clone,
    torch.detach: Circulant.detach,
    torch.conj: Circulant.conj,
    torch.real: lambda a: a.real,
    torch.imag: lambda a: a.imag,
    torch.adjoint: Circulant.adjoint,
    torch.transpose: Circulant.transpose,
    torch.is_complex: Circulant.is_complex,
    torch.is_floating_point: Circulant.is_floating_point,
}


# A Circulant is a tree with one leaf, its values, and the geometry as context: torch's transforms,
# compiler and exporter pass it through.


def _flatten(a: Circulant) -> tuple[list[Tensor], Geometry]:
    return [a.values], a.geometry


def _unflatten(children: Any, geometry: Geometry) -> Circulant:
    # Transforms put placeholders and batched tensors here, so nothing is checked.
    (values,) = children
    return Circulant._from(values, geometry)


pytree.register_pytree_node(
    Circulant,
    _flatten,
    _unflatten,
    serialized_type_name="circulant_attention.Circulant",
    to_dumpable_context=lambda g: [list(g.spatial_size), list(g.window)],
    from_dumpable_context=lambda c: Geometry(tuple(c[0]), tuple(c[1])),
)
