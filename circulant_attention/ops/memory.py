"""New memory for large results on the CPU: in huge pages, which cost a quarter of the page faults.

torch allocates pages of 4 KB, unless its environment says otherwise. So functions of all stored
entries write into tensors of :func:`new_output`, by ``out=``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.registration import transform_active

_native = getattr(torch.ops, NAMESPACE)
_ON_CPU = torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::new_values", "CPU")
# Two huge pages: smaller results hold none, or hardly gain.
LARGE = 2**22


def is_recorded(*inputs: object) -> bool:
    """Whether autograd records a function of the tensors among the inputs."""
    return torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in inputs
    )


def has_large(*inputs: object) -> bool:
    """Whether an input is large; False in compilers, which must not depend on sizes."""
    if torch.compiler.is_compiling():
        return False
    for x in inputs:
        if isinstance(x, Tensor) and x.numel() * x.element_size() >= LARGE:
            return True
    return False


def is_large(*inputs: object) -> bool:
    """Whether an element-wise result of the inputs is large, and can be written into memory.

    Compilers and transforms allocate for themselves.
    """
    # The size first: small results, which are the fastest to compute, need no other check.
    if not has_large(*inputs) or not _ON_CPU or transform_active():
        return False
    # A batched tensor is one of ``is_grads_batched``.
    batched = torch._C._functorch.is_legacy_batchedtensor
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    return all(x.device.type == "cpu" and is_plain(x) and not batched(x) for x in tensors)


def is_plain(x: Tensor) -> bool:
    """Whether a tensor is of no subclass. Subclasses, as fake tensors, allocate for themselves."""
    return type(x) in (Tensor, nn.Parameter)


def new_output(*inputs: Any, dtype: torch.dtype | None = None) -> Tensor | None:
    """New memory for an element-wise result of the inputs, an argument ``out`` of torch.

    Args:
        *inputs: The tensors, and numbers, at most two without ``dtype``.
        dtype: The dtype of the result, by default that of torch's promotion.

    Returns:
        An uninitialized tensor in huge pages; None, with which torch allocates, if the result is
        not large or autograd records the function.
    """
    if not is_large(*inputs) or is_recorded(*inputs):
        return None
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if dtype is None:
        dtype = torch.result_type(*inputs) if len(inputs) > 1 else tensors[0].dtype
    memory: Tensor = _native.new_values(tensors[0], list(broadcast_shape(*tensors)), dtype)
    return memory


def clone(x: Tensor) -> Tensor:
    """A copy of ``x``, as ``x.clone()``; differentiable."""
    if not is_large(x):
        return x.clone()
    memory: Tensor = _native.new_values(x.detach(), list(x.shape), x.dtype)
    return memory.copy_(x)


def broadcast_shape(*tensors: Tensor) -> torch.Size:
    """The shape of an element-wise result."""
    first = tensors[0].shape
    if all(x.shape == first for x in tensors):
        return first
    shape: torch.Size = torch.broadcast_shapes(*(x.shape for x in tensors))  # type: ignore[no-untyped-call]
    return shape


def _fake(x: Tensor, size: list[int], dtype: torch.dtype) -> Tensor:
    return x.new_empty(size, dtype=dtype)


torch.library.register_fake(f"{NAMESPACE}::new_values", _fake)
