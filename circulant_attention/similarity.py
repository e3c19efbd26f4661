"""Similarities of neighbouring pixels, and their row softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from circulant_attention import checks
from circulant_attention.geometry import WindowLike, make_geometry
from circulant_attention.matrix.algebra import check_grid
from circulant_attention.matrix.application import split_heads
from circulant_attention.matrix.circulant import Circulant, check_circulant
from circulant_attention.matrix.lazy import Scores, attention_weights
from circulant_attention.matrix.score_terms import Options, dropped
from circulant_attention.ops import dtypes
from circulant_attention.ops.autocast import cast_for_autocast
from circulant_attention.ops.dispatch import takes_distributed
from circulant_attention.ops.primitives import SimilarityKind


class AbstractSimilarity:
    """The type of :class:`DotSimilarity` and :class:`DistanceSimilarity`; there are no others.

    Example:
        >>> isinstance(DotSimilarity(), AbstractSimilarity)
        True

    References:
        ``AbstractSimilarity`` in CirculantAttention.jl, ``src/similarity.jl``.
    """

    kind: ClassVar[SimilarityKind]
    """The ``kind`` argument of the native ops."""

    def __new__(cls) -> AbstractSimilarity:
        """Refuses a class without a native similarity."""
        if not isinstance(getattr(cls, "kind", None), SimilarityKind):
            raise TypeError(
                f"expected a similarity to be DotSimilarity() or DistanceSimilarity(), got "
                f"{cls.__name__}(): the native ops compute no other"
            )
        return super().__new__(cls)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


class DotSimilarity(AbstractSimilarity):
    r"""Dot-product similarity.

    .. math:: S_{ij} = \operatorname{Re} \textstyle\sum_c x_{ci} \overline{y_{cj}}

    It does not scale; :func:`circulant_attention` does.

    Example:
        >>> DotSimilarity()
        DotSimilarity()

    References:
        ``DotSimilarity`` in CirculantAttention.jl, ``src/similarity.jl``.
    """

    kind = SimilarityKind.DOT


class DistanceSimilarity(AbstractSimilarity):
    r"""Similarity by squared distance: zero for equal pixels, negative for others.

    .. math:: S_{ij} = -\tfrac12 \textstyle\sum_c |x_{ci} - y_{cj}|^2

    Computed from the differences, so that close pixels of large values keep their accuracy.

    Example:
        >>> DistanceSimilarity()
        DistanceSimilarity()

    References:
        ``DistanceSimilarity`` in CirculantAttention.jl, ``src/similarity.jl`` (its documentation
        leaves out the minus sign that its code has).
    """

    kind = SimilarityKind.DISTANCE


def check_similarity(simfun: object) -> AbstractSimilarity:
    """The argument, if it is a similarity; else raises TypeError."""
    if isinstance(simfun, AbstractSimilarity) and isinstance(simfun.kind, SimilarityKind):
        return simfun
    hint = " (an instance: add parentheses)" if isinstance(simfun, type) else ""
    given = simfun.__name__ if isinstance(simfun, type) else type(simfun).__name__
    raise TypeError(
        f"expected simfun to be DotSimilarity() or DistanceSimilarity(){hint}, got {given}"
    )


@takes_distributed
def circulant_similarity(
    simfun: AbstractSimilarity,
    x: Tensor,
    y: Tensor,
    W: WindowLike,
) -> Circulant:
    r"""The similarity of every pixel of ``x`` with the pixels of ``y`` in a window around it.

    .. math:: S_{ij} = \operatorname{simfun}(x_i, y_j), \quad
        j = (i + o) \bmod \text{size}, \; o \in \text{window}

    Args:
        simfun: :class:`DotSimilarity` or :class:`DistanceSimilarity`.
        x: Queries ``(B, C, *spatial)``, real or complex; row i comes from pixel i.
        y: Keys of the same shape; column j comes from pixel j.
        W: The window: an odd int, or one odd int per spatial dim, not larger than the grid; or a
            :class:`Window`.

    Returns:
        A :class:`Circulant` of shape ``(B, 1, N, N)`` in the real dtype of ``x`` and ``y``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not match, or the window does not fit.

    Note:
        Differentiable to any order, in forward and reverse mode, with the same bits for any number
        of threads. Under ``torch.autocast`` x and y are cast as for a matrix product.

    Example:
        >>> x = torch.randn(2, 16, 12, 10)
        >>> circulant_similarity(DotSimilarity(), x, x, 5).shape
        torch.Size([2, 1, 120, 120])

    References:
        ``circulant_similarity`` in CirculantAttention.jl, ``src/similarity.jl``.
    """
    kind = check_similarity(simfun).kind
    x, y = checks.check_pair(("x", "y"), x, y)
    geometry = make_geometry(W, x.shape[2:])
    x, y = cast_for_autocast(x, y)
    values = dtypes.similarity(x, y, geometry.op_window, kind)
    return Circulant._from(values.flatten(1).unsqueeze(1), geometry)


@takes_distributed
def circulant_similarity_(
    A: Circulant,
    simfun: AbstractSimilarity,
    x: Tensor,
    y: Tensor,
) -> Circulant:
    """Writes :func:`circulant_similarity` into the stored entries of ``A``.

    Args:
        A: A real :class:`Circulant`; its grid is that of x and y, its batch times its heads their
            batch size.
        simfun: :class:`DotSimilarity` or :class:`DistanceSimilarity`.
        x: Queries ``(B * heads, C, *spatial)``.
        y: Keys of the same shape.

    Returns:
        ``A``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not match.

    Example:
        >>> x = torch.randn(1, 4, 6, 6)
        >>> A = circulant(3, x)
        >>> circulant_similarity_(A, DotSimilarity(), x, x) is A
        True

    References:
        ``circulant_similarity!`` in CirculantAttention.jl, ``src/similarity.jl``.
    """
    return _write(circulant_similarity, A, simfun, x, y)


def _write(
    make: Callable[[AbstractSimilarity, Tensor, Tensor, WindowLike], Circulant],
    a: Circulant,
    simfun: AbstractSimilarity,
    x: Tensor,
    y: Tensor,
) -> Circulant:
    """Writes what ``make`` makes of x and y into ``a``; raises unless all fit."""
    check_circulant("A", a)
    check_similarity(simfun)
    x, y = checks.check_pair(("x", "y"), x, y)
    if a.is_complex():
        raise TypeError(f"expected A with real entries, got {a.dtype}")
    check_grid(a._source, a.geometry, x)
    a.values.copy_(make(simfun, x, y, a.window).reshape(*a.shape).values)
    return a


@takes_distributed
def softmax(A: Circulant, dim: int = -1) -> Circulant:
    r"""The softmax of each row over its stored entries.

    .. math:: B_{ij} = \exp(A_{ij}) / \textstyle\sum_{k \in \text{row } i} \exp(A_{ik})

    Args:
        A: A real :class:`Circulant`.
        dim: -1, the only dim it exists for.

    Returns:
        A :class:`Circulant` whose rows sum to one. A row in which every stored entry is minus
        infinity, as :meth:`Circulant.mask_keys` leaves one without keys, gives zeros; torch's
        softmax gives NaN there.

    Raises:
        TypeError: If ``A`` is not a Circulant or complex.
        ValueError: If ``dim`` is not -1.

    Example:
        >>> softmax(Circulant(3, (1, 1, 4, 4))).values.unique()
        tensor([0.1111])

    References:
        ``NNlib.softmax`` in CirculantAttention.jl, ``src/similarity.jl``.
    """
    return check_circulant("A", A).softmax(dim)


@takes_distributed
def softmax_(B: Circulant, A: Circulant | None = None) -> Circulant:
    """Writes the row softmax of ``A`` (of ``B`` itself when left out) into ``B``.

    Args:
        B: The :class:`Circulant` that is written.
        A: A :class:`Circulant` of the same shape and window.

    Returns:
        ``B``.

    Raises:
        TypeError: If an argument is not a real Circulant.
        ValueError: If shapes or windows differ.

    Example:
        >>> A = Circulant(3, (1, 1, 4, 4))
        >>> torch.allclose(softmax_(A).sum(-1), torch.ones(1, 1, 16))
        True

    References:
        ``NNlib.softmax!`` in CirculantAttention.jl, ``src/similarity.jl``.
    """
    check_circulant("B", B)
    source = B if A is None else check_circulant("A", A)
    if not B.geometry.matches(source.geometry) or B.shape != source.shape:
        raise ValueError(
            f"expected B with the shape and window of A, {tuple(source.shape)} and "
            f"{source.window}, got {tuple(B.shape)} and {B.window}"
        )
    if B.is_complex():
        raise TypeError(f"expected B with real entries, got {B.dtype}")
    if B.device != source.device:
        raise ValueError(f"expected B on the device of A, {source.device}, got {B.device}")
    B.values.copy_(source.softmax().values)
    return B


@takes_distributed
def circulant_adjacency(
    simfun: AbstractSimilarity,
    x: Tensor,
    y: Tensor,
    W: WindowLike,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout_p: float = 0,
) -> Circulant:
    """The row softmax of :func:`circulant_similarity`: the weights of attention.

    ``softmax(circulant_similarity(simfun, x, y, W))``, with no scaling of x and y.

    Args:
        simfun: :class:`DotSimilarity` or :class:`DistanceSimilarity`.
        x: Queries ``(B, C, *spatial)``, real or complex.
        y: Keys of the same shape.
        W: The window: an odd int, or one odd int per spatial dim, not larger than the grid; or a
            :class:`Window`.
        scale: The factor of the similarities; 1 when left out.
        bias: As for :func:`circulant_attention`, of shape ``(1, *window)``.
        key_mask: As for :func:`circulant_attention`, of shape ``(B, *spatial)``.
        dropout_p: As for :func:`circulant_attention`.

    Returns:
        A :class:`Circulant` of shape ``(B, 1, N, N)`` whose rows sum to one. A row without any key
        holds zeros.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not match, or the window does not fit, or a number is
            out of range.

    Example:
        >>> x = torch.randn(1, 8, 16, 16)
        >>> A = circulant_adjacency(DistanceSimilarity(), x, x, 7)
        >>> torch.allclose(A.sum(-1), torch.ones(1, 1, 256))
        True

    References:
        ``circulant_adjacency`` in CirculantAttention.jl, ``src/similarity.jl``.
    """
    return mh_adjacency(simfun, x, y, W, 1, Options(scale, bias, key_mask, dropout_p))


def mh_adjacency(
    simfun: AbstractSimilarity, x: Tensor, y: Tensor, W: WindowLike, nheads: int, options: Options
) -> Circulant:
    """The adjacency of every channel group by itself, ``(B, nheads, N, N)``."""
    kind = check_similarity(simfun).kind
    x, y = checks.check_pair(("x", "y"), x, y)
    checks.check_heads("the channels of x", x.shape[1], nheads, "nheads")
    geometry = make_geometry(W, x.shape[2:])
    batch_shape = x.shape[0], nheads
    scores = Scores(geometry, kind, options.checked_scale(1.0), batch_shape)
    terms = options.checked_terms(geometry, batch_shape, x.device)
    p = options.checked_dropout()
    x, y = cast_for_autocast(x, y)
    weights = attention_weights(split_heads(x, nheads), split_heads(y, nheads), scores, terms)
    return Circulant._from(dropped(weights, p), geometry)


@takes_distributed
def circulant_adjacency_(
    A: Circulant,
    simfun: AbstractSimilarity,
    x: Tensor,
    y: Tensor,
) -> Circulant:
    """Writes :func:`circulant_adjacency` into the stored entries of ``A``.

    Args:
        A: A real :class:`Circulant`; its grid is that of x and y, its batch times its heads their
            batch size.
        simfun: :class:`DotSimilarity` or :class:`DistanceSimilarity`.
        x: Queries ``(B * heads, C, *spatial)``.
        y: Keys of the same shape.

    Returns:
        ``A``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not match.

    Example:
        >>> x = torch.randn(1, 4, 6, 6)
        >>> A = circulant(3, x)
        >>> torch.allclose(circulant_adjacency_(A, DotSimilarity(), x, x).sum(), torch.tensor(36.0))
        True

    References:
        ``circulant_adjacency!`` in CirculantAttention.jl, ``src/similarity.jl``.
    """
    return _write(circulant_adjacency, A, simfun, x, y)
