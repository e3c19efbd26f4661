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
from circulant_attention.ops.biased_attention import composed_biased_attention
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
    bias: Tensor | None,
    key_bias: Tensor | None,
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
    grid = _key_grid(key_bias, q, cuts)

    def compute(box: Box, keys: Tensor, values: Tensor) -> None:
        queries = _part(q, box, cuts).contiguous()
        if bias is None and grid is None:
            own = _native.attention(queries, keys, values, window, kind, scale)
        else:
            terms = bias, _key_terms(grid, box, cuts)
            own = _native.biased_attention(queries, keys, values, *terms, window, kind, scale)
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
    bias: Tensor | None,
    key_bias: Tensor | None,
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, of k and v without halos, and of the biases; k and v come with theirs.

    ``dkeys`` and ``dvalues`` are the gradients of k and v from elsewhere. They are sent only if
    ``of_keys``.
    """
    cuts = _cuts(dims, sizes, numbers, groups)
    dq = q.new_empty(q.shape)
    dk = k.new_zeros(k.shape) if dkeys is None else dkeys.clone()
    dv = v.new_zeros(v.shape) if dvalues is None else dvalues.clone()
    grid = _key_grid(key_bias, q, cuts)
    dbias = lse.new_zeros(0 if bias is None else bias.shape)
    dgrid = lse.new_zeros(0 if grid is None else grid.shape)

    def compute(box: Box) -> tuple[Tensor, Tensor]:
        dy_part, q_part, y_part, lse_part = (_part(x, box, cuts) for x in (dy, q, y, lse))
        keys, values = (_part(x, box, cuts, keys=True) for x in (k, v))
        parts = [x.contiguous() for x in (dy_part, q_part, keys, values, y_part)]
        rows = lse_part.contiguous().flatten(1)
        if bias is None and grid is None:
            own = _native.attention_backward(*parts, rows, window, kind, scale)
        else:
            terms = bias, _key_terms(grid, box, cuts)
            inputs = *parts[:4], *terms, parts[4], rows, None
            own = _native.biased_attention_backward(*inputs, window, kind, scale)
            if bias is not None:
                dbias.add_(own[3])
            if grid is not None:
                total = _part(dgrid, box, cuts, keys=True)
                total.add_(own[4].reshape(total.shape))
        _part(dq, box, cuts).copy_(own[0])
        return own[1], own[2]

    for box in _strips(cuts):
        for total, own in zip((dk, dv), compute(box), strict=True):
            _part(total, box, cuts, keys=True).add_(own)
    if not of_keys:
        compute(_interior(cuts))
        return dq, q.new_empty(q.shape), y.new_empty(y.shape), dbias, _flat(dgrid)
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
    return dq, grads[0], grads[1], dbias, _flat(dgrid)


def _key_grid(key_bias: Tensor | None, q: Tensor, cuts: Sequence[Cut]) -> Tensor | None:
    """A bias ``(P, extended pixels)`` as ``(P, 1, *extended)``."""
    if key_bias is None:
        return None
    size = list(q.shape[2:])
    for cut in cuts:
        size[cut.dim - 2] = cut.plan.extended
    return key_bias.reshape(key_bias.shape[0], 1, *size)


def _key_terms(grid: Tensor | None, box: Box, cuts: Sequence[Cut]) -> Tensor | None:
    """The bias of the keys of a box."""
    return None if grid is None else _part(grid, box, cuts, keys=True).flatten(1).contiguous()


def _flat(grid: Tensor) -> Tensor:
    return grid.flatten(1) if grid.dim() > 1 else grid


def _new_lse(q: Tensor) -> Tensor:
    half = q.dtype in (torch.float16, torch.bfloat16)
    return q.new_empty(q.shape[0], 1, *q.shape[2:], dtype=torch.float32 if half else q.dtype)


_attention_op = torch.library.custom_op(
    f"{NAMESPACE}::attention_with_halos",
    _attention,
    mutates_args=(),
    schema=(
        f"(Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? key_bias, {_SETTINGS}) "
        "-> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
_backward_op = torch.library.custom_op(
    f"{NAMESPACE}::attention_with_halos_backward",
    _backward,
    mutates_args=(),
    schema=(
        "(Tensor dy, Tensor? dkeys, Tensor? dvalues, Tensor q, Tensor k, Tensor v, Tensor? bias, "
        f"Tensor? key_bias, Tensor y, Tensor lse, bool of_keys, {_SETTINGS}) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)


@_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, _: Any, __: Any, *settings: Any) -> tuple[Tensor, ...]:
    extended = []
    for x in (k, v):
        shape = list(x.shape)
        for cut in _cuts(*settings[3:]):
            shape[cut.dim] = cut.plan.extended
        extended.append(x.new_empty(shape))
    return v.new_empty(v.shape), _new_lse(q), *extended


@_backward_op.register_fake
def _(dy: Tensor, _: Any, __: Any, q: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    _, _, bias, key_bias, _, lse, *_ = rest
    terms = (lse.new_empty(0 if x is None else x.shape) for x in (bias, key_bias))
    return q.new_empty(q.shape), q.new_empty(q.shape), dy.new_empty(dy.shape), *terms


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, _, _, bias, key_bias, *ctx.settings = inputs
    y, lse, keys, values = output
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, y, lse, keys, values, bias, key_bias)


def _gradients(
    ctx: Any, dy: Tensor | None, _: Any, dkeys: Tensor | None, dvalues: Tensor | None
) -> Any:
    q, y, lse, keys, values, bias, key_bias = ctx.saved_tensors
    window, kind, scale, *cut_settings = ctx.settings
    dy = y.new_zeros(y.shape) if dy is None else dy
    needs_q, needs_k, needs_v, needs_bias, needs_key_bias = ctx.needs_input_grad[:5]
    of_keys = needs_k or needs_v
    needed = needs_q, of_keys, of_keys, needs_bias, needs_key_bias
    if not torch.is_grad_enabled():
        inputs = q, keys, values, bias, key_bias
        found = _backward_op(dy, dkeys, dvalues, *inputs, y, lse, of_keys, *ctx.settings)
        grads = [dx if needs else None for dx, needs in zip(found, needed, strict=True)]
        return *grads, *[None] * _COUNT
    # create_graph=True: the gradients need a graph of their own. Of views, since the graph of keys
    # and values leads through this node to q.
    q, keys, values = (x.view_as(x) for x in (q, keys, values))
    bias, key_bias = (x if x is None else x.view_as(x) for x in (bias, key_bias))
    if bias is None and key_bias is None:
        again = composed_attention(q, keys, values, window, kind, scale)
    else:
        inputs = q, keys, values, bias, key_bias
        again, _ = composed_biased_attention(*inputs, window, kind, scale)
    pairs = zip((q, keys, values, bias, key_bias), needed, strict=True)
    given = iter(
        torch.autograd.grad(again, [x for x, needs in pairs if needs], dy, create_graph=True)
    )
    again_grads: list[Any] = [next(given) if needs else None for needs in needed]
    if of_keys:
        both = zip(again_grads[1:3], (dkeys, dvalues), strict=True)
        sums: Sequence[Any] = [own if other is None else own + other for own, other in both]
        for cut in reversed(_cuts(*cut_settings)):
            sums = halos.gather(sums, cut.extension)
        again_grads[1:3] = sums
    return *again_grads, *[None] * _COUNT


_attention_op.register_autograd(_gradients, setup_context=_setup_context)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_bias: Tensor | None,
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
        bias: ``(heads, K)``, added to the scores by offset, or None; in the dtype of the sums.
        key_bias: ``(P, extended pixels)``, added by key, or None; in the dtype of the sums.
        window: The window of the shard, valid along the dims that are cut.
        kind: The similarity.
        scale: The factor of the similarities.
        extensions: The settings of :func:`halos.extend` for each dim that is cut.
    """
    settings = settings_of(extensions)
    terms = bias, key_bias
    y, _, keys, _ = _attention_op(q, k, v, *terms, window, int(kind), scale, *settings)
    return y, keys
