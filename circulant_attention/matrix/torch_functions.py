"""torch's own functions on Circulants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circulant_attention.matrix.algebra import Number, check_compatible
from circulant_attention.matrix.circulant import Circulant
from circulant_attention.matrix.functions import cat


def call(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Runs the twin of a torch function that was called with a Circulant."""
    handler = _HANDLERS.get(func)
    if handler is None:
        name = getattr(func, "__name__", str(func))
        raise TypeError(
            f"torch's {name} is not defined for a Circulant, which stays sparse: "
            f"use A.to_dense() for a dense tensor or A.data for a torch.sparse_csr one"
        )
    return handler(*args, **kwargs)


def _mul(a: Any, b: Any) -> Circulant:
    matrix, m = (a, b) if isinstance(a, Circulant) else (b, a)
    if isinstance(m, Circulant):
        return matrix * m  # refused there
    return Circulant.scale(matrix, m)


def _div(a: Any, b: Any) -> Circulant:
    if isinstance(b, Circulant):
        return b.__rtruediv__(a)  # refused there
    return Circulant.div(a, b)


def _matmul(a: Any, b: Any) -> Tensor:
    if isinstance(a, Circulant) and isinstance(b, Tensor):
        return a.apply(b)
    if torch.compiler.is_compiling() and isinstance(a, Tensor):
        # torch.compile hands `A @ x` over as matmul(x, A).
        return Circulant.apply(b, a)
    return Circulant.__rmatmul__(b, a)  # refused there


def _both(name: str, a: Any, b: Any) -> tuple[Circulant, Circulant]:
    if not isinstance(a, Circulant) or not isinstance(b, Circulant):
        other = b if isinstance(a, Circulant) else a
        raise TypeError(f"expected two Circulants for {name}, got a {type(other).__name__}")
    return a, b


def _add(a: Any, b: Any, *, alpha: Number = 1) -> Circulant:
    left, right = _both("addition", a, b)
    return left.add(right, alpha=alpha)


def _sub(a: Any, b: Any, *, alpha: Number = 1) -> Circulant:
    left, right = _both("subtraction", a, b)
    return left.sub(right, alpha=alpha)


def _vdot(a: Any, b: Any) -> Tensor:
    left, right = _both("the inner product", a, b)
    return left.dot(right)


def _softmax(
    a: Circulant, dim: int = -1, dtype: torch.dtype | None = None, _stacklevel: int = 3
) -> Circulant:
    return (a if dtype is None else a.to(dtype)).softmax(dim)


def _cat(tensors: Sequence[Any], dim: int = 0) -> Circulant:
    return cat(*tensors, dim=dim)


def _equal(a: Any, b: Any) -> bool:
    left, right = _both("equal", a, b)
    return left == right


def _allclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    left, right = _both("allclose", a, b)
    check_compatible(left, right)
    return torch.allclose(left.values, right.values, rtol, atol, equal_nan)


def _like(name: str) -> Callable[..., Circulant]:
    """One of zeros_like, ones_like, empty_like, rand_like, randn_like, on the stored entries."""

    def make(a: Circulant, **kwargs: Any) -> Circulant:
        values = getattr(torch, name)(a.values, **kwargs)
        return Circulant(values, a.window, a.spatial_size)

    return make


_HANDLERS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.add: _add,
    torch.sub: _sub,
    torch.subtract: _sub,
    torch.neg: Circulant.neg,
    torch.negative: Circulant.neg,
    torch.mul: _mul,
    torch.multiply: _mul,
    torch.div: _div,
    torch.divide: _div,
    torch.true_divide: _div,
    torch.matmul: _matmul,
    torch.sum: Circulant.sum,
    torch.softmax: _softmax,
    torch.nn.functional.softmax: _softmax,
    torch.vdot: _vdot,
    torch.cat: _cat,
    torch.concat: _cat,
    torch.concatenate: _cat,
    torch.equal: _equal,
    torch.allclose: _allclose,
    torch.clone: Circulant.clone,
    torch.detach: Circulant.detach,
    torch.conj: Circulant.conj,
    torch.real: lambda a: a.real,
    torch.imag: lambda a: a.imag,
    torch.adjoint: Circulant.adjoint,
    torch.transpose: Circulant.transpose,
    torch.reshape: lambda a, shape: a.reshape(*shape),
    torch.is_complex: Circulant.is_complex,
    torch.is_floating_point: Circulant.is_floating_point,
    torch.zeros_like: _like("zeros_like"),
    torch.ones_like: _like("ones_like"),
    torch.empty_like: _like("empty_like"),
    torch.rand_like: _like("rand_like"),
    torch.randn_like: _like("randn_like"),
    # What `m * A` and, under torch.compile, every operator with a tensor calls.
    Tensor.mul: _mul,
    Tensor.__mul__: _mul,
    Tensor.__rmul__: _mul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    Tensor.div: _div,
    Tensor.__truediv__: _div,
    Tensor.add: _add,
    Tensor.__add__: _add,
    Tensor.sub: _sub,
    Tensor.__sub__: _sub,
}
