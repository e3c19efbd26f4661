"""The weights of attention on a shard, computed when they are first used."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from circulant_attention.distributed import local
from circulant_attention.distributed.grid import Halos
from circulant_attention.matrix.lazy import LazyValues
from circulant_attention.ops.primitives import SimilarityKind


class ShardWeights(LazyValues):
    """The weights ``(G, n, K)`` of attention on a shard, computed when they are first used.

    From the keys with their halos, which the attention has received: so the computation sends
    nothing, and one process can look at its rows alone.

    Args:
        q: Queries ``(G, C, *local)``.
        keys: Keys with halos, as :func:`local.attention` gives them.
        halos: The grid and the window.
        kind: The similarity.
        scale: The factor of the similarities.
        bias: ``(heads, K)``, added to the scores by offset, or None.
        key_bias: ``(P, extended pixels)``, added to the scores by key, or None.
    """

    def __init__(
        self,
        q: Tensor,
        keys: Tensor,
        halos: Halos,
        kind: SimilarityKind,
        scale: float,
        bias: Tensor | None = None,
        key_bias: Tensor | None = None,
    ) -> None:
        self.settings = halos, kind, scale
        self._given = bias is not None, key_bias is not None
        q = q.clone() if q.is_inference() else q
        shape = torch.Size((q.shape[0], prod(halos.grid.local_size), halos.geometry.nnz_per_row))
        terms = (x for x in (bias, key_bias) if x is not None)
        super().__init__(shape, keys.dtype, q, keys, *terms)

    def compute(self, *inputs: Tensor) -> Tensor:
        """The weights of q and the keys."""
        q, keys, *given = inputs
        terms = [given.pop(0) if there else None for there in self._given]
        return local.adjacency(q, keys, *self.settings, *terms)
