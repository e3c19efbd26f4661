"""Modules on shards: their parameters as plain tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from circulant_attention.distributed.dropout import common_seed


def call_on_shard(
    module: nn.Module, mesh: DeviceMesh, placements: Sequence[Placement], *args: Any, **kwargs: Any
) -> Any:
    """``module(*args, **kwargs)`` with plain tensors, and its parameters as plain ones.

    The parameters are replicated. Their gradients are summed over the ranks that compute different
    parts, which are those with a shard by ``placements``. Dropout in the module draws other numbers
    on each of these, and the same ones on ranks that compute the same.

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
    with _random_of_shard(module, mesh, placements):
        return torch.func.functional_call(module, local, args, kwargs)


@contextlib.contextmanager
def _random_of_shard(
    module: nn.Module, mesh: DeviceMesh, placements: Sequence[Placement]
) -> Iterator[None]:
    """Seeds torch's generator for the shard, if the module drops anything, and restores it."""
    if not module.training or not any(map(_drops, module.modules())):
        yield
        return
    device = mesh.device_type
    seed = int(common_seed(mesh, torch.device(device)))
    shard = 0
    for at, placement in enumerate(placements):
        if isinstance(placement, Shard):
            shard = shard * mesh.size(at) + mesh.get_local_rank(at)
    devices = [] if device == "cpu" else [torch.get_device_module(device).current_device()]
    with torch.random.fork_rng(devices, device_type=device if devices else "cuda"):
        torch.manual_seed(seed + shard)
        yield


def _drops(module: nn.Module) -> bool:
    p = (
        module.p
        if isinstance(module, nn.modules.dropout._DropoutNd)
        else module.__dict__.get("dropout")
    )
    return isinstance(p, float) and p > 0
