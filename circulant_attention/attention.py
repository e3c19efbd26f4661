"""Circulant attention, its application to features, and both with several heads."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from circulant_attention import checks
from circulant_attention.geometry import Window, make_geometry
from circulant_attention.matrix.circulant import Circulant, check_circulant
from circulant_attention.matrix.lazy import AttentionValues, attention_weights
from circulant_attention.ops import dtypes
from circulant_attention.ops.autocast import cast_for_autocast
from circulant_attention.similarity import (
    AbstractSimilarity,
    DotSimilarity,
    check_similarity,
    circulant_adjacency,
)

_DOT = DotSimilarity()


@overload
def circulant_attention(
    simfun: AbstractSimilarity, q: Tensor, k: Tensor, v: Tensor, W: Window
) -> tuple[Tensor, Circulant]: ...
@overload
def circulant_attention(q: Tensor, k: Tensor, v: Tensor, W: Window) -> tuple[Tensor, Circulant]: ...
@overload
def circulant_attention(A: Circulant, x: Tensor) -> Tensor: ...
def circulant_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Circulant] | Tensor:
    r"""Attention of every pixel to a window around it that wraps, or a ready matrix applied.

    ``y, A = circulant_attention(simfun, q, k, v, W)`` and, with the dot product,
    ``y, A = circulant_attention(q, k, v, W)``:

    .. math:: A = \operatorname{softmax}(\operatorname{simfun}(q / C^{1/4}, k / C^{1/4})),
        \quad y_i = \textstyle\sum_j A_{ij} v_j

    ``y = circulant_attention(A, x)``, also written ``A @ x``: :math:`y_i = \sum_j A_{ij} x_j`.

    Args:
        *args: By position or name, in one of the three forms:

            - ``simfun``: :class:`DotSimilarity` (when left out) or :class:`DistanceSimilarity`.
            - ``q``: Queries ``(B, C, *spatial)``, real or complex.
            - ``k``: Keys of the same shape.
            - ``v``: Values ``(B, C_v, *spatial)``.
            - ``W``: The window: an odd int, or one odd int per spatial dim.
            - ``A``: A :class:`Circulant` ``(B, heads, N, N)``.
            - ``x``: ``(B * heads, C, *spatial)``.
        **kwargs: The same by name.

    Returns:
        A pair ``(y, A)``, y of the shape of v, and A the adjacency, a :class:`Circulant`
        ``(B, 1, N, N)``; or y alone, of the shape of x.

    Raises:
        TypeError: If an argument has the wrong type or dtype, or the form is none of the three.
        ValueError: If shapes or devices do not match, or the window does not fit.

    Note:
        y is computed without A. The entries of A are computed from q and k when they are first
        used; if q or k was changed in place before that, this raises ``RuntimeError``.
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
    if "A" in kwargs or (args and isinstance(args[0], Circulant)):
        arguments = checks.bind("circulant_attention", ("A", "x"), args, kwargs)
        return check_circulant("A", arguments["A"]).apply(arguments["x"])
    names = ("q", "k", "v", "W")
    return _attend(**_bind_with_simfun("circulant_attention", names, args, kwargs))


