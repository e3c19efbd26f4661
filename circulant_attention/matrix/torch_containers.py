"""A Circulant in the containers of torch: trees, files, batches of data, modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook
from torch.utils import _pytree as pytree
from torch.utils.data._utils.collate import default_collate_fn_map

from circulant_attention.geometry import Geometry
from circulant_attention.matrix.circulant import Circulant
from circulant_attention.matrix.functions import cat
from circulant_attention.window import WindowDim, window_of_attributes

# A Circulant is a tree with one leaf, its values, and the geometry as context: torch's transforms,
# compiler and exporter pass it through.


def _flatten(a: Circulant) -> tuple[list[Tensor], Geometry]:
    return [a.values], a.geometry


def _unflatten(children: Any, geometry: Geometry) -> Circulant:
    # Transforms put placeholders and batched tensors here, so nothing is checked.
    (values,) = children
    return Circulant._from(values, geometry)


def _flatten_with_keys(a: Circulant) -> tuple[list[tuple[Any, Any]], Geometry]:
    return [(pytree.GetAttrKey("values"), a.values)], a.geometry


def _to_dumpable(geometry: Geometry) -> list[Any]:
    general = geometry.general
    dims = None if general is None else [list(dim) for dim in general]
    return [list(geometry.spatial_size), list(geometry.lengths), dims]


def _from_dumpable(context: Sequence[Any]) -> Geometry:
    sizes, lengths, dims = context
    general = None if dims is None else tuple(WindowDim(*dim) for dim in dims)
    return Geometry(tuple(sizes), tuple(lengths), general)


pytree.register_pytree_node(
    Circulant,
    _flatten,
    _unflatten,
    serialized_type_name="circulant_attention.Circulant",
    to_dumpable_context=_to_dumpable,
    from_dumpable_context=_from_dumpable,
    flatten_with_keys_fn=_flatten_with_keys,
)


# torch.load(weights_only=True), the default, makes a Circulant only from its entries and sizes.
torch.serialization.add_safe_globals([Circulant, window_of_attributes])


def _collate(batch: Sequence[Circulant], *, collate_fn_map: Any = None) -> Circulant:
    """The matrices of a list of samples, each with a batch of its own, as one batch."""
    return cat(*batch, dim=0)


default_collate_fn_map[Circulant] = _collate


def _refuse_buffer(module: nn.Module, name: str, buffer: object) -> None:
    if isinstance(buffer, Circulant):
        raise TypeError(
            f"a Circulant cannot be a buffer: use register_buffer({name!r}, A.values), and "
            f"A.with_values(self.{name}) in forward"
        )


register_module_buffer_registration_hook(_refuse_buffer)
