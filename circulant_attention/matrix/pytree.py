"""Lets torch's transforms, compiler and exporter pass Circulants through.

A Circulant is a tree with one leaf, its values; the geometry is the context.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from circulant_attention.geometry import Geometry
from circulant_attention.matrix.circulant import Circulant


def _flatten(a: Circulant) -> tuple[list[Tensor], Geometry]:
    return [a.values], a.geometry


def _unflatten(children: Any, geometry: Geometry) -> Circulant:
    # Transforms put placeholders and batched tensors in here, so nothing is checked.
    result = object.__new__(Circulant)
    (result._source,) = children
    result.geometry = geometry
    return result


pytree.register_pytree_node(
    Circulant,
    _flatten,
    _unflatten,
    serialized_type_name="circulant_attention.Circulant",
    to_dumpable_context=lambda g: [list(g.spatial_size), list(g.window)],
    from_dumpable_context=lambda c: Geometry(tuple(c[0]), tuple(c[1])),
)
