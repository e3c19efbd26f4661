"""The row softmax, with gradients of the same bits for any number of threads.

torch's own gradient of the softmax rounds differently for other numbers of CPU threads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.memory import is_plain, new_output
from circulant_attention.ops.registration import transform_active

_native = getattr(torch.ops, NAMESPACE)
_ON_CPU = torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::softmax_backward", "CPU")


def softmax_gradient(grad: Tensor, weights: Tensor) -> Tensor:
    """The gradient of the values from ``weights``, their row softmax, and the gradient of these."""
    if torch.is_grad_enabled() or transform_active():
        return weights * (grad - (weights * grad).sum(-1, keepdim=True))
    if _ON_CPU and weights.device.type == "cpu":
        gradient: Tensor = _native.softmax_backward(grad, weights)
    else:
        gradient = torch.ops.aten._softmax_backward_data(grad, weights, -1, weights.dtype)
    return gradient


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        weights = torch.softmax(values, -1, out=new_output(values))
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return softmax_gradient(grad, *ctx.saved_tensors)


def softmax(values: Tensor, presence: Tensor | None = None) -> Tensor:
    """``exp(values) / sum(exp(values))`` over the last dim.

    ``presence``, a bool tensor that broadcasts to the values, says which take part; all for None.
    The others get weight zero.
    """
    if presence is not None:
        values = values.masked_fill(~presence, -torch.inf)
    if (
        not (values.requires_grad and torch.is_grad_enabled())
        or not (_ON_CPU and values.device.type == "cpu")
        or transform_active()
        or torch.compiler.is_compiling()
    ):
        return torch.softmax(values, -1, out=new_output(values))
    weights: Tensor = _Softmax.apply(values)  # type: ignore[no-untyped-call]
    return weights


def softmax_or_zeros(values: Tensor, presence: Tensor | None = None) -> Tensor:
    """:func:`softmax` with weights of zero, and gradients of zero, in rows of minus infinity."""
    if presence is not None:
        values = values.masked_fill(~presence, -torch.inf)
    if _is_readable(values):
        weights = softmax(values)
        # Those rows are NaN, as are others with NaN or infinity, and so is this sum.
        total = weights.detach().select(-1, 0).sum().item()
        if total == total:
            return weights
    empty = (values.detach() == -torch.inf).all(-1, keepdim=True)
    return softmax(values.masked_fill(empty, 0)).masked_fill(empty, 0)


def _is_readable(values: Tensor) -> bool:
    """Whether a branch on values costs no synchronisation and no graph."""
    return (
        values.device.type == "cpu"
        and is_plain(values)
        and not torch.compiler.is_compiling()
        and not transform_active()
        and torch._C._len_torch_dispatch_stack() == 0
    )


def _fake(grad: Tensor, weights: Tensor) -> Tensor:
    return weights.new_empty(weights.shape)


torch.library.register_fake(f"{NAMESPACE}::softmax_backward", _fake)
