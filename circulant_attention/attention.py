"""Circulant attention, its application to features, and both with several heads."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from circulant_attention import checks
from circulant_attention.geometry import WindowLike, make_geometry
from circulant_attention.matrix.application import join_heads, mh_apply, split_heads
from circulant_attention.matrix.circulant import Circulant, check_circulant
from circulant_attention.matrix.lazy import AttentionValues, Scores, attention_weights
from circulant_attention.matrix.score_terms import Options, dropped
from circulant_attention.ops import dtypes
from circulant_attention.ops.autocast import cast_for_autocast
from circulant_attention.ops.dispatch import takes_distributed
from circulant_attention.similarity import (
    AbstractSimilarity,
    DotSimilarity,
    check_similarity,
    mh_adjacency,
)

_DOT = DotSimilarity()
_NO_OPTIONS = Options()


@overload
def circulant_attention(
    simfun: AbstractSimilarity,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    W: WindowLike,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0,
) -> tuple[Tensor, Circulant]: ...
@overload
def circulant_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    W: WindowLike,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0,
) -> tuple[Tensor, Circulant]: ...
@overload
def circulant_attention(A: Circulant, x: Tensor) -> Tensor: ...
@takes_distributed
def circulant_attention(
    *args: Any,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0,
    **kwargs: Any,
) -> tuple[Tensor, Circulant] | Tensor:
    r"""Attention of every pixel to a window around it that wraps, or a ready matrix applied.

    ``y, A = circulant_attention(simfun, q, k, v, W)`` and, with the dot product,
    ``y, A = circulant_attention(q, k, v, W)``:

    .. math:: A = \operatorname{softmax}(\operatorname{simfun}(q / C^{1/4}, k / C^{1/4})),
        \quad y_i = \textstyle\sum_j A_{ij} v_j

    With the options the scores are
    :math:`\text{scale} \cdot \operatorname{simfun}(q_i, k_j) + \text{bias}_{j - i} +
    \text{mask}_j`.

    ``y = circulant_attention(A, x)``, also written ``A @ x``: :math:`y_i = \sum_j A_{ij} x_j`.

    Args:
        *args: By position or name, in one of the three forms:

            - ``simfun``: :class:`DotSimilarity` (when left out) or :class:`DistanceSimilarity`.
            - ``q``: Queries ``(B, C, *spatial)``, real or complex.
            - ``k``: Keys of the same shape.
            - ``v``: Values ``(B, C_v, *spatial)``.
            - ``W``: The window: an odd int, or one odd int per spatial dim, or a :class:`Window`.
            - ``A``: A :class:`Circulant` ``(B, heads, N, N)``.
            - ``x``: ``(B * heads, C, *spatial)``.
        scale: The factor of the similarities; :math:`C^{-1/2}` when left out.
        bias: A number for each offset of the window, of shape ``(1, *window)``: the entry in the
            middle of an odd window is that of the pixel itself. Real, of any dtype.
        key_mask: Which keys take part: a bool tensor ``(B, *spatial)``, True for those that do; or
            a real one of numbers that are added to the scores of each key. B may be 1. A row
            without any key gives zeros.
        dropout_p: The probability with which each entry of A becomes zero; the others are divided
            by 1 - p. Drawn from torch's global generator. Then A is computed at once.
        **kwargs: The positional arguments by name.

    Returns:
        A pair ``(y, A)``, y of the shape of v, and A the adjacency, a :class:`Circulant`
        ``(B, 1, N, N)``; or y alone, of the shape of x.

    Raises:
        TypeError: If an argument has the wrong type or dtype, or the form is none of the three.
        ValueError: If shapes or devices do not match, the window does not fit, or a number is out
            of range.

    Note:
        y is computed without A, unless entries are dropped. The entries of A are computed when they
        are first used, from q, k, a bias and a mask of numbers; if one of these was changed in
        place before that, this raises ``RuntimeError``.
        Differentiable to any order, in forward and reverse mode; the gradients are deterministic
        and never of size N times N. Under ``torch.autocast`` q, k, v and x are cast as for a
        matrix product.

    Example:
        >>> q, k, v = torch.randn(3, 2, 16, 12, 10)
        >>> y, A = circulant_attention(DistanceSimilarity(), q, k, v, 5)
        >>> y.shape, A.shape
        (torch.Size([2, 16, 12, 10]), torch.Size([2, 1, 120, 120]))
        >>> torch.allclose(circulant_attention(A, v), y, atol=1e-6)
        True

    References:
        ``circulant_attention`` and ``⊗`` in CirculantAttention.jl, ``src/attention.jl``.
    """
    options = Options(scale, bias, key_mask, dropout_p)
    if "A" in kwargs or (args and isinstance(args[0], Circulant)):
        given = {**kwargs, **_given(options)}
        arguments = checks.bind("circulant_attention", ("A", "x"), args, given)
        return check_circulant("A", arguments["A"]).apply(arguments["x"])
    names = ("q", "k", "v", "W")
    return attend(**_bind_with_simfun("circulant_attention", names, args, kwargs), options=options)


@overload
def circulant_mh_attention(
    simfun: AbstractSimilarity,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    W: WindowLike,
    nheads: int,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0,
) -> tuple[Tensor, Circulant]: ...
@overload
def circulant_mh_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    W: WindowLike,
    nheads: int,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0,
) -> tuple[Tensor, Circulant]: ...
@overload
def circulant_mh_attention(A: Circulant, x: Tensor) -> Tensor: ...
@takes_distributed
def circulant_mh_attention(
    *args: Any,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0,
    **kwargs: Any,
) -> tuple[Tensor, Circulant] | Tensor:
    r"""Circulant attention with several heads, or a ready matrix applied head by head.

    ``y, A = circulant_mh_attention(simfun, q, k, v, W, nheads)``, or without ``simfun`` for the
    dot product: the channels are split into ``nheads`` contiguous groups of C / nheads each;
    every group attends by itself, scaled by its own channel count; results are concatenated.

    ``y = circulant_mh_attention(A, x)``, also ``mh(A, x)`` and ``A @ mh @ x``: head h of A acts on
    channel group h of x.

    Args:
        *args: By position or name, in one of the three forms:

            - ``simfun``, ``q``, ``k``, ``v``, ``W``: As for :func:`circulant_attention`.
            - ``nheads``: The number of heads; divides C and C_v.
            - ``A``: A :class:`Circulant` ``(B, heads, N, N)``; ``x``: ``(B, C, *spatial)``, with C
              divisible by the heads of A.
        scale: The factor of the similarities; :math:`(C / \text{nheads})^{-1/2}` when left out.
        bias: A number for each head and offset, ``(nheads, *window)``; nheads may be 1.
        key_mask: As for :func:`circulant_attention`; for each head ``(B, nheads, *spatial)``, where
            each of the first two may be 1.
        dropout_p: As for :func:`circulant_attention`.
        **kwargs: The positional arguments by name.

    Returns:
        A pair ``(y, A)``, y of the shape of v, and A the adjacency, a :class:`Circulant`
        ``(B, nheads, N, N)``; or y alone, of the shape of x.

    Raises:
        TypeError: If an argument has the wrong type or dtype, or the form is none of the three.
        ValueError: If shapes, heads or devices do not match, the window does not fit, or a number
            is out of range.

    Example:
        >>> q, k, v = torch.randn(3, 2, 16, 12, 10)
        >>> y, A = circulant_mh_attention(q, k, v, 5, 4, bias=torch.randn(4, 5, 5))
        >>> y.shape, A.shape
        (torch.Size([2, 16, 12, 10]), torch.Size([2, 4, 120, 120]))
        >>> torch.allclose(A @ mh @ v, y, atol=1e-6)
        True

    References:
        ``circulant_mh_attention`` and ``⨷`` in CirculantAttention.jl, ``src/attention.jl``, whose
        first form ignores ``simfun``.
    """
    options = Options(scale, bias, key_mask, dropout_p)
    if "A" in kwargs or (args and isinstance(args[0], Circulant)):
        given = {**kwargs, **_given(options)}
        return mh_apply(**checks.bind("circulant_mh_attention", ("A", "x"), args, given))
    names = ("q", "k", "v", "W", "nheads")
    return attend(
        **_bind_with_simfun("circulant_mh_attention", names, args, kwargs), options=options
    )


def _given(options: Options) -> dict[str, Any]:
    """The options that are given: a ready matrix takes none."""
    scale, bias, key_mask, dropout_p = options
    pairs = {"scale": scale, "bias": bias, "key_mask": key_mask, "dropout_p": dropout_p or None}
    return {name: value for name, value in pairs.items() if value is not None}


def _bind_with_simfun(
    function: str, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments by name; ``simfun``, in front, is optional.

    It is given if the first argument is a similarity, or if there is one argument too many: then
    the error names ``simfun``, not the arguments after it.
    """
    if "simfun" in kwargs:
        return checks.bind(function, (*names, "simfun"), args, kwargs)
    first = len(args) > 0 and isinstance(args[0], AbstractSimilarity)
    if first or len(args) + len(kwargs) > len(names):
        names = ("simfun", *names)
    return checks.bind(function, names, args, kwargs)


