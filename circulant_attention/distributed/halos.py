"""The exchange of halos along one dim and its adjoint, as ops: each is the other's derivative.

:func:`extend` adds to a shard the pixels beside it, :func:`gather` adds what is in the halos to the
owners' pixels. As ops and not as functions of autograd they are single nodes for a compiler, which
traces neither the plan nor the messages. Sums are in a fixed order: what is on the rank
itself, then by rank, then by position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from circulant_attention.distributed import messages
from circulant_attention.distributed.shards import Parts, Plan, make_plan
from circulant_attention.ops.library import NAMESPACE
from circulant_attention.ops.registration import transform_active

_SCHEMA = (
    "(Tensor[] xs, int dim, SymInt[] sizes, int rank, SymInt before, SymInt after, bool circular, "
    "str group) -> Tensor[]"
)
_SETTINGS = 7


def start_extension(xs: Sequence[Tensor], dim: int, plan: Plan, group: str) -> messages.Pending:
    """Sends what others lack of the shards ``xs``, in one message per rank."""
    outgoing = {
        rank: messages.flat([x.narrow(dim, p.source, p.length) for x in xs for p in parts])
        for rank, parts in plan.gives
    }
    return messages.start(outgoing, _counts(xs, dim, plan.takes), xs[0], group)


def finish_extension(
    pending: messages.Pending, xs: Sequence[Tensor], dim: int, plan: Plan
) -> list[Tensor]:
    """The extended shards."""
    received = _split(pending.wait(), xs, dim, plan.takes)
    results = []
    for i, x in enumerate(xs):
        pieces = {plan.before: x}
        for part in plan.own:
            pieces[part.position] = x.narrow(dim, part.source, part.length)
        for part, piece in received[i]:
            pieces[part.position] = piece
        results.append(torch.cat([pieces[position] for position in sorted(pieces)], dim))
    return results


def start_gathering(xs: Sequence[Tensor], dim: int, plan: Plan, group: str) -> messages.Pending:
    """Sends the halos of the extended shards ``xs`` to their owners."""
    outgoing = {
        rank: messages.flat([x.narrow(dim, p.position, p.length) for x in xs for p in parts])
        for rank, parts in plan.takes
    }
    return messages.start(outgoing, _counts(xs, dim, plan.gives), xs[0], group)


def finish_gathering(
    pending: messages.Pending, xs: Sequence[Tensor], dim: int, plan: Plan
) -> list[Tensor]:
    """The shards, to which the halos of others are added."""
    results = [
        x.narrow(dim, plan.before, plan.size).clone(memory_format=torch.contiguous_format)
        for x in xs
    ]
    for x, result in zip(xs, results, strict=True):
        for part in plan.own:
            halo = x.narrow(dim, part.position, part.length)
            result.narrow(dim, part.source, part.length).add_(halo)
    received = _split(pending.wait(), xs, dim, plan.gives)
    for result, halos in zip(results, received, strict=True):
        for part, halo in halos:
            result.narrow(dim, part.source, part.length).add_(halo)
    return results


def _counts(xs: Sequence[Tensor], dim: int, parts: tuple[tuple[int, Parts], ...]) -> dict[int, int]:
    """The elements of the message from each rank."""
    rest = sum(_rest(x, dim) for x in xs)
    return {rank: rest * sum(part.length for part in these) for rank, these in parts}


def _rest(x: Tensor, dim: int) -> int:
    """The elements of one pixel along ``dim``."""
    return torch.Size([*x.shape[:dim], *x.shape[dim + 1 :]]).numel()


def _split(
    received: dict[int, Tensor],
    xs: Sequence[Tensor],
    dim: int,
    parts: tuple[tuple[int, Parts], ...],
) -> list[list[tuple[Any, Tensor]]]:
    """For each of ``xs`` the parts that came and their tensors, by rank and position."""
    result: list[list[tuple[Any, Tensor]]] = [[] for _ in xs]
    for rank, these in parts:
        at = 0
        for i, x in enumerate(xs):
            for part in these:
                shape = [*x.shape[:dim], part.length, *x.shape[dim + 1 :]]
                count = torch.Size(shape).numel()
                result[i].append((part, received[rank].narrow(0, at, count).view(shape)))
                at += count
    return result


def _registered(
    name: str, start: Callable[..., Any], finish: Callable[..., Any], size: Callable[[Plan], int]
) -> Any:
    """The op of an exchange in two steps; a rank has ``size(plan)`` pixels of its result."""

    def exchange(
        xs: list[Tensor],
        dim: int,
        sizes: Sequence[int],
        rank: int,
        before: int,
        after: int,
        circular: bool,
        group: str,
    ) -> list[Tensor]:
        plan = make_plan(rank, tuple(sizes), before, after, circular)
        messages.join(group, xs[0].device)
        result: list[Tensor] = finish(start(xs, dim, plan, group), xs, dim, plan)
        return result

    op = torch.library.custom_op(f"{NAMESPACE}::{name}", exchange, mutates_args=(), schema=_SCHEMA)

    @op.register_fake
    def _(
        xs: list[Tensor], dim: int, sizes: Sequence[int], rank: int, *settings: Any
    ) -> list[Tensor]:
        before, after, circular, _ = settings
        pixels = size(make_plan(rank, tuple(map(int, sizes)), int(before), int(after), circular))
        return [x.new_empty([*x.shape[:dim], pixels, *x.shape[dim + 1 :]]) for x in xs]

    return op


_extend_op = _registered(
    "extend_halos", start_extension, finish_extension, lambda plan: plan.extended
)
_gather_op = _registered("gather_halos", start_gathering, finish_gathering, lambda plan: plan.size)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.settings = inputs[1:]


def _register_derivatives(op: Any, adjoint: Any) -> None:
    def backward(ctx: Any, grads: list[Tensor]) -> Any:
        return adjoint(grads, *ctx.settings), *[None] * _SETTINGS

    op.register_autograd(backward, setup_context=_setup_context)


_register_derivatives(_extend_op, _gather_op)
_register_derivatives(_gather_op, _extend_op)


def _function(op: Any, adjoint: Callable[..., tuple[Tensor, ...]]) -> Any:
    """The op for torch.func and forward mode, which torch.library does not know."""

    class Transformed(torch.autograd.Function):
        @staticmethod
        def forward(settings: tuple[Any, ...], *xs: Tensor) -> tuple[Tensor, ...]:
            return tuple(op(list(xs), *settings))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.settings = inputs[0]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return None, *adjoint(grads, ctx.settings)

        @staticmethod
        def jvp(ctx: Any, _: None, *tangents: Tensor) -> tuple[Tensor, ...]:
            return tuple(op(list(tangents), *ctx.settings))

    return Transformed


def extend(xs: Sequence[Tensor], settings: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Shards with their halos along one dim; all of them in one message per pair of ranks.

    Args:
        xs: Shards of one dtype, of ``sizes[rank]`` pixels along the dim.
        settings: The dim; the pixels of each rank; the rank; the pixels of the halos in front and
            behind; whether the dim is a circle; the name of the process group.
    """
    if transform_active() and not torch.compiler.is_compiling():
        result: tuple[Tensor, ...] = _transformed_extend.apply(settings, *xs)
        return result
    return tuple(_extend_op(list(xs), *settings))


def gather(xs: Sequence[Tensor], settings: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The adjoint of :func:`extend`: what is in the halos is added to the owners' pixels."""
    if transform_active() and not torch.compiler.is_compiling():
        result: tuple[Tensor, ...] = _transformed_gather.apply(settings, *xs)
        return result
    return tuple(_gather_op(list(xs), *settings))


_transformed_extend = _function(_extend_op, gather)
_transformed_gather = _function(_gather_op, extend)
