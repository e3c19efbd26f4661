"""One grid on many processes: spatial sharding on torch.distributed.

The functions of the package and the modules of ``circulant_attention.nn`` take DTensors that are
sharded over batch, channels and spatial dims in any mix. The first call with one loads this
package.
:class:`ShardedGrid` and the functions ``sharded_...`` are for plain tensors, each process with its
shard.
"""

from circulant_attention.distributed import flops, functions, torch_functions  # noqa: F401
from circulant_attention.distributed.grid import ShardedGrid, set_overlap
from circulant_attention.distributed.matrix import DistributedCirculant
from circulant_attention.distributed.sharded import (
    extend_halos,
    gather_halos,
    sharded_adjacency,
    sharded_apply,
    sharded_attention,
)

__all__ = [
    "DistributedCirculant",
    "ShardedGrid",
    "extend_halos",
    "gather_halos",
    "set_overlap",
    "sharded_adjacency",
    "sharded_apply",
    "sharded_attention",
]
