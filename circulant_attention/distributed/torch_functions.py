"""The functions of torch that take a DistributedCirculant, and its place in containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circulant_attention.distributed.matrix import TORCH_FUNCTIONS, DistributedCirculant
from circulant_attention.ops import dispatch


def _scaled(a: Any, b: Any) -> Any:
    return a * b if isinstance(a, DistributedCirculant) else b * a


_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.softmax: lambda a, dim=-1, dtype=None: (a if dtype is None else a.to(dtype)).softmax(dim),
    F.softmax: lambda a, dim=-1, _stacklevel=3, dtype=None: (
        a if dtype is None else a.to(dtype)
    ).softmax(dim),
    torch.sum: lambda a, dim=None: a.sum(dim),
    torch.mean: lambda a, dim=None, dtype=None: a.mean(dim, dtype=dtype),
    torch.vdot: lambda a, b: a.dot(b),
    torch.neg: lambda a: -a,
    torch.matmul: lambda a, x: a.apply(x),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__), lambda a, b: a + b),
    **dict.fromkeys((torch.sub, Tensor.sub, Tensor.__sub__), lambda a, b: a - b),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), _scaled),
    **dict.fromkeys((torch.div, Tensor.div, Tensor.__truediv__), lambda a, b: a / b),
}

TORCH_FUNCTIONS.update(_FUNCTIONS)


def _flatten(a: DistributedCirculant) -> tuple[list[Tensor], Any]:
    return [a._values], (a._placed, a._halos, a._batch_shape, a._transposed)


def _unflatten(values: Any, context: Any) -> DistributedCirculant:
    (source,) = values
    return DistributedCirculant._from(source, *context)


torch.utils._pytree.register_pytree_node(DistributedCirculant, _flatten, _unflatten)
dispatch.MATRICES.append(DistributedCirculant)
