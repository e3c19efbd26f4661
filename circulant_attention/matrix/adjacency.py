"""The matrix of an attention that was computed without it."""

from __future__ import annotations

import torch
from torch import Tensor

from circulant_attention.geometry import Geometry
from circulant_attention.matrix.lazy import Deferred
from circulant_attention.ops import features as _features
from circulant_attention.ops import primitives as ops


class AdjacencyValues(Deferred):
    """The values of ``softmax(simfun(q / C**0.25, k / C**0.25))``.

    Args:
        q: Queries ``(B * heads, C, *spatial)``; kept, with ``k``, until nobody needs the matrix.
        k: Keys of the same shape.
        geometry: The grid and the window.
        kind: The similarity.
        lead: ``(B, heads)``.
    """

    def __init__(
        self, q: Tensor, k: Tensor, geometry: Geometry, kind: ops.Kind, lead: tuple[int, int]
    ) -> None:
        dtype = _features.real_dtype(torch.promote_types(q.dtype, k.dtype))
        shape = torch.Size((*lead, geometry.pixels * geometry.offsets))
        super().__init__(shape, dtype, q, k)
        self.geometry = geometry
        self.kind = kind

    def compute(self) -> Tensor:
        """Computes the values."""
        q, k = self.inputs
        scale = q.shape[1] ** -0.25
        scores = _features.similarity(q * scale, k * scale, self.geometry.window, self.kind)
        return torch.softmax(scores, -1).reshape(self.shape)
