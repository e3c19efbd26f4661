"""Linear combinations of the entries of two matrices, without temporary matrices.

They are torch's own functions, which every device, dtype and mode of torch has. A native op adds
two products on the CPU, for which torch has no function. Large results on the CPU go into huge
pages (:mod:`circulant_attention.ops.memory`), for which autograd needs a function of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.memory import broadcast_shape, is_large, is_recorded, new_output
from circulant_attention.ops.precision import is_half
from circulant_attention.ops.registration import transform_active

_native = getattr(torch.ops, NAMESPACE)

Number = int | float | complex


class Term(NamedTuple):
    """``values``, times or over ``factor`` if there is one."""

    values: Tensor
    factor: Number | Tensor | None = None
    divides: bool = False

    def dtype(self) -> torch.dtype:
        """The dtype of the term, by torch's promotion."""
        if self.factor is None:
            return self.values.dtype
        return torch.result_type(self.values, self.factor)

    def tensors(self) -> list[Tensor]:
        """The values, and a factor that is a tensor."""
        return [x for x in self if isinstance(x, Tensor)]

    def compute(self) -> Tensor:
        """The term as a tensor; the values themselves if there is no factor."""
        if self.factor is None:
            return self.values
        return scaled(self.values, self.factor, self.divides)


def scaled(values: Tensor, factor: Number | Tensor, divides: bool = False) -> Tensor:
    """``values * factor``, or ``values / factor``, for a factor that broadcasts."""
    operation: Callable[..., Tensor] = torch.div if divides else torch.mul
    if not is_large(values, factor):
        return operation(values, factor)
    if is_recorded(values, factor):
        result: Tensor = _Combination.apply(1, values, factor, divides)  # type: ignore[no-untyped-call]
        return result
    return operation(values, factor, out=new_output(values, factor))


def combined(a: Term, b: Term, sign: int = 1) -> Tensor:
    """``a + sign * b``.

    A product that is added to another term has no rounding of its own where the processor has a
    fused multiply-add.
    """
    if a.factor is None and b.factor is None and not is_large(a.values, b.values):
        return a.values + b.values if sign == 1 else a.values - b.values
    tensors = (a.values, a.factor, b.values, b.factor)
    if is_recorded(*tensors) and is_large(*tensors):
        result: Tensor = _Combination.apply(sign, *a, *b)  # type: ignore[no-untyped-call]
        return result
    return _combine(a, b, sign)


def lerp(a: Tensor, b: Tensor, weight: Number | Tensor) -> Tensor:
    """``a + weight * (b - a)``."""
    if not is_large(a, b, weight):
        return torch.lerp(a, b, weight)
    if is_recorded(a, b, weight):
        result: Tensor = _Lerp.apply(a, b, weight)  # type: ignore[no-untyped-call]
        return result
    return torch.lerp(a, b, weight, out=new_output(a, b, weight, dtype=a.dtype))


def _combine(a: Term, b: Term, sign: int) -> Tensor:
    dtype = torch.promote_types(a.dtype(), b.dtype())
    if sign == 1 and b.factor is None:
        a, b = b, a
    if _is_native(a, b, dtype):
        return _one_pass(a, b, sign)
    products = []
    first = a.compute()
    if a.factor is not None:
        products.append(first)
    if not _is_addable(b, dtype):
        b = Term(b.compute())
        products.append(b.values)
    shape = broadcast_shape(first, *b.tensors())
    writable = not (is_recorded(first, *b) or transform_active() or torch.compiler.is_compiling())
    # A product has served once it is added.
    fits = [x for x in products if writable and x.shape == shape and x.dtype == dtype]
    out = fits[0] if fits else new_output(first, *b.tensors(), dtype=dtype)
    return _add(first, b, sign, out)


def _is_native(a: Term, b: Term, dtype: torch.dtype) -> bool:
    """Whether the native op computes the sum of two products."""
    return (
        dtype in (torch.float32, torch.float64)
        and a.values.dtype == b.values.dtype == dtype
        and a.values.shape == b.values.shape
        and a.values.is_contiguous()
        and b.values.is_contiguous()
        and all(_is_native_factor(x) for x in (a, b))
        and is_large(*a.tensors(), *b.tensors())
        and not is_recorded(*a, *b)
    )


def _is_native_factor(term: Term) -> bool:
    values, factor, divides = term
    if isinstance(factor, Tensor):
        fits = factor.dim() == 0 or factor.shape in ((1, 1, 1), (*values.shape[:2], 1))
        return fits and factor.dtype == values.dtype and not divides
    return factor is not None and not divides


def _one_pass(a: Term, b: Term, sign: int) -> Tensor:
    """:func:`combined` by the native op, for values ``(B, heads, N * K)``."""
    numbers = [
        x.factor.flatten() if isinstance(x.factor, Tensor) else x.values.new_tensor([x.factor])
        for x in (a, b)
    ]
    factors = numbers[0], numbers[1] if sign == 1 else -numbers[1]
    first, second = a.values.flatten(0, 1), b.values.flatten(0, 1)
    result: Tensor = _native.linear_combination(first, factors[0], second, factors[1])
    return result.view(a.values.shape)


