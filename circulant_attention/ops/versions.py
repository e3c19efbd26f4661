"""The check in compiled code that a tensor was not changed in place."""

from __future__ import annotations

import torch
from torch import Tensor

from circulant_attention.ops.library import NAMESPACE

CHANGED = (
    "the entries of this Circulant are not computed yet, and a tensor that they depend on has been "
    "changed in place since: use A.values before the change"
)


@torch.library.custom_op(f"{NAMESPACE}::unchanged", mutates_args=())
def _unchanged(x: Tensor, version: int) -> Tensor:
    """A copy of ``x``; raises RuntimeError unless its version counter is ``version``.

    Eager code compares versions itself. A compiler cannot trace them, but it calls this op, and
    keeps the call because the copy is used.
    """
    if x._version != version:
        raise RuntimeError(CHANGED)
    return x.clone(memory_format=torch.contiguous_format)


@_unchanged.register_fake
def _(x: Tensor, version: int) -> Tensor:
    return x.new_empty(x.shape)


_unchanged.register_autograd(lambda ctx, grad: (grad, None))
unchanged = getattr(torch.ops, NAMESPACE).unchanged
