"""The public functions of the package for DTensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from circulant_attention import attention as plain
from circulant_attention import checks
from circulant_attention.distributed import local, terms
from circulant_attention.distributed.axial import axial_attention
from circulant_attention.distributed.batches import of_whole_samples
from circulant_attention.distributed.cosine import cos_attn
from circulant_attention.distributed.denoising import nonlocal_means
from circulant_attention.distributed.dropout import dropped
from circulant_attention.distributed.grid import Halos
from circulant_attention.distributed.matrix import DistributedCirculant
from circulant_attention.distributed.placements import check_placed
from circulant_attention.distributed.pointwise import pointwise
from circulant_attention.distributed.pooling import fused_attention
from circulant_attention.distributed.weights import ShardWeights
from circulant_attention.geometry import WindowLike, make_geometry
from circulant_attention.matrix import Circulant
from circulant_attention.matrix.application import join_heads, split_heads
from circulant_attention.matrix.score_terms import Options
from circulant_attention.ops import dispatch
from circulant_attention.ops.autocast import cast_for_autocast
from circulant_attention.similarity import AbstractSimilarity, DotSimilarity, check_similarity

_NO_OPTIONS = Options()


def check_matrix(a: Any) -> DistributedCirculant:
    """The argument, if it is a DistributedCirculant; else raises TypeError."""
    if not isinstance(a, DistributedCirculant):
        raise TypeError(
            f"expected A to be a DistributedCirculant, for DTensors, got {type(a).__name__}"
        )
    return a


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    W: WindowLike,
    simfun: AbstractSimilarity | None = None,
    nheads: int = 1,
    *,
    options: Options = _NO_OPTIONS,
    need_weights: bool = True,
) -> tuple[Tensor, Any]:
    """As the function of this name for tensors; y and A lie on the mesh as q, k and v do.

    Biases are whole on every rank; key masks are, too, or DTensors that lie as q does.
    """
    kind = check_similarity(DotSimilarity() if simfun is None else simfun).kind
    where = check_placed(q=q, k=k, v=v)
    checks.check_attention(q, k, v, nheads)
    halos = Halos(where.grid, make_geometry(W, q.shape[2:]))
    heads = where.heads(nheads)
    p = options.checked_dropout()
    scale, *added = terms.of_dtensors(
        options, where, halos, nheads, (q.shape[1] // nheads) ** -0.5, q.device
    )
    # Local tensors from here on.
    parts = [
        split_heads(where.local(name, x, x.shape[1] // where.parts), heads)
        for name, x in (("q", q), ("k", k), ("v", v))
    ]
    own_q, own_k, own_v = cast_for_autocast(*parts)
    batch_shape = q.shape[0], nheads
    if p > 0:
        keys = local.extended_keys(own_q, own_k, halos)
        entries = local.adjacency(own_q, keys, halos, kind, scale, *added)
        entries = dropped(entries, p, where, halos, nheads)
        y = local.apply(entries, own_v, halos, transposed=False)
        A = DistributedCirculant._from(entries, where, halos, batch_shape)
        return where.wrap(join_heads(y, heads), v.shape), A if need_weights else None
    y, keys = local.attention(own_q, own_k, own_v, halos, kind, scale, *added)
    wrapped = where.wrap(join_heads(y, heads), v.shape)
    if not need_weights:
        return wrapped, None
    # A compiler drops the weights if they are not used.
    weights = local.adjacency if torch.compiler.is_compiling() else ShardWeights
    source = weights(own_q, keys, halos, kind, scale, *added)
    return wrapped, DistributedCirculant._from(source, where, halos, batch_shape)


def _from_features(
    softmax: bool,
    simfun: AbstractSimilarity,
    x: Tensor,
    y: Tensor,
    W: WindowLike,
    nheads: int,
    options: Options = _NO_OPTIONS,
) -> DistributedCirculant:
    """The similarity of x and y, or its softmax."""
    kind = check_similarity(simfun).kind
    where = check_placed(x=x, y=y)
    checks.check_pair(("x", "y"), x, y)
    checks.check_heads("the channels of x", x.shape[1], nheads, "nheads")
    halos = Halos(where.grid, make_geometry(W, x.shape[2:]))
    heads = where.heads(nheads)
    parts = [
        split_heads(where.local(name, t, t.shape[1] // where.parts), heads)
        for name, t in (("x", x), ("y", y))
    ]
    own_x, own_y = cast_for_autocast(*parts)
    p = options.checked_dropout()
    scale, *added = terms.of_dtensors(options, where, halos, nheads, 1.0, x.device)
    if softmax:
        keys = local.extended_keys(own_x, own_y, halos)
        values = local.adjacency(own_x, keys, halos, kind, scale, *added)
        values = dropped(values, p, where, halos, nheads)
    else:
        values = local.similarity(own_x, own_y, halos, kind)
    return DistributedCirculant._from(values, where, halos, (x.shape[0], nheads))


def circulant_similarity(
    simfun: AbstractSimilarity, x: Tensor, y: Tensor, W: WindowLike
) -> DistributedCirculant:
    """As the function of this name for tensors."""
    return _from_features(False, simfun, x, y, W, 1)


def circulant_adjacency(
    simfun: AbstractSimilarity, x: Tensor, y: Tensor, W: WindowLike, **options: Any
) -> DistributedCirculant:
    """As the function of this name for tensors."""
    return _from_features(True, simfun, x, y, W, 1, Options(**options))


def circulant_mh_adjacency(
    simfun: AbstractSimilarity, x: Tensor, y: Tensor, W: WindowLike, nheads: int, **options: Any
) -> DistributedCirculant:
    """As the function of this name for tensors."""
    return _from_features(True, simfun, x, y, W, nheads, Options(**options))


def circulant_attention(*args: Any, **kwargs: Any) -> Any:
    """As the function of this name for tensors."""
    if "A" in kwargs or (args and isinstance(args[0], DistributedCirculant | Circulant)):
        arguments = checks.bind("circulant_attention", ("A", "x"), args, kwargs)
        return check_matrix(arguments["A"]).apply(arguments["x"])
    # Sorts the arguments, and calls attend.
    return _undecorated(plain.circulant_attention)(*args, **kwargs)


def circulant_mh_attention(*args: Any, **kwargs: Any) -> Any:
    """As the function of this name for tensors."""
    if "A" in kwargs or (args and isinstance(args[0], DistributedCirculant | Circulant)):
        return mh_apply(**checks.bind("circulant_mh_attention", ("A", "x"), args, kwargs))
    return _undecorated(plain.circulant_mh_attention)(*args, **kwargs)


def _undecorated(function: Any) -> Any:
    return function.__wrapped__


def mh_apply(A: DistributedCirculant, x: Tensor) -> Tensor:
    """As the function of this name for tensors."""
    return check_matrix(A).mh_apply(x)


def circulant_transposed_attention(A: DistributedCirculant, x: Tensor) -> Tensor:
    """As the function of this name for tensors."""
    return check_matrix(A).mT.apply(x)


def circulant_mh_transposed_attention(A: DistributedCirculant, x: Tensor) -> Tensor:
    """As the function of this name for tensors."""
    return check_matrix(A).mT.mh_apply(x)


def softmax(A: DistributedCirculant, dim: int = -1) -> DistributedCirculant:
    """As the function of this name for tensors."""
    return check_matrix(A).softmax(dim)


for _function in (
    attend,
    circulant_adjacency,
    circulant_attention,
    circulant_mh_adjacency,
    circulant_mh_attention,
    circulant_mh_transposed_attention,
    circulant_similarity,
    circulant_transposed_attention,
    mh_apply,
    nonlocal_means,
    pointwise,
    softmax,
):
    dispatch.IMPLEMENTATIONS[_function.__name__] = _function

dispatch.IMPLEMENTATIONS |= {
    "AxialAttention": axial_attention,
    "AxialImageTransformer": of_whole_samples("AxialImageTransformer"),
    "CosAttn": cos_attn,
    "FusedAttention": fused_attention,
}
