"""A ready matrix applied to features: in place, transposed, and head by head."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from circulant_attention import checks
from circulant_attention.matrix.circulant import Circulant, check_circulant
from circulant_attention.ops.dispatch import is_distributed, takes_distributed


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, heads * C, *spatial)`` to ``(B * heads, C, *spatial)``, contiguous channel groups."""
    return x.reshape(x.shape[0] * heads, x.shape[1] // heads, *x.shape[2:])


def join_heads(x: Tensor, heads: int) -> Tensor:
    """``(B * heads, C, *spatial)`` to ``(B, heads * C, *spatial)``."""
    return x.reshape(x.shape[0] // heads, x.shape[1] * heads, *x.shape[2:])


@takes_distributed
def mh_apply(A: Circulant, x: Tensor) -> Tensor:
    """Head h of A applied to channel group h of ``x (B, C, *spatial)``."""
    checks.check_features("x", x)
    heads = check_circulant("A", A).shape[1]
    checks.check_heads("the channels of x", x.shape[1], heads, "A.shape[1]")
    if x.shape[0] != A.shape[0]:
        raise ValueError(f"expected x with the batch size of A, {A.shape[0]}, got {x.shape[0]}")
    return join_heads(A.apply(split_heads(x, heads)), heads)


@takes_distributed
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


@takes_distributed
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


@takes_distributed
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


@takes_distributed
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
    return mh_apply(check_circulant("A", A).mT, x)


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
        return mh_apply(A, x)

    def __rmatmul__(self, A: object) -> _Heads:
        return _Heads(A) if isinstance(A, Circulant) or is_distributed(A) else NotImplemented

    def __repr__(self) -> str:
        return "mh"


class _Heads:
    """The value of ``A @ mh``, to be followed by ``@ x``."""

    def __init__(self, A: Any) -> None:
        self._matrix = A

    def __matmul__(self, x: object) -> Tensor:
        return mh_apply(self._matrix, x) if isinstance(x, Tensor) else NotImplemented


mh = _MultiHead()
