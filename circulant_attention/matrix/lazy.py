"""Stored entries that are computed on first use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from circulant_attention.geometry import Geometry
from circulant_attention.matrix import algebra, pattern
from circulant_attention.matrix.score_terms import ScoreTerms
from circulant_attention.ops import dtypes
from circulant_attention.ops.precision import widened
from circulant_attention.ops.primitives import SimilarityKind
from circulant_attention.ops.softmax import softmax_or_zeros
from circulant_attention.ops.versions import CHANGED, unchanged


class LazyValues:
    """The values ``(B, heads, N * K)`` of a Circulant before they are computed.

    Args:
        shape: ``(B, heads, N * K)``.
        dtype: The dtype of the values.
        inputs: The tensors that the values come from, on the device of the values.
    """

    def __init__(self, shape: torch.Size, dtype: torch.dtype, *inputs: Tensor) -> None:
        self.shape = shape
        self.dtype = dtype
        self.device = inputs[0].device
        self.inputs = inputs
        self._records_grad = torch.is_grad_enabled()
        self._values: Tensor | None = None
        if torch.compiler.is_compiling():
            # The compiler keeps changes in place in order, and can return computed values only; it
            # drops them where they are not used.
            self._versions, self._lock = None, None
            self._values = self.compute(*inputs)
        else:
            self._versions, self._lock = _versions(inputs), threading.Lock()

    @property
    def requires_grad(self) -> bool:
        """Whether the values require a gradient."""
        if self._values is not None:
            return self._values.requires_grad
        return self._records_grad and any(x.requires_grad for x in self.inputs)

    def compute(self, *inputs: Tensor) -> Tensor:
        """Computes the values."""
        raise NotImplementedError

    def get(self) -> Tensor:
        """The values, computed on the first call and kept.

        Raises:
            RuntimeError: If an input was changed in place before the first call.
        """
        if torch.compiler.is_compiling():
            if self._values is None:
                with torch.set_grad_enabled(self._records_grad):
                    self._values = self.compute(*self.checked_inputs())
            return self._values
        if self._values is not None or self._lock is None:
            assert self._values is not None
            return self._values
        with self._lock:
            if self._values is not None:
                return self._values
            # In the modes at construction: a first use under torch.no_grad or inference mode must
            # not cut gradients.
            with torch.inference_mode(False), torch.set_grad_enabled(self._records_grad):
                values = self.compute(*self.checked_inputs())
            # A fake tensor of an exporter must not outlive its trace.
            if not isinstance(values, FakeTensor) or isinstance(self.inputs[0], FakeTensor):
                self._values = values
            return values

    def checked_inputs(self) -> tuple[Tensor, ...]:
        """The inputs; raises RuntimeError if one was changed in place since construction."""
        if self._versions is None:
            return self.inputs
        if torch.compiler.is_compiling():
            pairs = zip(self.inputs, self._versions, strict=True)
            return tuple(unchanged(x, version) if version >= 0 else x for x, version in pairs)
        if _versions(self.inputs) != self._versions:
            raise RuntimeError(CHANGED)
        return self.inputs

    geometry: Geometry

    @property
    def row_cost(self) -> int:
        """Elements of memory that :meth:`rows` takes for each entry that it computes."""
        raise NotImplementedError

    def rows(self, groups: Tensor, pixels: Tensor) -> Tensor:
        """The entries of some rows ``(*, K)``: no others are computed, and they are not kept.

        Args:
            groups: The matrix of each row, ``batch * heads + head``.
            pixels: The query pixel of each row, broadcastable with ``groups``.

        Raises:
            RuntimeError: As :meth:`get`.
        """
        if self._values is not None:
            # Index tensors of dim 0 would be read on the host, and not be traced.
            computed = algebra.groups(self._values, self.geometry)
            return computed[groups[..., None], pixels[..., None]].squeeze(-2)
        with torch.set_grad_enabled(self._records_grad and torch.is_grad_enabled()):
            return self._compute_rows(groups, pixels, *self.checked_inputs())

    def matrix(self, group: int) -> Tensor:
        """The entries ``(N, K)`` of one matrix, ``batch * heads + head``: no others are computed.

        Raises:
            RuntimeError: As :meth:`get`.
        """
        if self._values is not None:
            return algebra.groups(self._values, self.geometry)[group]
        with torch.set_grad_enabled(self._records_grad and torch.is_grad_enabled()):
            return self._compute_matrix(group, *self.checked_inputs())

    def _compute_rows(self, groups: Tensor, pixels: Tensor, *inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def _compute_matrix(self, group: int, *inputs: Tensor) -> Tensor:
        raise NotImplementedError


def _versions(inputs: tuple[Tensor, ...]) -> list[int]:
    """The version counters of the inputs: torch counts changes in place.

    -1 for tensors made in inference mode, which have none.
    """
    return [-1 if x.is_inference() else x._version for x in inputs]


class Scores(NamedTuple):
    """How the scores of an attention come from q and k, beside its biases."""

    geometry: Geometry
    kind: SimilarityKind
    scale: float
    batch_shape: tuple[int, int]
    """``(B, heads)``."""


def attention_weights(q: Tensor, k: Tensor, scores: Scores, terms: ScoreTerms) -> Tensor:
    """The values ``(B, heads, N * K)`` of ``softmax(scale * simfun(q, k) + terms)``.

    Args:
        q: Queries ``(B * heads, C, *spatial)``.
        k: Keys of the same shape.
        scores: The grid, the window, the similarity and its scale.
        terms: What is added.

    Returns:
        The values, in the real dtype of q and k.
    """
    geometry, kind, scale, batch_shape = scores
    weights = dtypes.adjacency(q, k, geometry.op_window, kind, scale, *terms)
    return weights.reshape(*batch_shape, geometry.nnz)


class AttentionValues(LazyValues):
    """The values of :func:`attention_weights`; keeps its tensors until they are computed.

    Args:
        q: Queries ``(B * heads, C, *spatial)``.
        k: Keys of the same shape.
        scores: The grid, the window, the similarity and its scale.
        terms: What is added to the scores.
    """

    def __init__(self, q: Tensor, k: Tensor, scores: Scores, terms: ScoreTerms) -> None:
        self.geometry = scores.geometry
        self.scores = scores
        bias, key_bias = terms
        self._given = bias is not None, key_bias is not None
        dtype = q.dtype if q.dtype == k.dtype else torch.promote_types(q.dtype, k.dtype)
        inputs = [x for x in (q, k, bias, key_bias) if x is not None]
        # Changes in place of inference tensors are not counted, so these are copied.
        inputs = [x.clone() if x.is_inference() else x for x in inputs]
        shape = torch.Size((*scores.batch_shape, scores.geometry.nnz))
        super().__init__(shape, dtypes.real_dtype(dtype) if dtype.is_complex else dtype, *inputs)

    def _terms(self, inputs: Sequence[Tensor]) -> ScoreTerms:
        """The terms among the inputs."""
        terms = iter(inputs[2:])
        return ScoreTerms(*(next(terms) if given else None for given in self._given))

    def compute(self, *inputs: Tensor) -> Tensor:
        """The weights of q and k."""
        return attention_weights(inputs[0], inputs[1], self.scores, self._terms(inputs))

    @property
    def row_cost(self) -> int:
        """The keys of a window, and their products with the query, per channel."""
        return 2 * self.inputs[0].shape[1]

    def _compute_rows(self, groups: Tensor, pixels: Tensor, *inputs: Tensor) -> Tensor:
        q, k = (x.flatten(2) for x in inputs[:2])
        bias, key_bias = self._terms(inputs)
        windows = pattern.columns(self.geometry, pixels)
        present = pattern.present(self.geometry, pixels)
        # Vectors (*, 1, C) and (*, K, C): torch puts the dims of separated index tensors first.
        query = q[groups[..., None], :, pixels[..., None]]
        keys = k[groups[..., None], :, windows]
        scores = _similarity(query, keys, self.scores.kind) * self.scores.scale
        if bias is not None:
            offsets = pattern.offsets(self.geometry, pixels)
            scores = scores + bias[groups[..., None] % bias.shape[0], offsets].to(scores.dtype)
        if key_bias is not None:
            row = groups[..., None] // (q.shape[0] // key_bias.shape[0])
            scores = scores + key_bias[row, windows].to(scores.dtype)
        if bias is None and key_bias is None:
            if present is not None:
                scores = scores.masked_fill(~present, -torch.inf)
            return torch.softmax(scores, -1).to(self.dtype)
        return softmax_or_zeros(scores, present).to(self.dtype)

    def _compute_matrix(self, group: int, *inputs: Tensor) -> Tensor:
        q, k = (x[group, None] for x in inputs[:2])
        terms = self._terms(inputs).of(group, inputs[0].shape[0])
        weights = attention_weights(q, k, self.scores._replace(batch_shape=(1, 1)), terms)
        return algebra.groups(weights, self.geometry)[0]


class TransposedValues(LazyValues):
    """The values of a transposed Circulant.

    ``A.mT @ x`` needs none: it runs the transposed map on the values of ``A``. Every other use of
    ``A.mT`` permutes them.

    Args:
        parent: The values of the Circulant that is transposed.
        geometry: Its geometry.
    """

    def __init__(self, parent: Tensor, geometry: Geometry) -> None:
        self.geometry = geometry.transposed()
        self.parent_geometry = geometry
        super().__init__(parent.shape, parent.dtype, parent)

    def compute(self, *inputs: Tensor) -> Tensor:
        """The permuted values of the parent."""
        return algebra.transpose(inputs[0], self.parent_geometry)

    @property
    def row_cost(self) -> int:
        """Eight index tensors of int64."""
        return 16

    def _compute_rows(self, groups: Tensor, pixels: Tensor, *inputs: Tensor) -> Tensor:
        rows = pattern.columns(self.geometry, pixels)
        place, _ = pattern.place(self.parent_geometry, rows, pixels[..., None])
        entries = algebra.groups(inputs[0], self.geometry)[groups[..., None], rows, place]
        present = pattern.present(self.geometry, pixels)
        return entries if present is None else entries.where(present, 0)

    def _compute_matrix(self, group: int, *inputs: Tensor) -> Tensor:
        parent = inputs[0].flatten(0, 1)[group, None, None]
        return algebra.groups(algebra.transpose(parent, self.parent_geometry), self.geometry)[0]


def _similarity(x: Tensor, y: Tensor, kind: SimilarityKind) -> Tensor:
    """The similarities of vectors ``(*, C)``, in float32 for half precision."""
    x, y = dtypes.promote(x, y)
    if x.is_complex():
        x, y = (torch.cat([part.real, part.imag], -1) for part in (x, y))
    x, y = widened(x), widened(y)
    # Not as a matrix product: autocast and TF32 would round it.
    if kind == SimilarityKind.DOT:
        return (x * y).sum(-1)
    return (x - y).square().sum(-1) / -2


def transpose_source(source: Tensor | LazyValues) -> Tensor | None:
    """The values that ``source`` is the transpose of, if its own are not computed; else None."""
    if not isinstance(source, TransposedValues):
        return None
    made_here = source._versions is None and torch.compiler.is_compiling()
    if source._values is not None and not made_here:
        return None
    (parent,) = source.checked_inputs()
    return parent if source._records_grad else parent.detach()