@overload
def circulant_mh_attention(
    simfun: AbstractSimilarity, q: Tensor, k: Tensor, v: Tensor, W: Window, nheads: int
) -> tuple[Tensor, Circulant]: ...
@overload
def circulant_mh_attention(
    q: Tensor, k: Tensor, v: Tensor, W: Window, nheads: int
) -> tuple[Tensor, Circulant]: ...
@overload
def circulant_mh_attention(A: Circulant, x: Tensor) -> Tensor: ...
def circulant_mh_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Circulant] | Tensor:
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
        **kwargs: The same by name.

    Returns:
        A pair ``(y, A)``, y of the shape of v, and A the adjacency, a :class:`Circulant`
        ``(B, nheads, N, N)``; or y alone, of the shape of x.

    Raises:
        TypeError: If an argument has the wrong type or dtype, or the form is none of the three.
        ValueError: If shapes, heads or devices do not match, or the window does not fit.

    Example:
        >>> q, k, v = torch.randn(3, 2, 16, 12, 10)
        >>> y, A = circulant_mh_attention(q, k, v, 5, 4)
        >>> y.shape, A.shape
        (torch.Size([2, 16, 12, 10]), torch.Size([2, 4, 120, 120]))
        >>> torch.allclose(A @ mh @ v, y, atol=1e-6)
        True

    References:
        ``circulant_mh_attention`` and ``⨷`` in CirculantAttention.jl, ``src/attention.jl``, whose
        first form ignores ``simfun``.
    """
    if "A" in kwargs or (args and isinstance(args[0], Circulant)):
        return _mh_apply(**checks.bind("circulant_mh_attention", ("A", "x"), args, kwargs))
    names = ("q", "k", "v", "W", "nheads")
    return _attend(**_bind_with_simfun("circulant_mh_attention", names, args, kwargs))


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


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, heads * C, *spatial)`` to ``(B * heads, C, *spatial)``, contiguous channel groups."""
    return x.reshape(x.shape[0] * heads, x.shape[1] // heads, *x.shape[2:])


def join_heads(x: Tensor, heads: int) -> Tensor:
    """``(B * heads, C, *spatial)`` to ``(B, heads * C, *spatial)``."""
    return x.reshape(x.shape[0] // heads, x.shape[1] * heads, *x.shape[2:])


def _attend(
    q: Tensor, k: Tensor, v: Tensor, W: Window, simfun: AbstractSimilarity = _DOT, nheads: int = 1
) -> tuple[Tensor, Circulant]:
    kind = check_similarity(simfun).kind
    checks.check_pair(("q", "k"), q, k)
    checks.check_features("v", v)
    checks.check_matches("v", v, "q", q, channels=False)
    checks.check_heads("the channels of q", q.shape[1], nheads, "nheads")
    checks.check_heads("the channels of v", v.shape[1], nheads, "nheads")
    geometry = make_geometry(W, q.shape[2:])
    batch_shape = (q.shape[0], nheads)
    q, k, v = cast_for_autocast(q, k, v)
    q, k, v = split_heads(q, nheads), split_heads(k, nheads), split_heads(v, nheads)
    y = dtypes.attention(q, k, v, geometry.window, kind, q.shape[1] ** -0.5)
    # A compiler drops the weights if they are not used.
    weights = attention_weights if torch.compiler.is_compiling() else AttentionValues
    source = weights(q, k, geometry, kind, batch_shape)
    return join_heads(y, nheads), Circulant._from(source, geometry)


def _mh_apply(A: Circulant, x: Tensor) -> Tensor:
    checks.check_features("x", x)
    heads = check_circulant("A", A).shape[1]
    checks.check_heads("the channels of x", x.shape[1], heads, "A.shape[1]")
    if x.shape[0] != A.shape[0]:
        raise ValueError(f"expected x with the batch size of A, {A.shape[0]}, got {x.shape[0]}")
    return join_heads(A.apply(split_heads(x, heads)), heads)


def circulant_attention_(y: Tensor, A: Circulant, x: Tensor) -> Tensor:
    """Writes ``A @ x`` into ``y``.

    Args:
        y: The tensor that is written; of the shape of x.
        A: A :class:`Circulant` ``(B, heads, N, N)``.
        x: ``(B * heads, C, *spatial)``.

    Returns:
        ``y``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not match.

    Example:
        >>> x = torch.randn(1, 4, 6, 6)
        >>> A = circulant_adjacency(DotSimilarity(), x, x, 3)
        >>> y = circulant_attention_(torch.empty_like(x), A, x)
        >>> torch.equal(y, A @ x)
        True

    References:
        ``circulant_attention!`` in CirculantAttention.jl, ``src/attention.jl``.
    """
    return _write(y, A, x, transposed=False)


def circulant_transposed_attention(A: Circulant, x: Tensor) -> Tensor:
    r"""The transposed matrix applied: :math:`y_j = \sum_i A_{ij} x_i`; also ``A.mT @ x``.

    Args:
        A: A :class:`Circulant` ``(B, heads, N, N)``.
        x: ``(B * heads, C, *spatial)``.

    Returns:
        A tensor of the shape of ``x``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not match.

    Example:
        >>> x = torch.randn(1, 4, 6, 6)
        >>> A = circulant_adjacency(DotSimilarity(), x, x, 3)
        >>> torch.equal(circulant_transposed_attention(A, x), A.mT @ x)
        True

    References:
        ``circulant_transposed_attention`` in CirculantAttention.jl, ``src/attention.jl``.
    """
    return check_circulant("A", A).mT.apply(x)


def circulant_transposed_attention_(y: Tensor, A: Circulant, x: Tensor) -> Tensor:
    """Writes ``A.mT @ x`` into ``y``.

    Args:
        y: The tensor that is written; of the shape of x.
        A: A :class:`Circulant` ``(B, heads, N, N)``.
        x: ``(B * heads, C, *spatial)``.

    Returns:
        ``y``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not match.

    Example:
        >>> x = torch.randn(1, 4, 6, 6)
        >>> A = circulant_adjacency(DotSimilarity(), x, x, 3)
        >>> y = circulant_transposed_attention_(torch.empty_like(x), A, x)
        >>> torch.equal(y, A.mT @ x)
        True

    References:
        ``circulant_transposed_attention!`` in CirculantAttention.jl, ``src/attention.jl``.
    """
    return _write(y, A, x, transposed=True)


def _write(y: Tensor, A: Circulant, x: Tensor, *, transposed: bool) -> Tensor:
    for name, features in (("y", y), ("x", x)):
        checks.check_features(name, features)
    check_circulant("A", A)
    checks.check_matches("y", y, "x", x)
    if (x.is_complex() or A.is_complex()) and not y.is_complex():
        raise TypeError(f"expected y of a complex dtype to hold the result, got {y.dtype}")
    return y.copy_((A.mT if transposed else A).apply(x))


def circulant_mh_transposed_attention(A: Circulant, x: Tensor) -> Tensor:
    r"""The transposed matrix applied head by head; also ``mh(A.mT, x)``.

    Head h gives :math:`y_j = \sum_i A^h_{ij} x_i` on channel group h of x.

    Args:
        A: A :class:`Circulant` ``(B, heads, N, N)``.
        x: ``(B, C, *spatial)`` with C divisible by the heads of A.

    Returns:
        A tensor of the shape of ``x``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes, heads or devices do not match.

    Example:
        >>> x = torch.randn(1, 4, 6, 6)
        >>> A = circulant_mh_adjacency(DotSimilarity(), x, x, 3, 2)
        >>> torch.equal(circulant_mh_transposed_attention(A, x), mh(A.mT, x))
        True

    References:
        ``circulant_mh_transposed_attention`` in CirculantAttention.jl, ``src/attention.jl``.
    """
    return _mh_apply(check_circulant("A", A).mT, x)


def circulant_mh_adjacency(
    simfun: AbstractSimilarity, x: Tensor, y: Tensor, W: Window, nheads: int
) -> Circulant:
    """The adjacency of every channel group by itself, with no scaling of x and y.

    Args:
        simfun: :class:`DotSimilarity` or :class:`DistanceSimilarity`.
        x: Queries ``(B, C, *spatial)``, real or complex.
        y: Keys of the same shape.
        W: The window: an odd int, or one odd int per spatial dim, not larger than the grid.
        nheads: The number of contiguous channel groups; divides C.

    Returns:
        A :class:`Circulant` of shape ``(B, nheads, N, N)`` whose rows sum to one.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes, heads or devices do not match, or the window does not fit.

    Example:
        >>> x = torch.randn(2, 8, 6, 6)
        >>> circulant_mh_adjacency(DotSimilarity(), x, x, 3, 4).shape
        torch.Size([2, 4, 36, 36])

    References:
        ``circulant_mh_adjacency`` in CirculantAttention.jl, ``src/attention.jl``.
    """
    check_similarity(simfun)
    x, y = checks.check_pair(("x", "y"), x, y)
    checks.check_heads("the channels of x", x.shape[1], nheads, "nheads")
    A = circulant_adjacency(simfun, split_heads(x, nheads), split_heads(y, nheads), W)
    n = A.geometry.pixels
    return A.reshape(x.shape[0], nheads, n, n)


class _MultiHead:
    """Multi-head application, ``mh(A, x)``, or infix as ``A @ mh @ x``; Julia's ``⨷``.

    Head h of A acts on channel group h of x, as in :func:`circulant_mh_attention`. Under
    ``torch.compile(fullgraph=True)`` write ``mh(A, x)``: torch traces the operator ``@`` only if
    one side is a tensor, so ``A @ mh`` breaks the graph.

    Args:
        A: A :class:`Circulant` ``(B, heads, N, N)``.
        x: ``(B, C, *spatial)`` with C divisible by the heads of A.

    Returns:
        A tensor of the shape of ``x``.

    Raises:
        TypeError, ValueError: As :func:`circulant_mh_attention`.

    Example:
        >>> x = torch.randn(2, 8, 6, 6)
        >>> A = circulant_mh_adjacency(DotSimilarity(), x, x, 3, 4)
        >>> torch.equal(A @ mh @ x, mh(A, x))
        True

    References:
        ``⨷`` in CirculantAttention.jl, ``src/attention.jl``.
    """

    def __call__(self, A: Circulant, x: Tensor) -> Tensor:
        return _mh_apply(A, x)

    def __rmatmul__(self, A: object) -> _Heads:
        return _Heads(A) if isinstance(A, Circulant) else NotImplemented

    def __repr__(self) -> str:
        return "mh"


class _Heads:
    """The value of ``A @ mh``, to be followed by ``@ x``."""

    def __init__(self, A: Circulant) -> None:
        self._matrix = A

    def __matmul__(self, x: object) -> Tensor:
        return _mh_apply(self._matrix, x) if isinstance(x, Tensor) else NotImplemented


mh = _MultiHead()
