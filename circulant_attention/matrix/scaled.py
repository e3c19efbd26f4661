"""The product of a matrix and a factor before it is computed.

A sum takes it apart, so that ``a * A + b * B`` makes no other matrix than its result.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from circulant_attention.geometry import Geometry
from circulant_attention.matrix.algebra import Number, keeps_zeros, without_absent
from circulant_attention.matrix.lazy import LazyValues
from circulant_attention.ops import combination, memory
from circulant_attention.ops.combination import Term
from circulant_attention.ops.registration import transform_active


class ScaledValues(LazyValues):
    """``values * factor``, or ``values / factor``; keeps the values until the product is computed.

    Args:
        values: The values ``(B, heads, N * K)`` of a Circulant.
        geometry: Its geometry.
        factor: A number or a tensor that broadcasts to ``(B, heads, 1)``.
        divides: Whether the factor divides.
    """

    def __init__(
        self, values: Tensor, geometry: Geometry, factor: Number | Tensor, divides: bool
    ) -> None:
        self.geometry = geometry
        self.divides = divides
        self.number = None if isinstance(factor, Tensor) else factor
        # Few numbers: a copy keeps those of now. Autograd records what it would for a product now.
        inputs = [values, factor.clone()] if isinstance(factor, Tensor) else [values]
        recorded = torch.is_grad_enabled()
        inputs = [x if recorded and x.requires_grad else x.detach() for x in inputs]
        shape = values.shape
        if isinstance(factor, Tensor) and factor.dim() > 0:
            shape = memory.broadcast_shape(values, factor)
        super().__init__(shape, torch.result_type(values, factor), *inputs)
        self._recorded = recorded and any(x.requires_grad for x in inputs)
        self._taking = threading.Lock()

    @property
    def requires_grad(self) -> bool:
        """Whether the values require a gradient."""
        values = self._values
        return self._recorded if values is None else values.requires_grad

    def compute(self, *inputs: Tensor) -> Tensor:
        """The product."""
        return combination.scaled(inputs[0], self._factor(inputs), self.divides)

    def checked_inputs(self) -> tuple[Tensor, ...]:
        """As :meth:`LazyValues.checked_inputs`; none after the product is computed."""
        if torch.compiler.is_compiling():
            return super().checked_inputs()
        with self._taking:
            return super().checked_inputs()

    def get(self) -> Tensor:
        """The product, computed on the first call and kept; see :meth:`LazyValues.get`."""
        values = super().get()
        if self._values is not None and self.inputs and not torch.compiler.is_compiling():
            with self._taking:
                self.inputs, self._versions = (), []
        return values

    def term(self) -> Term:
        """The values and the factor; the product alone if it is computed.

        Raises:
            RuntimeError: If the values were changed in place since construction.
        """
        pending = self._values is None and not torch.compiler.is_compiling()
        inputs = self.checked_inputs() if pending else ()
        if not inputs:
            return Term(self.get())
        return Term(inputs[0], self._factor(inputs), self.divides)

    @property
    def row_cost(self) -> int:
        """A product for each entry."""
        return 2

    def _factor(self, inputs: tuple[Tensor, ...]) -> Number | Tensor:
        return inputs[1] if self.number is None else self.number

    def _compute_rows(self, groups: Tensor, pixels: Tensor, *inputs: Tensor) -> Tensor:
        if not inputs:  # another thread has computed the product
            return self.rows(groups, pixels)
        heads = self.shape[1]
        batch, head = (groups // heads)[..., None], (groups % heads)[..., None]
        entries = self._rows(inputs[0])[batch, head, pixels[..., None]].squeeze(-2)
        factor = self._factor(inputs)
        if isinstance(factor, Tensor) and factor.dim() > 0:
            factor = factor.expand(*self.shape[:2], 1)[batch, head].squeeze(-2)
        return combination.scaled(entries, factor, self.divides)

    def _compute_matrix(self, group: int, *inputs: Tensor) -> Tensor:
        if not inputs:
            return self.matrix(group)
        at = divmod(group, self.shape[1])
        factor = self._factor(inputs)
        if isinstance(factor, Tensor) and factor.dim() > 0:
            factor = factor.expand(*self.shape[:2], 1)[at]
        return combination.scaled(self._rows(inputs[0])[at], factor, self.divides)

    def _rows(self, values: Tensor) -> Tensor:
        """The values ``(B, heads, N, K)`` without a copy."""
        sizes = (*self.shape[:2], self.geometry.pixels, self.geometry.nnz_per_row)
        return values.expand(self.shape).view(sizes)


def scaled(
    values: Tensor, geometry: Geometry, factor: Number | Tensor, divides: bool = False
) -> Tensor | ScaledValues:
    """The product, or the quotient, deferred if it is large. Absent entries stay zero.

    It is computed at once where a change in place of the values cannot be noticed, and by
    transforms and compilers, which join it with a sum by themselves.
    """
    if not keeps_zeros(geometry, factor, divides):
        return without_absent(combination.scaled(values, factor, divides), geometry)
    deferred = (
        memory.has_large(values)
        and not transform_active()
        and not values.is_inference()
        and all(memory.is_plain(x) for x in (values, factor) if isinstance(x, Tensor))
    )
    if deferred:
        return ScaledValues(values, geometry, factor, divides)
    return combination.scaled(values, factor, divides)


def term(source: Tensor | LazyValues) -> Term:
    """The term of a sum that values are."""
    if isinstance(source, ScaledValues):
        return source.term()
    return Term(source.get() if isinstance(source, LazyValues) else source)
