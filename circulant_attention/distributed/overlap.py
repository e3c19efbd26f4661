"""Attention of a shard whose interior is computed while the halos travel, forward and backward.

The queries of the interior see the pixels of their own shard only; the others are in strips at its
borders. Forward, the interior comes first, while the halos along the first cut dim are under way.
Backward, the strips come first: their gradients in the halos are on their way to the owners while
the interior is computed. The messages are those of extension and gathering, in the same order: so
some ranks may overlap while others do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circulant_attention.distributed import halos, messages
from circulant_attention.distributed.shards import Plan, make_plan
from circulant_attention.ops.attention import composed_attention
from circulant_attention.ops.library import NAMESPACE

_native = getattr(torch.ops, NAMESPACE)
_SETTINGS = "int[] window, int kind, float scale, int[] dims, SymInt[] sizes, SymInt[] numbers"
_SETTINGS += ", str[] groups"
_COUNT = 7  # of the settings

Box = dict[int, tuple[int, int]]
"""The first pixel and the number of pixels along each cut dim, counted in the shard."""


class Cut(NamedTuple):
    """One dim that is cut; its halos are whole."""

    dim: int
    plan: Plan
    group: str
    extension: tuple[Any, ...]
    """The settings of :func:`halos.extend`."""


def settings_of(extensions: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The settings of some extensions, as the ops take them."""
    return (
        [dim for dim, *_ in extensions],
        [size for _, sizes, *_ in extensions for size in sizes],
        [int(number) for _, sizes, *numbers, _ in extensions for number in (len(sizes), *numbers)],
        [group for *_, group in extensions],
    )


def _cuts(
    dims: Sequence[int], sizes: Sequence[int], numbers: Sequence[int], groups: Sequence[str]
) -> list[Cut]:
    """The inverse of :func:`settings_of`."""
    found, at = [], 0
    for i, (dim, group) in enumerate(zip(dims, groups, strict=True)):
        ranks, rank, before, after, circular = map(int, numbers[5 * i : 5 * i + 5])
        own = [int(size) for size in sizes[at : at + ranks]]
        at += ranks
        plan = make_plan(rank, tuple(own), before, after, bool(circular))
        extension = (dim, own, rank, before, after, bool(circular), group)
        found.append(Cut(dim, plan, group, extension))
    return found


def interior(extensions: Sequence[tuple[Any, ...]]) -> float:
    """The part of a shard's queries that see no halo."""
    part = 1.0
    for _, sizes, rank, before, after, *_ in extensions:
        part *= max(0, sizes[rank] - before - after) / max(1, sizes[rank])
    return part


def _interior(cuts: Sequence[Cut]) -> Box:
    return {c.dim: (c.plan.before, c.plan.size - c.plan.before - c.plan.after) for c in cuts}


def _strips(cuts: Sequence[Cut]) -> Iterator[Box]:
    """Boxes that fill the shard around its interior."""
    inner = _interior(cuts)
    for i, (dim, plan, *_) in enumerate(cuts):
        box = {c.dim: inner[c.dim] for c in cuts[:i]}
        box |= {c.dim: (0, c.plan.size) for c in cuts[i + 1 :]}
        if plan.before:
            yield {**box, dim: (0, plan.before)}
        if plan.after:
            yield {**box, dim: (plan.size - plan.after, plan.after)}


def _part(x: Tensor, box: Box, cuts: Sequence[Cut], *, keys: bool = False) -> Tensor:
    """A view of the queries of a box, or of the keys that they see in extended shards."""
    for dim, plan, *_ in cuts:
        first, length = box[dim]
        x = x.narrow(dim, first, length + (plan.before + plan.after if keys else 0))
    return x


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: list[int],
    kind: int,
    scale: float,
    dims: list[int],
    sizes: list[int],
    numbers: list[int],
    groups: list[str],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result, the log-sum-exp ``(G, 1, *local)``, and k and v with their halos."""
    cuts = _cuts(dims, sizes, numbers, groups)
    y = v.new_empty(v.shape)
    lse = _new_lse(q)

    def compute(box: Box, keys: Tensor, values: Tensor) -> None:
        queries = _part(q, box, cuts).contiguous()
        own = _native.attention(queries, keys, values, window, kind, scale)
        _part(y, box, cuts).copy_(own[0])
        part = _part(lse, box, cuts)
        part.copy_(own[1].reshape(part.shape))

    first, *others = cuts
    messages.join(first.group, q.device)
    pending = halos.start_extension((k, v), first.dim, first.plan, first.group)
    compute(_interior(cuts), k, v)
    k, v = halos.finish_extension(pending, (k, v), first.dim, first.plan)
    for cut in others:
        k, v = halos.extend((k, v), cut.extension)
    for box in _strips(cuts):
        seen = (_part(x, box, cuts, keys=True).contiguous() for x in (k, v))
        compute(box, *seen)
    return y, lse, k, v


def _backward(
    dy: Tensor,
    dkeys: Tensor | None,
    dvalues: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    lse: Tensor,
    of_keys: bool,
    window: list[int],
    kind: int,
    scale: float,
    dims: list[int],
    sizes: list[int],
    numbers: list[int],
    groups: list[str],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, and of k and v without halos; k and v come with theirs.

    ``dkeys`` and ``dvalues`` are the gradients of k and v from elsewhere. They are sent only if
    ``of_keys``.
    """
    cuts = _cuts(dims, sizes, numbers, groups)
    dq = q.new_empty(q.shape)
    dk = k.new_zeros(k.shape) if dkeys is None else dkeys.clone()
    dv = v.new_zeros(v.shape) if dvalues is None else dvalues.clone()

    def compute(box: Box) -> tuple[Tensor, Tensor]:
        dy_part, q_part, y_part, lse_part = (_part(x, box, cuts) for x in (dy, q, y, lse))
        keys, values = (_part(x, box, cuts, keys=True) for x in (k, v))
        parts = [x.contiguous() for x in (dy_part, q_part, keys, values, y_part)]
        rows = lse_part.contiguous().flatten(1)
        own = _native.attention_backward(*parts, rows, window, kind, scale)
        _part(dq, box, cuts).copy_(own[0])
        return own[1], own[2]

    for box in _strips(cuts):
        for total, own in zip((dk, dv), compute(box), strict=True):
            _part(total, box, cuts, keys=True).add_(own)
    if not of_keys:
        compute(_interior(cuts))
        return dq, q.new_empty(q.shape), y.new_empty(y.shape)
    *others, last = cuts
    messages.join(last.group, q.device)
    pending = halos.start_gathering((dk, dv), last.dim, last.plan, last.group)
    inner = compute(_interior(cuts))
    grads = halos.finish_gathering(pending, (dk, dv), last.dim, last.plan)
    for cut in reversed(others):
        grads = list(halos.gather(grads, cut.extension))
    # The interior sees the whole shard, and nothing else.
    for total, own in zip(grads, inner, strict=True):
        total.add_(own)
    return dq, grads[0], grads[1]


