"""Registers the derivatives of a native op for every mode of torch.

``torch.library`` gives reverse mode of any order, ``vmap``, ``torch.compile`` and
``torch.export``, but refuses ``torch.func`` transforms and silently drops forward-mode tangents.
``torch.autograd.Function`` supports both, but compiles less and costs more per call. So an op is
registered with ``torch.library``, and uses a Function only while a transform is active.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from circulant_attention.ops.library import NAMESPACE


def differentiable(name: str, rules: type[Any]) -> Callable[..., Any]:
    """Registers the derivatives of the native op ``name``.

    The derivatives use differentiable functions, so that derivatives of any order follow.

    Args:
        name: The op's name in this library's namespace.
        rules: A class with the functions ``fake(*inputs)``, which allocates the outputs;
            ``setup_context(ctx, inputs, output)``, which saves what the others need;
            ``backward(ctx, *grads)``, the cotangents of the inputs; ``jvp(ctx, *tangents)``, the
            tangents of the outputs; ``vmap(info, in_dims, *inputs)``, the op over one more dim.

    Returns:
        The function to call.
    """
    op = getattr(getattr(torch.ops, NAMESPACE), name)
    register(name, rules.fake, rules.vmap, rules.backward, rules.setup_context)
    members = {
        "forward": staticmethod(lambda *inputs: op(*inputs)),
        "setup_context": staticmethod(rules.setup_context),
        "backward": staticmethod(rules.backward),
        "jvp": staticmethod(rules.jvp),
        "vmap": staticmethod(rules.vmap),
    }
    transformed: Any = type(f"{name}_function", (torch.autograd.Function,), members)

    def call(*inputs: Any) -> Any:
        if transform_active() and not torch.compiler.is_compiling():
            return transformed.apply(*inputs)
        return op(*inputs)

    call.__name__ = call.__qualname__ = name
    return call


def register(
    name: str,
    fake: Callable[..., Any],
    vmap: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Registers the functions of a native op with torch; see :func:`differentiable`."""
    qualified = f"{NAMESPACE}::{name}"
    torch.library.register_fake(qualified, fake)
    torch.library.register_vmap(qualified, vmap)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context)


def transform_active() -> bool:
    """Whether a torch.func transform or a forward-mode level is active (private to torch)."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def batch_into_groups(info: Any, in_dim: int | None, x: Tensor) -> Tensor:
    """Joins the dim that ``vmap`` maps over to the group dim; repeats an unmapped ``x``."""
    if in_dim is None:
        x = x.expand(info.batch_size, *x.shape)
    else:
        x = x.movedim(in_dim, 0)
    return x.flatten(0, 1)


def groups_into_batch(info: Any, y: Tensor) -> Tensor:
    """Splits the dim that ``vmap`` maps over from the leading group dim."""
    return y.reshape(info.batch_size, y.shape[0] // info.batch_size, *y.shape[1:])


def add_tangents(*tangents: Tensor | None) -> Tensor | None:
    """The sum of the tangents that are not None."""
    present = [tangent for tangent in tangents if tangent is not None]
    return sum(present[1:], present[0]) if present else None
