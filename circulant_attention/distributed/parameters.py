"""Modules on shards: their parameters as plain tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement


def call_on_shard(
    module: nn.Module, mesh: DeviceMesh, placements: Sequence[Placement], *args: Any, **kwargs: Any
) -> Any:
    """``module(*args, **kwargs)`` with plain tensors, and its parameters as plain ones.

    The parameters are replicated. Their gradients are summed over the ranks that compute different
    parts, which are those with a shard by ``placements``.

    Raises:
        TypeError: If a parameter is not a DTensor.
        ValueError: If one is not replicated on the mesh.
    """
    grads = [Partial() if isinstance(p, Shard) else Replicate() for p in placements]
    local = {}
    for name, x in (*module.named_parameters(), *module.named_buffers()):
        if not isinstance(x, DTensor):
            if isinstance(x, nn.Parameter):
                raise TypeError(
                    f"expected the parameter {name} to be a DTensor as x is, got a plain one: use "
                    f"torch.distributed.tensor.distribute_module(module, x.device_mesh)"
                )
            continue
        if x.device_mesh != mesh or not all(isinstance(p, Replicate) for p in x.placements):
            raise ValueError(
                f"expected {name} replicated on the mesh of x, {mesh}, got {x.placements} on "
                f"{x.device_mesh}: use distribute_module(module, x.device_mesh)"
            )
        local[name] = x.to_local(grad_placements=grads)
    return torch.func.functional_call(module, local, args, kwargs)