def _is_addable(term: Term, dtype: torch.dtype) -> bool:
    """Whether torch adds the term in one pass, with a factor that is not rounded first."""
    values, factor, _ = term
    if factor is None:
        return True
    if isinstance(factor, Tensor):
        return values.dtype == factor.dtype == dtype and values.device == factor.device
    # In half precision torch rounds the last elements of each thread otherwise.
    return values.dtype == term.dtype() == dtype and factor != 0 and not is_half(dtype)


def _add(x: Tensor, term: Term, sign: int, out: Tensor | None) -> Tensor:
    values, factor, divides = term
    if isinstance(factor, Tensor):
        operation = torch.addcdiv if divides else torch.addcmul
        return operation(x, values, factor, value=sign, out=out)
    if factor is None:
        return torch.add(x, values, alpha=sign, out=out)
    return torch.add(x, values, alpha=sign / factor if divides else sign * factor, out=out)


class _Combination(torch.autograd.Function):
    """``sign`` belongs to the second term; the inputs are one term or two."""

    @staticmethod
    def forward(ctx: Any, sign: int, *inputs: Any) -> Tensor:
        terms = [Term(*inputs[at : at + 3]) for at in range(0, len(inputs), 3)]
        ctx.signs = (1, sign)
        ctx.terms = [(term.values.shape, term.values.dtype, term.divides) for term in terms]
        ctx.numbers = [None if isinstance(x.factor, Tensor) else x.factor for x in terms]
        needed = ctx.needs_input_grad[1:]
        kept = []
        for at, term in enumerate(terms):
            # The values serve the gradient of the factor alone.
            kept += [term.values if needed[3 * at + 1] else None]
            kept += [term.factor if isinstance(term.factor, Tensor) else None]
        ctx.save_for_backward(*kept)
        return terms[0].compute() if len(terms) == 1 else _combine(terms[0], terms[1], sign)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        gradients: list[Tensor | None] = []
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
        for at, (shape, dtype, divides) in enumerate(ctx.terms):
            values, factor = saved[2 * at : 2 * at + 2]
            factor = ctx.numbers[at] if factor is None else factor
            sign = ctx.signs[at]
            gradients += [None, None, None]
            if needed[3 * at]:
                gradients[-3] = _like(_of_values(grad, factor, divides, sign), shape, dtype)
            if needed[3 * at + 1]:
                gradients[-2] = _of_factor(grad, values, factor, divides, sign)
        return None, *gradients


class _Lerp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Any) -> Tensor:
        ctx.number = None if isinstance(weight, Tensor) else weight
        ctx.shapes = a.shape, b.shape
        kept = (a, b) if ctx.needs_input_grad[2] else (None, None)
        ctx.save_for_backward(*kept, weight if ctx.number is None else None)
        return lerp(a, b, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, b, weight = ctx.saved_tensors
        weight = ctx.number if weight is None else weight
        factors = (1 - weight, weight)
        gradients: list[Tensor | None] = [None, None, None]
        for at, shape in enumerate(ctx.shapes):
            if ctx.needs_input_grad[at]:
                values = _of_values(grad, factors[at], False, 1)
                gradients[at] = _like(values, shape, grad.dtype)
        if ctx.needs_input_grad[2]:
            gradients[2] = _of_factor(grad, combined(Term(b), Term(a), -1), weight, False, 1)
        return tuple(gradients)


def _of_values(grad: Tensor, factor: Any, divides: bool, sign: int) -> Tensor:
    """The gradient of the values of a term."""
    if isinstance(factor, Tensor):
        factor = factor.conj() if factor.is_complex() else factor
        result = scaled(grad, factor, divides)
        return result if sign == 1 else scaled(result, sign)
    if factor is None:
        return grad if sign == 1 else scaled(grad, sign)
    return scaled(grad, sign * factor.conjugate(), divides)


def _of_factor(grad: Tensor, values: Tensor, factor: Tensor, divides: bool, sign: int) -> Tensor:
    """The gradient of the factor of a term."""
    products = scaled(grad, values.conj_physical() if values.is_complex() else values)
    shape, dtype = factor.shape, factor.dtype
    if factor.is_complex():
        factor = factor.conj()
    result = _like(products, shape, torch.promote_types(products.dtype, dtype))
    if divides:
        result = -result / (factor * factor)
    return _like(result if sign == 1 else -result, shape, dtype)


def _like(grad: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A gradient summed over the dims that were broadcast, in the dtype of the input."""
    summed = grad if grad.shape == shape else grad.sum_to_size(shape)
    if summed.is_complex() and not dtype.is_complex:
        summed = summed.real
    return summed if summed.dtype == dtype else summed.to(dtype)


def _fake(a: Tensor, alpha: Tensor, b: Tensor, beta: Tensor) -> Tensor:
    return a.new_empty(a.shape)


torch.library.register_fake(f"{NAMESPACE}::linear_combination", _fake)
