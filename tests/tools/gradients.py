"""The result of a function with its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def outputs_and_gradients(
    function: Callable[..., Tensor], *inputs: Tensor, parameters: Iterable[Tensor] = ()
) -> list[Tensor]:
    """y, and the gradients of a generic functional of it by the inputs and the parameters."""
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    y = function(*inputs)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view(y.shape)
    return [y, *torch.autograd.grad((y + weights).square().mean(), [*inputs, *parameters])]
