"""Arithmetic and functions of the stored entries, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from circulant_attention.matrix import algebra, hints, score_terms
from circulant_attention.matrix.algebra import Number
from circulant_attention.matrix.lazy import LazyValues
from circulant_attention.matrix.scaled import scaled, term
from circulant_attention.matrix.tensor_like import TensorLike
from circulant_attention.ops import combination
from circulant_attention.ops.memory import new_output

if TYPE_CHECKING:
    from typing_extensions import Self

_Matrix = TypeVar("_Matrix", bound=TensorLike)


def _function(name: str) -> Callable[[_Matrix], _Matrix]:
    """The method for torch's function ``name`` of one argument, with f(0) = 0."""
    function = getattr(torch, name)
    accepts_out = name not in ("positive", "relu")

    def method(self: _Matrix) -> _Matrix:
        values = self.values
        if name == "sqrt" and self.geometry.truncated:
            return self._from(algebra.powers(values, self.geometry, 0.5), self.geometry)
        if accepts_out and not values.is_complex():
            return self._from(function(values, out=new_output(values)), self.geometry)
        return self._from(function(values), self.geometry)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``torch.{name}`` of each stored entry."
    method.__annotations__ = {"return": "Self"}
    return method


class Elementwise(TensorLike):
    """Mixin with the arithmetic and the element-wise functions of ``torch.Tensor``.

    The entries outside of the pattern are zero. What keeps them zero gives a Circulant, and what
    does not raises an error that says what to use.
    """

    # NumPy scalars and arrays leave their operators to this class.
    __array_ufunc__ = None

    # --- two matrices ---

    def add(self, other: Self, *, alpha: Number = 1) -> Self:
        """``A + alpha * B`` on the stored entries; batch and heads of size 1 broadcast."""
        if type(alpha) is int and alpha == 1:
            return self._sum(other, 1)
        a, b = self._values_with(other)
        number = algebra.number("alpha", alpha)
        values = torch.add(a, b, alpha=number, out=new_output(a, b))
        return self._from(algebra.multiplied(values, self.geometry, number), self.geometry)

    def sub(self, other: Self, *, alpha: Number = 1) -> Self:
        """``A - alpha * B`` on the stored entries; batch and heads of size 1 broadcast."""
        if type(alpha) is int and alpha == 1:
            return self._sum(other, -1)
        a, b = self._values_with(other)
        number = algebra.number("alpha", alpha)
        values = torch.sub(a, b, alpha=number, out=new_output(a, b))
        return self._from(algebra.multiplied(values, self.geometry, number), self.geometry)

    def mul(self, other: Self | Number | Tensor) -> Self:
        """``A * B`` of each stored entry, or :meth:`scale` by a number or a tensor."""
        if not isinstance(other, Elementwise):
            return self.scale(other)
        return self._from(combination.scaled(*self._values_with(other)), self.geometry)

    def minimum(self, other: Self) -> Self:
        """The smaller of each two stored entries."""
        a, b = self._values_with(other)
        return self._from(torch.minimum(a, b, out=new_output(a, b)), self.geometry)

    def maximum(self, other: Self) -> Self:
        """The larger of each two stored entries."""
        a, b = self._values_with(other)
        return self._from(torch.maximum(a, b, out=new_output(a, b)), self.geometry)

    def lerp(self, end: Self, weight: Number | Tensor) -> Self:
        """``A + weight * (B - A)`` on the stored entries, with ``weight`` as in :meth:`scale`."""
        a, b = torch.broadcast_tensors(*self._values_with(end))  # type: ignore[no-untyped-call]
        factor = algebra.broadcastable_scale(a, weight)
        values = combination.lerp(a, b, factor)
        return self._from(algebra.multiplied(values, self.geometry, factor), self.geometry)

    # --- a matrix and numbers ---

    def scale(self, m: Number | Tensor) -> Self:
        """``m * A`` on the stored entries, differentiable in both.

        Args:
            m: A number, or a tensor that broadcasts to ``(B, heads, 1, 1)``: 0-d, ``(1,)``,
                ``(heads, 1, 1)``, ``(B, heads, 1, 1)``. Either side's batch and heads may be 1.

        Returns:
            A Circulant.

        Raises:
            TypeError: If ``m`` is neither a number nor a tensor.
            ValueError: If its shape does not fit or it is on another device.

        Example:
            >>> temperature = torch.nn.Parameter(torch.ones(4, 1, 1))
            >>> Circulant(3, (2, 4, 6)).scale(temperature).shape
            torch.Size([2, 4, 6, 6])

        References:
            ``scale`` in CirculantAttention.jl, ``src/array.jl``.
        """
        factor = algebra.broadcastable_scale(self._source, m)
        return self._from(scaled(self.values, self.geometry, factor), self.geometry)

    def div(self, m: Number | Tensor) -> Self:
        """``A / m`` on the stored entries, differentiable in both; see :meth:`scale`."""
        factor = algebra.broadcastable_scale(self._source, m)
        return self._from(scaled(self.values, self.geometry, factor, True), self.geometry)

    def pow(self, exponent: Number) -> Self:
        """Each stored entry to a positive power."""
        number = algebra.positive_exponent(exponent)
        return self._from(algebra.powers(self.values, self.geometry, number), self.geometry)

    def clamp(self, min: Number | None = None, max: Number | None = None) -> Self:
        """Each stored entry between ``min`` <= 0 and ``max`` >= 0, so that zeros stay zero."""
        low, high = algebra.bounds_around_zero(min, max)
        return self._from(torch.clamp(self.values, low, high), self.geometry)

    clip = clamp

    def nan_to_num(
        self, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
    ) -> Self:
        """Numbers in place of the stored entries that are NaN or infinite."""
        return self._from(torch.nan_to_num(self.values, nan, posinf, neginf), self.geometry)

    def round(self, *, decimals: int = 0) -> Self:
        """Each stored entry rounded, half to even."""
        return self._from(torch.round(self.values, decimals=decimals), self.geometry)

    # --- functions of one argument ---

    abs = _function("abs")
    absolute = _function("absolute")
    arcsin = _function("arcsin")
    arcsinh = _function("arcsinh")
    arctan = _function("arctan")
    arctanh = _function("arctanh")
    asin = _function("asin")
    asinh = _function("asinh")
    atan = _function("atan")
    atanh = _function("atanh")
    ceil = _function("ceil")
    deg2rad = _function("deg2rad")
    erf = _function("erf")
    erfinv = _function("erfinv")
    expm1 = _function("expm1")
    fix = _function("fix")
    floor = _function("floor")
    frac = _function("frac")
    log1p = _function("log1p")
    neg = _function("neg")
    negative = _function("negative")
    positive = _function("positive")
    rad2deg = _function("rad2deg")
    relu = _function("relu")
    sgn = _function("sgn")
    sign = _function("sign")
    sin = _function("sin")
    sinh = _function("sinh")
    sqrt = _function("sqrt")
    square = _function("square")
    tan = _function("tan")
    tanh = _function("tanh")
    trunc = _function("trunc")

    # --- operators ---

    def __add__(self, other: Any) -> Self:
        if isinstance(other, Elementwise):
            return self._sum(other, 1)
        return _refused("addition", other)

    def __radd__(self, other: Any) -> Self:
        # Python's sum() of Circulants begins with 0 + A.
        if type(other) is int and other == 0:
            return self
        return _refused("addition", other)

    def __sub__(self, other: Any) -> Self:
        if isinstance(other, Elementwise):
            return self._sum(other, -1)
        return _refused("subtraction", other)

    def __rsub__(self, other: Any) -> Self:
        return _refused("subtraction", other)

    def __neg__(self) -> Self:
        return self.scale(-1)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return self.abs()

    def __mul__(self, other: Any) -> Self:
        return self.mul(other)

    __rmul__ = __mul__

    def __truediv__(self, m: Any) -> Self:
        if isinstance(m, Elementwise):
            self.__rtruediv__(m)
        return self.div(m)

    def __rtruediv__(self, other: Any) -> NoReturn:
        raise TypeError(
            "division by a Circulant is not defined: most of its entries are zero; use A.values "
            "for the stored ones"
        )

    def __pow__(self, exponent: Any) -> Self:
        return self.pow(exponent)

    def __rpow__(self, base: Any) -> Self:
        return _refused("a power", base)

    def __lt__(self, other: Any) -> NoReturn:
        raise TypeError(
            "comparisons of a Circulant are not defined: compare its stored entries, A.values"
        )

    __le__ = __gt__ = __ge__ = __lt__

    def _sum(self, other: object, sign: int) -> Self:
        """``A + sign * B``."""
        b = self._compatible(other)
        values = combination.combined(term(self._source), term(b), sign)
        return self._from(values, self.geometry)

    def _values_with(self, other: object) -> tuple[Tensor, Tensor]:
        """The values of this matrix and of a compatible one."""
        b = self._compatible(other)
        return self.values, b.get() if isinstance(b, LazyValues) else b

    def _compatible(self, other: object) -> Tensor | LazyValues:
        """The source of another matrix; raises unless it is compatible."""
        if not isinstance(other, Elementwise):
            raise TypeError(
                f"expected a Circulant, got {type(other).__name__}: use A.with_values for a "
                f"function of A.values, the stored entries, or A.to_dense()"
            )
        a, b = self._source, other._source
        # The usual case without a call: two matrices of one function, with values.
        if self.geometry is not other.geometry or a.shape != b.shape or a.device != b.device:
            algebra.check_compatible(a, self.geometry, b, other.geometry)
        return b

    # --- scores ---

    def add_bias(self, bias: Tensor) -> Self:
        """The entries plus a number for each offset of the window; see :meth:`mask_keys`.

        Args:
            bias: ``(heads, *window)``, with the lengths of the window; heads may be 1.

        Raises:
            TypeError: If ``bias`` is not a real tensor.
            ValueError: If its shape or its device does not fit.
        """
        return self._from(score_terms.add_bias(self.values, self.geometry, bias), self.geometry)

    def mask_keys(self, mask: Tensor) -> Self:
        """Minus infinity in the columns where a mask is False, or a number for each column added.

        The softmax gives these entries weight zero, and zeros to rows without any other.

        Args:
            mask: Bool, or real numbers that are added: ``(B, *spatial)`` or ``(B, heads,
                *spatial)``; B and heads may be 1.

        Raises:
            TypeError: If ``mask`` is not a bool or real tensor.
            ValueError: If its shape or its device does not fit.

        Example:
            >>> S = Circulant(3, (1, 1, 5))
            >>> land = torch.tensor([[True, True, False, True, True]])
            >>> S.mask_keys(land).softmax().rows[0, 0, 1].tolist()
            [0.5, 0.5, 0.0]
        """
        return self._from(score_terms.mask_keys(self.values, self.geometry, mask), self.geometry)


def _refused(operation: str, other: object) -> NoReturn:
    """NotImplemented for an object that may know the operation; raises TypeError for others."""
    if isinstance(other, Tensor | np.ndarray) or algebra.is_number(other):
        raise TypeError(hints.dense_result(operation, other))
    return NotImplemented  # type: ignore[misc]
