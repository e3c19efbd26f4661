"""Julia's functions of Circulants, under their names."""

from __future__ import annotations

import torch
from torch import Tensor

from circulant_attention import checks
from circulant_attention.geometry import WindowLike
from circulant_attention.matrix.algebra import Number
from circulant_attention.matrix.circulant import Circulant, check_circulant
from circulant_attention.ops.dispatch import takes_distributed
from circulant_attention.ops.dtypes import real_dtype


@takes_distributed
def circulant(W: WindowLike, x: Tensor) -> Circulant:
    """A matrix of ones for the grid of ``x``.

    Args:
        W: The window: an odd int, or one odd int per spatial dim, not larger than the grid; or a
            :class:`Window`.
        x: ``(B, C, *spatial)``; tells the batch size, the grid, the real dtype and the device.

    Returns:
        A :class:`Circulant` of shape ``(B, 1, N, N)``.

    Raises:
        TypeError: If ``x`` is not a tensor of a supported dtype.
        ValueError: If the window does not fit the grid.

    Example:
        >>> circulant(3, torch.randn(2, 5, 8, 8)).shape
        torch.Size([2, 1, 64, 64])

    References:
        ``circulant`` in CirculantAttention.jl, ``src/array.jl``.
    """
    checks.check_features("x", x)
    dims = (x.shape[0], 1, *x.shape[2:])
    return Circulant(W, dims, dtype=real_dtype(x.dtype), device=x.device)


def kernel_length(A: Circulant) -> int | tuple[int, ...]:
    """The lengths of the window of a Circulant.

    Args:
        A: A :class:`Circulant`.

    Returns:
        One int if the window is equally long in every dim, else one per spatial dim; odd, unless
        it comes from a :class:`Window`.

    Raises:
        TypeError: If ``A`` is not a Circulant.

    Example:
        >>> kernel_length(Circulant(3, (1, 1, 8, 8)))
        3

    References:
        ``kernel_length`` in CirculantAttention.jl, ``src/array.jl``.
    """
    lengths = check_circulant("A", A).geometry.lengths
    return lengths[0] if len(set(lengths)) == 1 else lengths


def spatial_size(A: Circulant) -> tuple[int, ...]:
    """The spatial sizes of a Circulant's grid.

    Args:
        A: A :class:`Circulant`.

    Returns:
        One int per spatial dim.

    Raises:
        TypeError: If ``A`` is not a Circulant.

    Example:
        >>> spatial_size(Circulant(3, (1, 1, 8, 6)))
        (8, 6)

    References:
        ``spatial_size`` in CirculantAttention.jl, ``src/array.jl``.
    """
    return check_circulant("A", A).spatial_size


def spatial_dims(A: Circulant) -> int:
    """The number of spatial dims of a Circulant's grid.

    Args:
        A: A :class:`Circulant`.

    Returns:
        1, 2 or 3.

    Raises:
        TypeError: If ``A`` is not a Circulant.

    Example:
        >>> spatial_dims(Circulant(3, (1, 1, 8, 6)))
        2

    References:
        ``spatial_dims`` in CirculantAttention.jl, ``src/array.jl``.
    """
    return len(check_circulant("A", A).spatial_size)


def dot(A: Circulant, B: Circulant) -> Tensor:
    r"""The inner product of two Circulants.

    .. math:: \textstyle\sum_{ij} \overline{A_{ij}} B_{ij}

    Args:
        A: A :class:`Circulant`.
        B: A :class:`Circulant` of the same shape and window.

    Returns:
        A 0-d tensor.

    Raises:
        TypeError: If an argument is not a Circulant.
        ValueError: If shapes or windows differ.

    Example:
        >>> A = Circulant(3, (1, 1, 4, 4))
        >>> dot(A, A)
        tensor(144.)

    References:
        ``LinearAlgebra.dot`` in CirculantAttention.jl, ``src/array.jl``.
    """
    return check_circulant("A", A).dot(check_circulant("B", B))


def scale(m: Number | Tensor, A: Circulant) -> Circulant:
    """``m * A``: every entry times a number, or a number per batch and head.

    Args:
        m: A number, or a tensor that broadcasts to ``(B, heads, 1, 1)``: 0-d, ``(1,)``,
            ``(heads, 1, 1)``, ``(B, heads, 1, 1)``. Either side's batch and heads may be 1.
        A: A :class:`Circulant`.

    Returns:
        A :class:`Circulant`, differentiable in ``m`` and ``A``.

    Raises:
        TypeError: If ``m`` is neither a number nor a tensor, or ``A`` not a Circulant.
        ValueError: If the shape of ``m`` does not fit.

    Example:
        >>> scale(torch.rand(2, 4, 1, 1), Circulant(3, (2, 1, 6, 6))).shape
        torch.Size([2, 4, 36, 36])

    References:
        ``scale`` in CirculantAttention.jl, ``src/array.jl``.
    """
    return check_circulant("A", A).scale(m)


def similar(A: Circulant) -> Circulant:
    """A Circulant of the same shape, dtype and device with uninitialized entries.

    Args:
        A: A :class:`Circulant`.

    Returns:
        A :class:`Circulant`, to be filled by an in-place function (``…_``).

    Raises:
        TypeError: If ``A`` is not a Circulant.

    Example:
        >>> A = Circulant(3, (1, 1, 4, 4))
        >>> softmax_(similar(A), A) == softmax(A)
        True

    References:
        ``Base.similar`` in CirculantAttention.jl, ``src/array.jl``.
    """
    return check_circulant("A", A).similar()


def cat(*matrices: Circulant, dim: int = 1) -> Circulant:
    """Concatenates Circulants along heads or batch; the same as ``torch.cat``.

    Args:
        *matrices: Circulants (:class:`Circulant`) of one grid and window.
        dim: 1 for the heads (Julia's dims=3), 0 for the batch (dims=4).

    Returns:
        A :class:`Circulant`.

    Raises:
        TypeError: If an argument is not a Circulant.
        ValueError: If grids, windows, the other dim or ``dim`` do not fit.

    Example:
        >>> A = Circulant(3, (2, 4, 6, 6))
        >>> cat(A, A, dim=1).shape
        torch.Size([2, 8, 36, 36])

    References:
        ``Base.cat`` in CirculantAttention.jl, ``src/array.jl``.
    """
    if len(matrices) == 1 and isinstance(matrices[0], list | tuple):
        (matrices,) = matrices  # in one list, as torch.cat takes them
    if not matrices:
        raise ValueError("expected at least one Circulant to concatenate, got none")
    first, *others = (check_circulant("every argument of cat", one) for one in matrices)
    if dim not in (0, 1, -4, -3):
        raise ValueError(f"expected dim 0 (batch) or 1 (heads) to concatenate, got {dim}")
    dim %= 4
    kept = 1 - dim
    for other in others:
        if not other.geometry.matches(first.geometry) or other.shape[kept] != first.shape[kept]:
            raise ValueError(
                f"expected Circulants of one spatial size, window and "
                f"{('batch size', 'number of heads')[kept]} to concatenate, "
                f"got {first!r} and {other!r}"
            )
        if other.device != first.device:
            raise ValueError(f"expected a Circulant on {first.device}, got one on {other.device}")
    values = torch.cat([one.values for one in matrices], dim)
    return first.with_values(values)
