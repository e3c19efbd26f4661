"""Convolutions of one pixel on DTensors.

Torch's own convolution of a DTensor that is sharded over a spatial dim returns one with the shape
of a shard, marked as replicated (torch 2.13); flatten and einsum refuse uneven shards.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from circulant_attention.distributed.placements import from_shards, placed
from circulant_attention.nn.pointwise import product

_R, _P = Replicate(), Partial()
# For x and the weight on one mesh dim: what the weight is made to be, the placements of the
# gradients of weight and x, of the product, and of the result.
_CHANNELS: dict[tuple[Placement, Placement], tuple[Placement, ...]] = {
    (_R, _R): (_R, _R, _R, _R, _R),
    # Each rank computes some of the outputs.
    (_R, Shard(0)): (Shard(0), Shard(0), _P, Shard(1), Shard(1)),
    # Each rank has some of the terms of each output.
    (Shard(1), Shard(1)): (Shard(1), Shard(1), Shard(1), _P, _R),
    (Shard(1), _R): (Shard(1), Shard(1), Shard(1), _P, Shard(1)),
}


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As the function of this name for tensors.

    On a mesh dim over which x is sharded over the batch or a spatial dim, the parameters are
    replicated. Where x is sharded over the channels they may be, too, or be sharded over their
    input channels; where it is replicated they may be sharded over their output channels.

    Raises:
        TypeError: If an argument is not a DTensor.
        ValueError: If meshes differ, or placements do not fit.
    """
    for name, given in (("x", x), ("weight", weight), ("bias", bias)):
        if given is not None and not isinstance(given, DTensor):
            raise TypeError(
                f"expected x, weight and bias of a convolution to be DTensors, got {name} as "
                f"{type(given).__name__}: use torch.distributed.tensor.distribute_module(module, "
                f"x.device_mesh) for the parameters, and distribute_tensor for x"
            )
    assert isinstance(x, DTensor)
    assert isinstance(weight, DTensor)
    mesh = x.device_mesh
    if weight.device_mesh != mesh:
        raise ValueError(f"expected the weight on the mesh of x, {mesh}, got {weight.device_mesh}")
    placed("x", x, x.dim() - 2)
    plans = [_plan(*pair) for pair in zip(x.placements, weight.placements, strict=True)]
    of_weight, weight_grads, x_grads, produced, final = map(list, zip(*plans, strict=True))
    terms = weight.redistribute(placements=of_weight).to_local(grad_placements=weight_grads)
    y = product(x.to_local(grad_placements=x_grads), terms, None)
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    result = from_shards(y, mesh, produced, shape).redistribute(placements=final)
    if bias is None:
        return result
    # Summed once, so after the sums of products.
    return result + bias.reshape(-1, *(1,) * (x.dim() - 2))


def _plan(x: Placement, weight: Placement) -> tuple[Placement, ...]:
    if isinstance(x, Shard) and x.dim != 1 and isinstance(weight, Replicate):
        # The ranks have different pixels: their gradients of the weight are summands.
        return _R, _P, x, x, x
    found = _CHANNELS.get((x, weight))
    if found is None:
        raise ValueError(
            f"expected the weight of a convolution replicated where x is sharded over pixels, or "
            f"sharded as the channels are, got {weight} for x {x}: use weight.redistribute"
        )
    return found
