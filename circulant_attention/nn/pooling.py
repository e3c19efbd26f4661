"""Fused attention: pooling of many inputs into one by the mean of their attention weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, overload

import torch
from torch import Tensor, nn

from circulant_attention.checks import check_mask, check_positive, is_int, positive_ints
from circulant_attention.nn.averaged_softmax import averaged_softmax
from circulant_attention.ops.dispatch import takes_distributed

Transform = Callable[[Tensor], Tensor]


class FusedAttention(nn.Module):
    r"""Attention from L inputs to one output.

    .. math::

        Q = f_Q(X), \quad K = f_K(X), \quad V = f_V(X), \quad
        \alpha = \operatorname{fuse}(\operatorname{norm}(K^T Q / \sqrt d)), \quad
        Y = g_V(V \alpha)

    where column j of Q and K ``(u, L)`` and of V ``(d, L)`` belongs to input j. By default norm is
    the softmax of every column and fuse the mean of every row, so that :math:`\alpha` is the mean
    of the attention weights of all queries. The inputs are either

    - patches (``window`` given): x is ``(B, C, *spatial)``, each f maps it to
      ``(B, C', *spatial')``, which is cut into windows at steps of ``stride``, row-major; d is C'
      times the window's size; or
    - a collection (no ``window``): x is a sequence of L tensors ``(B, *shape)``, or one tensor
      ``(B, L, *shape)``, and each f maps a batch of inputs ``(B * L, *shape)`` to
      ``(B * L, *shape')``; d is the size of shape'.

    Args:
        f_Q: A module or another callable that makes the queries; None for the inputs themselves.
        f_K: The same for the keys. The columns of K are as long as those of Q.
        f_V: The same for the values.
        g_V: A module or another callable for the result; None to leave it.
        norm: A module or another callable from scores ``(B, L, L)``, row i for key i and column j
            for query j, to a tensor of that shape; None for the softmax of every column.
        fuse: A module or another callable from normed scores to ``(B, L)`` or ``(B, L, 1)``; None
            for the mean of every row.
        window: The size of a patch: an int, or one int per spatial dim; None for collections.
        stride: The step from patch to patch: an int, or one int per spatial dim; ``window`` when
            left out. A remainder at the end is not used, as in a convolution without padding.
        scale: The factor of :math:`K^T Q`; :math:`1 / \sqrt d` when left out.
        flatten: Whether :math:`V \alpha` is a vector ``(B, d)`` or, by default, in the shape of a
            patch, ``(B, C', *window)``, or of a transformed input, ``(B, *shape')``.

    Raises:
        TypeError: If a function is not callable, or a number that counts is not an int.
        ValueError: If an argument is out of range, or a stride comes without a window.

    Note:
        :math:`O(L^2 u + L d)` operations, that is :math:`O(N^2 C / W)` for N pixels in
        non-overlapping patches of W pixels. The memory beside Q, K and V is O(L) with the default
        norm and fuse, which compute the L x L matrix in parts, twice in training; it is
        :math:`O(L^2)` with others, and in forward mode that records a graph. With a mask and
        another norm or fuse, samples are computed one by one.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from circulant_attention.nn import FusedAttention
        >>> pool = FusedAttention(nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), window=4)
        >>> pool(torch.randn(2, 3, 16, 24)).shape
        torch.Size([2, 3, 4, 4])
        >>> pool = FusedAttention(nn.Linear(5, 8), nn.Linear(5, 8))
        >>> pool([torch.randn(2, 5) for _ in range(7)]).shape
        torch.Size([2, 5])

    References:
        FusedAttention: fusing attention matrix into attention vector. Vaswani et al., Attention is
        all you need, NeurIPS 2017.
    """

    def __init__(
        self,
        f_Q: Transform | None = None,
        f_K: Transform | None = None,
        f_V: Transform | None = None,
        g_V: Transform | None = None,
        norm: Transform | None = None,
        fuse: Transform | None = None,
        *,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
        scale: float | None = None,
        flatten: bool = False,
    ) -> None:
        super().__init__()
        functions = {"f_Q": f_Q, "f_K": f_K, "f_V": f_V, "g_V": g_V, "norm": norm, "fuse": fuse}
        for name, function in functions.items():
            if function is not None and not callable(function):
                raise TypeError(
                    f"expected {name} to be callable or None, got {type(function).__name__}"
                )
        self.f_Q, self.f_K, self.f_V, self.g_V = f_Q, f_K, f_V, g_V
        self.norm, self.fuse = norm, fuse
        if window is None and stride is not None:
            raise ValueError(f"stride needs a window to move, got stride={stride}")
        self.window = None if window is None else _steps("window", window)
        self.stride = self.window if stride is None else _steps("stride", stride)
        self.scale = scale
        self.flatten = flatten

    def reset_parameters(self) -> None:
        """Draw the parameters of all functions that are modules anew."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and reset is not None:
                reset()

    @overload
    def forward(self, x: Tensor | Sequence[Tensor], mask: Tensor | None = None) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor | Sequence[Tensor], mask: Tensor | None, need_weights: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(
        self,
        x: Tensor | Sequence[Tensor],
        mask: Tensor | None = None,
        *,
        need_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    @takes_distributed
    def forward(
        self,
        x: Tensor | Sequence[Tensor],
        mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        r"""Pool.

        Args:
            x: ``(B, C, *spatial)`` with a window; a sequence of L tensors ``(B, *shape)``, or one
                tensor ``(B, L, *shape)``, without.
            mask: Bool ``(B, L)``, True where an input takes part; the others
                have no influence.
            need_weights: Whether to return :math:`\alpha` too.

        Returns:
            Y, or Y and :math:`\alpha` ``(B, L)``.

        Raises:
            TypeError: If the mask is not bool, or a collection is not made of tensors.
            ValueError: If shapes do not fit, a collection is empty, a window is larger than the
                grid, or the mask leaves a sample without inputs.
        """
        split = _collection if self.window is None else self._patches
        x = stacked(x) if self.window is None else self._image(x)
        if mask is not None and self.window is None:
            check_mask(mask, x.shape[:2], "(B, L)")
        queries, _ = split("f_Q", self.f_Q, x)
        keys, _ = split("f_K", self.f_K, x)
        values, shape = split("f_V", self.f_V, x)
        if queries.shape != keys.shape:
            raise ValueError(
                "expected f_K to give as many columns, of the same length, as f_Q, "
                f"L x u = {tuple(queries.shape[1:])}, got {tuple(keys.shape[1:])}"
            )
        if values.shape[1] != keys.shape[1]:
            raise ValueError(
                f"expected f_V to give as many columns as f_K, {keys.shape[1]}, "
                f"got {values.shape[1]}"
            )
        if mask is not None:
            if self.window is not None:
                check_mask(mask, values.shape[:2], "(B, L)")
            left_out = ~mask.unsqueeze(-1)  # also removes NaNs of the padding
            queries, keys, values = (z.masked_fill(left_out, 0) for z in (queries, keys, values))
        dtype = torch.promote_types(queries.dtype, keys.dtype)
        weights = self._weights(queries.to(dtype), keys.to(dtype), mask, values.shape[2])
        pooled = (weights.to(values.dtype).unsqueeze(1) @ values).squeeze(1)
        if not self.flatten:
            pooled = pooled.reshape(len(pooled), *shape)
        if self.g_V is not None:
            pooled = self.g_V(pooled)
        return (pooled, weights) if need_weights else pooled

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None, d: int) -> Tensor:
        """Alpha, ``(B, L)``."""
        scale = 1.0 / math.sqrt(d) if self.scale is None else self.scale
        if self.norm is None and self.fuse is None:
            return averaged_softmax(q, k, mask, scale)
        if mask is None:
            return self._fused(q, k, scale)
        rows = []
        for q_one, k_one, kept in zip(q, k, mask, strict=True):
            chosen = kept.nonzero().squeeze(1)
            weights = self._fused(q_one[chosen].unsqueeze(0), k_one[chosen].unsqueeze(0), scale)
            rows.append(weights.new_zeros(len(kept)).index_copy(0, chosen, weights.squeeze(0)))
        return torch.stack(rows)

    def _fused(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        scores = scale * (k @ q.mT)
        normed = scores.softmax(dim=1) if self.norm is None else self.norm(scores)
        if normed.shape != scores.shape:
            raise ValueError(
                f"expected norm to keep the shape {tuple(scores.shape)}, got {tuple(normed.shape)}"
            )
        weights = normed.mean(dim=2) if self.fuse is None else self.fuse(normed)
        if weights.shape == (*scores.shape[:2], 1):
            weights = weights.squeeze(2)
        if weights.shape != scores.shape[:2]:
            raise ValueError(
                f"expected fuse to give (B, L) = {tuple(scores.shape[:2])} or (B, L, 1), "
                f"got {tuple(weights.shape)}"
            )
        return weights

    def _image(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(
                f"expected x to be a tensor to be cut into patches, got {type(x).__name__}"
            )
        if x.dim() < 3:
            raise ValueError(f"expected x to have shape (B, C, *spatial), got {tuple(x.shape)}")
        return x

    def _patches(self, name: str, f: Transform | None, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The patches ``(B, L, C' * window)`` of f(x), and their shape."""
        made = x if f is None else f(x)
        dims = made.dim() - 2
        window = _per_dim("window", self.window, dims)
        stride = _per_dim("stride", self.stride, dims)
        if any(w > size for w, size in zip(window, made.shape[2:], strict=True)):
            raise ValueError(
                f"expected window not to be larger than the grid {tuple(made.shape[2:])} "
                f"that {name} gives, got {window}"
            )
        cut = made
        for dim, (w, step) in enumerate(zip(window, stride, strict=True), start=2):
            cut = cut.unfold(dim, w, step)
        cut = cut.movedim(1, 1 + dims)  # (B, *patches, C', *window)
        return cut.flatten(1, dims).flatten(2), (made.shape[1], *window)

    def extra_repr(self) -> str:
        """The arguments that are not functions, and the functions that are not modules."""
        functions = {name: getattr(self, name) for name in ("f_Q", "f_K", "f_V", "g_V")}
        functions |= {"norm": self.norm, "fuse": self.fuse}
        shown = [
            f"{name}={getattr(function, '__name__', function)}"
            for name, function in functions.items()
            if function is not None and not isinstance(function, nn.Module)
        ]
        shown += [f"window={self.window}", f"stride={self.stride}"]
        return ", ".join([*shown, f"scale={self.scale}", f"flatten={self.flatten}"])


def stacked(x: Tensor | Sequence[Tensor]) -> Tensor:
    """A collection as one tensor ``(B, L, *shape)``."""
    if isinstance(x, Tensor):
        if x.dim() < 3:
            raise ValueError(f"expected x to have shape (B, L, *shape), got {tuple(x.shape)}")
    else:
        if not len(x):
            raise ValueError("expected x to hold at least one tensor, got an empty collection")
        for i, one in enumerate(x):
            if not isinstance(one, Tensor):
                raise TypeError(f"expected x[{i}] to be a tensor, got {type(one).__name__}")
            if one.shape != x[0].shape or one.dim() < 2:
                raise ValueError(
                    f"expected x[{i}] to have the shape (B, *shape) of x[0], {tuple(x[0].shape)}, "
                    f"got {tuple(one.shape)}"
                )
        x = torch.stack(tuple(x), dim=1)
    if x.shape[1] == 0:
        raise ValueError(f"expected x to hold at least one input, got L=0 in {tuple(x.shape)}")
    return x


def _collection(name: str, f: Transform | None, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The transformed inputs ``(B, L, d)``, and their shape."""
    made = x.flatten(0, 1) if f is None else f(x.flatten(0, 1))
    if made.dim() < 2 or len(made) != x.shape[0] * x.shape[1]:
        raise ValueError(
            f"expected {name} to map a batch of B * L = {x.shape[0] * x.shape[1]} inputs to as "
            f"many, got shape {tuple(made.shape)}"
        )
    return made.reshape(*x.shape[:2], made.shape[1:].numel()), tuple(made.shape[1:])


def _steps(name: str, value: int | Sequence[int]) -> int | tuple[int, ...]:
    """An int for all spatial dims, or one int for each; their number is not known yet."""
    if is_int(value):
        check_positive(**{name: value})
        return int(value)
    return positive_ints(name, value, "an int or a sequence of ints")


def _per_dim(name: str, value: int | tuple[int, ...] | None, dims: int) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value or 1,) * dims
    if len(values) != dims:
        raise ValueError(
            f"expected {name} to be an int or one int per spatial dim, {dims}, got {values}"
        )
    return values