def _new_lse(q: Tensor) -> Tensor:
    half = q.dtype in (torch.float16, torch.bfloat16)
    return q.new_empty(q.shape[0], 1, *q.shape[2:], dtype=torch.float32 if half else q.dtype)


_attention_op = torch.library.custom_op(
    f"{NAMESPACE}::attention_with_halos",
    _attention,
    mutates_args=(),
    schema=f"(Tensor q, Tensor k, Tensor v, {_SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
_backward_op = torch.library.custom_op(
    f"{NAMESPACE}::attention_with_halos_backward",
    _backward,
    mutates_args=(),
    schema=(
        "(Tensor dy, Tensor? dkeys, Tensor? dvalues, Tensor q, Tensor k, Tensor v, Tensor y, "
        f"Tensor lse, bool of_keys, {_SETTINGS}) "
        "-> (Tensor, Tensor, Tensor)"
    ),
)


@_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    extended = []
    for x in (k, v):
        shape = list(x.shape)
        for cut in _cuts(*settings[3:]):
            shape[cut.dim] = cut.plan.extended
        extended.append(x.new_empty(shape))
    return v.new_empty(v.shape), _new_lse(q), *extended


@_backward_op.register_fake
def _(dy: Tensor, _: Any, __: Any, q: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return q.new_empty(q.shape), q.new_empty(q.shape), dy.new_empty(dy.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, _, _, *ctx.settings = inputs
    y, lse, keys, values = output
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, y, lse, keys, values)


def _gradients(
    ctx: Any, dy: Tensor | None, _: Any, dkeys: Tensor | None, dvalues: Tensor | None
) -> Any:
    q, y, lse, keys, values = ctx.saved_tensors
    window, kind, scale, *cut_settings = ctx.settings
    dy = y.new_zeros(y.shape) if dy is None else dy
    of_keys = any(ctx.needs_input_grad[1:3])
    if not torch.is_grad_enabled():
        elsewhere = dkeys, dvalues
        dq, dk, dv = _backward_op(dy, *elsewhere, q, keys, values, y, lse, of_keys, *ctx.settings)
        return dq, *((dk, dv) if of_keys else (None, None)), *[None] * _COUNT
    # create_graph=True: the gradients need a graph of their own. Of views, since the graph of keys
    # and values leads through this node to q.
    views = [x.view_as(x) for x in (q, keys, values)]
    again = composed_attention(views[0], views[1], views[2], window, kind, scale)
    needed = ctx.needs_input_grad[0], of_keys, of_keys
    wanted = [x for x, needs in zip(views, needed, strict=True) if needs]
    found = iter(torch.autograd.grad(again, wanted, dy, create_graph=True))
    dq = next(found) if needed[0] else None
    if not of_keys:
        return dq, None, None, *[None] * _COUNT
    grads: Sequence[Tensor] = [*found]
    pairs = zip(grads, (dkeys, dvalues), strict=True)
    grads = [own if other is None else own + other for own, other in pairs]
    for cut in reversed(_cuts(*cut_settings)):
        grads = halos.gather(grads, cut.extension)
    return dq, *grads, *[None] * _COUNT


_attention_op.register_autograd(_gradients, setup_context=_setup_context)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: list[int],
    kind: int,
    scale: float,
    extensions: Sequence[tuple[Any, ...]],
) -> tuple[Tensor, Tensor]:
    """The attention of a shard, and its keys with their halos.

    Args:
        q: Queries ``(G, C, *local)``, real.
        k: Keys of the same shape and dtype.
        v: Values ``(G, C_v, *local)`` of the same dtype.
        window: The window of the shard, valid along the dims that are cut.
        kind: The similarity.
        scale: The factor of the similarities.
        extensions: The settings of :func:`halos.extend` for each dim that is cut.
    """
    settings = settings_of(extensions)
    y, _, keys, _ = _attention_op(q, k, v, window, int(kind), scale, *settings)
    return y, keys
