"""Functions of plain tensors, each process with its shard of the grid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from circulant_attention import checks
from circulant_attention.distributed import local, terms
from circulant_attention.distributed.grid import Halos, ShardedGrid
from circulant_attention.geometry import WindowLike, make_geometry
from circulant_attention.matrix.application import join_heads, split_heads
from circulant_attention.matrix.score_terms import Options
from circulant_attention.ops.autocast import cast_for_autocast
from circulant_attention.similarity import AbstractSimilarity, DotSimilarity, check_similarity

_DOT = DotSimilarity()


def sharded_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    W: WindowLike,
    nheads: int = 1,
    *,
    grid: ShardedGrid,
    simfun: AbstractSimilarity = _DOT,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    r"""Circulant attention of the whole grid, for this process's shard of it.

    .. math:: y_i = \textstyle\sum_j A_{ij} v_j, \quad
        A = \operatorname{softmax}(\operatorname{simfun}(q / C^{1/4}, k / C^{1/4}))

    The shard of what :func:`~circulant_attention.circulant_mh_attention` gives for the whole grid.
    k and v get their halos from the other processes, in one message per pair of processes; the
    backward pass sends gradients of the same size back. For parameters that every process has,
    gradients are summands of those of the whole grid: let DistributedDataParallel or FSDP add them.

    Args:
        q: Queries ``(B, C, *local)``, with the ``local_size`` of the grid.
        k: Keys of the same shape.
        v: Values ``(B, C_v, *local)``.
        W: The window: an odd int, one per spatial dim, or a :class:`~circulant_attention.Window`;
            it must fit the whole grid, not the shard.
        nheads: The number of heads; divides C and C_v.
        grid: How the grid is cut.
        simfun: :class:`~circulant_attention.DotSimilarity` (when left out) or
            :class:`~circulant_attention.DistanceSimilarity`.
        scale: As for :func:`~circulant_attention.circulant_mh_attention`.
        bias: A number for each head and offset, ``(nheads or 1, *window)``; equal on every process.
        key_mask: The shard of the mask, which gets its halo, too: bool, True for pixels that take
            part as keys, or real numbers, which are added to the scores; ``(B or 1, *local)`` or
            ``(B or 1, nheads or 1, *local)``. Every process gives one of the same kind, or none.

    Returns:
        A tensor of the shape of ``v``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes, heads or devices do not match, or the window does not fit.

    Note:
        Every process of the grid takes part, those without pixels too, in the same order of calls,
        and in the backward pass if any does.

    Example:
        >>> from circulant_attention.distributed import ShardedGrid, sharded_attention
        >>> grid = ShardedGrid((12, 10), {})  # with torchrun: {0: mesh.get_group(0)}
        >>> q, k, v = torch.randn(3, 2, 16, *grid.local_size)
        >>> sharded_attention(q, k, v, 5, 4, grid=grid).shape
        torch.Size([2, 16, 12, 10])
    """
    kind = check_similarity(simfun).kind
    checks.check_attention(q, k, v, nheads)
    halos = _halos(grid, W, q=q)
    options, default = Options(scale, bias, key_mask), (q.shape[1] // nheads) ** -0.5
    added = terms.of_shards(options, halos, (q.shape[0], nheads), default, q.device)
    q, k, v = cast_for_autocast(*(split_heads(x, nheads) for x in (q, k, v)))
    y, _ = local.attention(q, k, v, halos, kind, *added)
    return join_heads(y, nheads)


def sharded_adjacency(
    simfun: AbstractSimilarity,
    x: Tensor,
    y: Tensor,
    W: WindowLike,
    nheads: int = 1,
    *,
    grid: ShardedGrid,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
) -> Tensor:
    """The rows of :func:`~circulant_attention.circulant_mh_adjacency` of this process's pixels.

    Args:
        simfun: :class:`~circulant_attention.DotSimilarity` or
            :class:`~circulant_attention.DistanceSimilarity`.
        x: Queries ``(B, C, *local)``.
        y: Keys of the same shape.
        W: The window, as for :func:`sharded_attention`.
        nheads: The number of heads; divides C.
        grid: How the grid is cut.
        scale: The factor of the similarities; 1 when left out.
        bias: A number for each head and offset, ``(nheads or 1, *window)``; equal on every process.
        key_mask: The shard of the mask, ``(B or 1, *local)`` or ``(B or 1, nheads or 1, *local)``,
            as for :func:`sharded_attention`.

    Returns:
        The entries ``(B, nheads, *local, K)``, those of a row by ascending column of the whole
        matrix.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes, heads or devices do not match, or the window does not fit.

    Example:
        >>> from circulant_attention.distributed import ShardedGrid, sharded_adjacency
        >>> x = torch.randn(1, 8, 6, 6)
        >>> grid = ShardedGrid((6, 6), {})
        >>> sharded_adjacency(DotSimilarity(), x, x, 3, 2, grid=grid).shape
        torch.Size([1, 2, 6, 6, 9])
    """
    kind = check_similarity(simfun).kind
    x, y = checks.check_pair(("x", "y"), x, y)
    checks.check_heads("the channels of x", x.shape[1], nheads, "nheads")
    halos = _halos(grid, W, x=x)
    options = Options(scale, bias, key_mask)
    added = terms.of_shards(options, halos, (x.shape[0], nheads), 1.0, x.device)
    x, y = cast_for_autocast(split_heads(x, nheads), split_heads(y, nheads))
    values = local.adjacency(x, local.extended_keys(x, y, halos), halos, kind, *added)
    return halos.to_columns(values).reshape(
        x.shape[0] // nheads, nheads, *grid.local_size, halos.geometry.nnz_per_row
    )


def sharded_apply(
    rows: Tensor, x: Tensor, W: WindowLike, *, grid: ShardedGrid, transposed: bool = False
) -> Tensor:
    r"""A matrix of which this process has rows, applied: :math:`y_i = \sum_j A_{ij} x_j`.

    Head h acts on channel group h of x, as in :func:`~circulant_attention.mh`.

    Args:
        rows: The entries ``(B, heads, *local, K)``, as :func:`sharded_adjacency` gives them.
        x: ``(B, C, *local)``, with C divisible by the heads.
        W: The window.
        grid: How the grid is cut.
        transposed: Whether to apply the transposed matrix, :math:`y_j = \sum_i A_{ij} x_i`.

    Returns:
        A tensor of the shape of ``x``.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes or devices do not match, or the window does not fit.

    Example:
        >>> from circulant_attention.distributed import ShardedGrid, sharded_apply
        >>> grid = ShardedGrid((6, 6), {})
        >>> sharded_apply(torch.ones(1, 1, 6, 6, 9), torch.ones(1, 2, 6, 6), 3, grid=grid).unique()
        tensor([9.])
    """
    checks.check_features("x", x)
    if not isinstance(rows, Tensor):
        raise TypeError(f"expected rows to be a tensor, got {type(rows).__name__}")
    checks.check_dtype("rows", rows.dtype)
    halos = _halos(grid, W, x=x)
    expected = (x.shape[0], "heads", *grid.local_size, halos.geometry.nnz_per_row)
    if rows.dim() != len(expected) or any(
        own != wanted for own, wanted in zip(rows.shape, expected, strict=True) if wanted != "heads"
    ):
        raise ValueError(f"expected rows of shape {expected}, got {tuple(rows.shape)}")
    heads = rows.shape[1]
    checks.check_heads("the channels of x", x.shape[1], heads, "rows.shape[1]")
    values = halos.to_offsets(rows.flatten(2, -2).flatten(0, 1))
    values, parts = cast_for_autocast(values, split_heads(x, heads))
    return join_heads(local.apply(values, parts, halos, transposed=transposed), heads)


def extend_halos(*xs: Tensor, W: WindowLike, grid: ShardedGrid) -> tuple[Tensor, ...]:
    """Shards with the pixels beside them that a window needs; differentiable.

    Args:
        *xs: Shards ``(B, C, *local)`` of one dtype, real, complex or integer; C may differ.
        W: The window: an odd int, one per spatial dim, or a :class:`~circulant_attention.Window`.
        grid: How the grid is cut.

    Returns:
        ``(B, C, *extended)`` for each of ``xs``. Along each dim that is cut they have the pixels
        from the first to the last that the window reaches, around a circle in a circular dim.

    Raises:
        TypeError: If dtypes differ.
        ValueError: If shapes do not fit the grid, or the window does not.

    Example:
        >>> from circulant_attention.distributed import ShardedGrid, extend_halos
        >>> (x,) = extend_halos(torch.ones(1, 1, 6), W=3, grid=ShardedGrid((6,), {}))
        >>> x.shape
        torch.Size([1, 1, 6])
    """
    _check_one_dtype(xs)
    return _halos(grid, W, **{f"xs[{i}]": x for i, x in enumerate(xs)}).extend(*xs)


def gather_halos(*xs: Tensor, W: WindowLike, grid: ShardedGrid) -> tuple[Tensor, ...]:
    """The adjoint of :func:`extend_halos`: what is in the halos is added to its owners' pixels.

    The additions have a fixed order, so results have the same bits in every run.

    Args:
        *xs: Extended shards ``(B, C, *extended)`` of one dtype.
        W: The window.
        grid: How the grid is cut.

    Returns:
        ``(B, C, *local)`` for each of ``xs``.

    Raises:
        TypeError: If dtypes differ.
        ValueError: If the window does not fit the grid.

    Example:
        >>> from circulant_attention.distributed import ShardedGrid, gather_halos
        >>> (x,) = gather_halos(torch.ones(1, 1, 6), W=3, grid=ShardedGrid((6,), {}))
        >>> x.shape
        torch.Size([1, 1, 6])
    """
    _check_one_dtype(xs)
    halos = Halos(grid, make_geometry(W, grid.spatial_size))
    for i, x in enumerate(xs):
        if tuple(x.shape[2:]) != halos.extended_size:
            raise ValueError(
                f"expected xs[{i}] with the extended spatial size {halos.extended_size}, got "
                f"{tuple(x.shape[2:])}"
            )
    return halos.gather(*xs)


def _check_one_dtype(xs: Sequence[Tensor]) -> None:
    if not xs or any(not isinstance(x, Tensor) for x in xs):
        raise TypeError(f"expected tensors, got {[type(x).__name__ for x in xs]}")
    if len({x.dtype for x in xs}) > 1:
        raise TypeError(f"expected tensors of one dtype, got {[x.dtype for x in xs]}")


def _halos(grid: ShardedGrid, W: WindowLike, **tensors: Tensor) -> Halos:
    """What the window needs; raises unless the tensors are shards of the grid."""
    if not isinstance(grid, ShardedGrid):
        raise TypeError(f"expected grid to be a ShardedGrid, got {type(grid).__name__}")
    halos = Halos(grid, make_geometry(W, grid.spatial_size))
    for name, x in tensors.items():
        if tuple(x.shape[2:]) != grid.local_size:
            raise ValueError(
                f"expected {name} with the spatial size of this process's shard, "
                f"{grid.local_size}, got {tuple(x.shape[2:])}"
            )
    return halos
