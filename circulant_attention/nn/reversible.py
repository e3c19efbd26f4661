"""Residual pairs whose inputs the backward pass recomputes from their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx
from torch.func import functional_call, vjp
from torch.utils.checkpoint import checkpoint

from circulant_attention.ops.autocast import autocast_dtype
from circulant_attention.ops.registration import transform_active


class _Branch(nn.Module):
    """Holds one residual branch under the name ``net``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.net(x, mask)
        return out


class ReversibleBlock(nn.Module):
    """One pair of residual branches over two streams: y1 = x1 + f(x2), y2 = x2 + g(y1).

    The inputs follow from the outputs: x2 = y2 - g(y1) and x1 = y1 - f(x2).
    """

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f = _Branch(f)
        self.g = _Branch(g)

    def forward(self, x1: Tensor, x2: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map both streams, recording every activation as usual."""
        y1 = x1 + self.f(x2, mask)
        return y1, x2 + self.g(y1, mask)


def _generator(device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.default_generator
    generator: torch.Generator = torch.get_device_module(device).default_generators[device.index]
    return generator


@contextmanager
def _replayed(generator: torch.Generator, state: Tensor) -> Iterator[None]:
    """Draw the random numbers that followed ``state``, then go on where the generator was."""
    now = generator.get_state()
    generator.set_state(state)
    try:
        yield
    finally:
        generator.set_state(now)


class _Plan:
    """Shared by the two passes, beside tensors: branches, autocast state, random states."""

    def __init__(self, branches: list[_Branch], device: torch.device, draws: bool) -> None:
        self.branches = branches
        self.names = [[name for name, _ in branch.named_parameters()] for branch in branches]
        self.device_type = device.type
        self.generator = _generator(device) if draws else None
        self.states: list[Tensor] = []
        self.autocast_dtype = autocast_dtype(device)

    def amp(self) -> AbstractContextManager[object]:
        """The autocast state of the forward pass, without its cache.

        The cache would give a weight that was cast without a graph to a computation that
        records one.
        """
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.autocast_dtype, cache_enabled=False)

    def replay(self, step: int) -> AbstractContextManager[object]:
        """The random numbers of the forward pass."""
        if self.generator is None:
            return nullcontext()
        return _replayed(self.generator, self.states[step])

    def split(self, parameters: Iterable[Tensor]) -> list[dict[str, Tensor]]:
        """The flat parameters as one dict per branch."""
        flat = iter(parameters)
        return [{name: next(flat) for name in names} for names in self.names]


class _Context(FunctionCtx):
    plan: _Plan
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _RecomputedSequence(torch.autograd.Function):
    """Saves only the two output streams and walks back from them, branch by branch.

    One step with branch f maps the streams (a, b) to (b, a + f(b)). The parameters are inputs, so
    that their gradients are returned, not accumulated.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, mask: Tensor | None, plan: _Plan, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        a, b = x, x
        with plan.amp():
            for branch, weights in zip(plan.branches, plan.split(parameters), strict=True):
                if plan.generator is not None:
                    plan.states.append(plan.generator.get_state())
                if torch.compiler.is_compiling():
                    # Dynamo counts functional_call as a side effect, and then cannot trace
                    # symbolic sizes here. The weights are the branch's own.
                    a, b = b, a + branch(b, mask)
                else:
                    a, b = b, a + functional_call(branch, weights, (b, mask))
        return a, b

    @staticmethod
    def setup_context(
        ctx: _Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]
    ) -> None:
        _, mask, ctx.plan, *parameters = inputs
        ctx.save_for_backward(mask, *output, *parameters)

    @staticmethod
    def backward(ctx: _Context, da: Tensor, db: Tensor) -> tuple[Tensor | None, ...]:
        plan = ctx.plan
        mask, a, b, *parameters = ctx.saved_tensors
        wanted = iter(ctx.needs_input_grad[3:])
        chosen = [[name for name in names if next(wanted)] for names in plan.names]
        gradients: list[Tensor | None] = []
        for step, weights in reversed(list(enumerate(plan.split(parameters)))):
            trained = {name: weights.pop(name) for name in chosen[step]}

            def branch(
                trained: dict[str, Tensor],
                x: Tensor,
                module: _Branch = plan.branches[step],
                fixed: dict[str, Tensor] = weights,
            ) -> Tensor:
                out: Tensor = functional_call(module, {**fixed, **trained}, (x, mask))
                return out

            with plan.amp(), plan.replay(step):
                value, pull_back = _vjp(branch, trained, a)
            dtrained, dx = pull_back(db.to(value.dtype))
            a, b = b - value, a
            da, db = db, da + dx
            gradients.extend(dtrained.get(name) for name in reversed(plan.names[step]))
            del value, pull_back
        return da + db, None, None, *reversed(gradients)


def _vjp(
    branch: Callable[[dict[str, Tensor], Tensor], Tensor], weights: dict[str, Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]]:
    """The value of a branch, and the map from its cotangent to those of the weights and of x."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or transform_active():
        # Differentiable again, traceable and usable under torch.func.
        value, pull_back, *_ = vjp(branch, weights, x)
        return value, pull_back
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        value = branch(leaves, leaf)

    def gradients(cotangent: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        inputs = [*leaves.values(), leaf]
        *found, dx = torch.autograd.grad(value, inputs, cotangent, materialize_grads=True)
        return dict(zip(leaves, found, strict=True)), dx

    return value.detach(), gradients


class ReversibleSequence(nn.Module):
    """Reversible blocks on two copies of the input; returns the mean of the two streams.

    Training keeps two activations for any depth, and evaluates every branch once more. With
    dropout it also keeps the state of the random number generator for each branch. Forward mode
    keeps nothing, unless a graph is recorded too: then every activation.

    Args:
        blocks: Pairs of modules f, g, each called as ``f(x, mask)``.
        dropout: The dropout probability inside the blocks, to know whether to replay it.
    """

    def __init__(self, blocks: Iterable[tuple[nn.Module, nn.Module]], dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ReversibleBlock(f, g) for f, g in blocks)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``(B, C, H, W)``."""
        branches = [m for block in self.blocks for m in block.children() if isinstance(m, _Branch)]
        draws = self.training and self.dropout > 0.0
        if forward_ad._current_level >= 0:  # within a forward-mode level; a private name
            a, b = x, x
            for block in self.blocks:
                a, b = block(a, b, mask)
        elif draws and torch.compiler.is_compiling():
            # A graph cannot set the generator's state. A checkpoint keeps each branch's input
            # instead.
            a, b = x, x
            for branch in branches:
                a, b = b, a + checkpoint(branch, b, mask, use_reentrant=False)
        else:
            parameters = [p for branch in branches for p in branch.parameters()]
            plan = _Plan(branches, x.device, draws)
            a, b = _RecomputedSequence.apply(  # type: ignore[no-untyped-call]
                x, mask, plan, *parameters
            )
        return (a + b) / 2
