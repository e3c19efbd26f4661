"""Modules that need whole grids: DTensors that are cut along the batch only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from circulant_attention.distributed.parameters import call_on_shard
from circulant_attention.distributed.placements import check_dtensor, check_placement, from_shards


def of_whole_samples(name: str) -> Callable[..., Any]:
    """The ``forward`` of a module, for DTensors that are replicated or sharded over the batch.

    Each rank computes its samples on its own.
    """

    def forward(
        module: Any, x: Tensor, mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        x = check_dtensor("x", x)
        for at, placement in enumerate(x.placements):
            check_placement("x", placement, at)
            if isinstance(placement, Shard) and placement.dim and x.device_mesh.size(at) > 1:
                raise ValueError(
                    f"expected x of {name} to be sharded over the batch only, got {placement} on "
                    f"mesh dim {at}: use x.redistribute"
                )
        own_mask = mask_of(mask, x.device_mesh, x.placements)
        y = call_on_shard(
            module, x.device_mesh, x.placements, x.to_local(), own_mask, *args, **kwargs
        )
        parts = y if isinstance(y, tuple) else (y,)
        wrapped = tuple(
            from_shards(part, x.device_mesh, x.placements, (x.shape[0], *part.shape[1:]))
            for part in parts
        )
        return wrapped if isinstance(y, tuple) else wrapped[0]

    return forward


def mask_of(
    mask: Tensor | None, mesh: DeviceMesh, placements: Sequence[Placement]
) -> Tensor | None:
    """A mask's part on this rank; it is replicated, or a plain tensor, the same on every rank."""
    if mask is None:
        return None
    if not isinstance(mask, DTensor):
        mask = DTensor.from_local(mask, mesh, [Replicate()] * mesh.ndim, run_check=False)
    elif mask.device_mesh != mesh or not all(isinstance(p, Replicate) for p in mask.placements):
        raise ValueError(
            f"expected the mask replicated on the mesh of x, {mesh}, got {mask.placements} on "
            f"{mask.device_mesh}: use mask.redistribute"
        )
    local: Tensor = mask.redistribute(placements=placements).to_local()
    return local