@takes_distributed
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    W: WindowLike,
    simfun: AbstractSimilarity = _DOT,
    nheads: int = 1,
    *,
    options: Options = _NO_OPTIONS,
    need_weights: bool = True,
) -> tuple[Tensor, Any]:
    """The pair (y, A) of :func:`circulant_mh_attention`; (y, None) without ``need_weights``."""
    kind = check_similarity(simfun).kind
    checks.check_attention(q, k, v, nheads)
    geometry = make_geometry(W, q.shape[2:])
    batch_shape = (q.shape[0], nheads)
    default = (q.shape[1] // nheads) ** -0.5
    scores = Scores(geometry, kind, options.checked_scale(default), batch_shape)
    terms = options.checked_terms(geometry, batch_shape, q.device)
    p = options.checked_dropout()
    q, k, v = cast_for_autocast(q, k, v)
    q, k, v = split_heads(q, nheads), split_heads(k, nheads), split_heads(v, nheads)
    if p > 0:
        weights = dropped(attention_weights(q, k, scores, terms), p)
        A = Circulant._from(weights, geometry)
        return join_heads(A.apply(v), nheads), A if need_weights else None
    y = dtypes.attention(q, k, v, geometry.op_window, kind, scores.scale, *terms)
    y = join_heads(y, nheads)
    if not need_weights:
        return y, None
    # A compiler drops the weights if they are not used.
    weights_of = attention_weights if torch.compiler.is_compiling() else AttentionValues
    return y, Circulant._from(weights_of(q, k, scores, terms), geometry)


@takes_distributed
def circulant_mh_adjacency(
    simfun: AbstractSimilarity,
    x: Tensor,
    y: Tensor,
    W: WindowLike,
    nheads: int,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0,
) -> Circulant:
    """The adjacency of every channel group by itself, with no scaling of x and y.

    Args:
        simfun: :class:`DotSimilarity` or :class:`DistanceSimilarity`.
        x: Queries ``(B, C, *spatial)``, real or complex.
        y: Keys of the same shape.
        W: The window: an odd int, or one odd int per spatial dim, not larger than the grid; or a
            :class:`Window`.
        nheads: The number of contiguous channel groups; divides C.
        scale: The factor of the similarities; 1 when left out.
        bias: A number for each head and offset, of shape ``(nheads, *window)``; nheads may be 1.
        key_mask: As for :func:`circulant_mh_attention`, of shape ``(B, *spatial)`` or
            ``(B, nheads, *spatial)``.
        dropout_p: As for :func:`circulant_attention`.

    Returns:
        A :class:`Circulant` of shape ``(B, nheads, N, N)`` whose rows sum to one. A row without any
        key holds zeros.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes, heads or devices do not match, the window does not fit, or a number
            is out of range.

    Example:
        >>> x = torch.randn(2, 8, 6, 6)
        >>> circulant_mh_adjacency(DotSimilarity(), x, x, 3, 4).shape
        torch.Size([2, 4, 36, 36])

    References:
        ``circulant_mh_adjacency`` in CirculantAttention.jl, ``src/attention.jl``.
    """
    options = Options(scale, bias, key_mask, dropout_p)
    return mh_adjacency(simfun, x, y, W, nheads, options)
