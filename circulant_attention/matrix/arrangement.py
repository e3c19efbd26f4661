"""The stored entries of a Circulant at other places: transposed, repeated, regrouped, chosen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from circulant_attention.matrix import indexing, regrouping
from circulant_attention.matrix.lazy import TransposedValues
from circulant_attention.matrix.tensor_like import Entries

if TYPE_CHECKING:
    from typing_extensions import Self

_SWAPS = [pair for pair in itertools.product((-2, -1, 2, 3), repeat=2) if (pair[0] - pair[1]) % 2]


class Arrangement(Entries):
    """What moves the entries of a Circulant without changing them."""

    @property
    def mT(self) -> Self:
        """The transposed matrices, :math:`(A^T)_{ij} = A_{ji}`.

        They have the same pattern, since the window is symmetric. ``A.mT @ x`` computes the
        transposed map from the entries of ``A`` itself; other uses permute the entries.

        Example:
            >>> A = Circulant(torch.arange(12.0).reshape(1, 1, 12), 3, (4,))
            >>> torch.equal(A.mT.to_dense(), A.to_dense().mT)
            True
        """
        pending = self.pending_transpose()
        return self.with_values(
            TransposedValues(self.values, self.geometry) if pending is None else pending
        )

    def pending_transpose(self) -> torch.Tensor | None:
        """The values that this is the transpose of, if its own were never looked at.

        ``(B, heads, N * K)``, or None: with them, ``A.mT @ x`` runs the transposed map on ``A``.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.pending_transpose() is None, A.mT.pending_transpose() is A.values
            (True, True)
        """
        source = self._source
        if isinstance(source, TransposedValues) and source.pending:
            return source.parent
        return None

    @property
    def mH(self) -> Self:
        """The conjugate transposed matrices; the same as :attr:`mT` if real.

        Example:
            >>> A = 1j * Circulant(3, (1, 1, 6))
            >>> A.mH == -A
            True
        """
        return self.conj().mT

    def adjoint(self) -> Self:
        """The same as :attr:`mH`.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.adjoint() == A.mH
            True
        """
        return self.mH

    def transpose(self, dim0: int, dim1: int) -> Self:
        """Swaps rows and columns, the only dims of which that makes a Circulant.

        Args:
            dim0: -2 (or 2) for rows, or -1 (or 3) for columns.
            dim1: The other of the two.

        Returns:
            The same as :attr:`mT`.

        Raises:
            ValueError: If the dims are others.

        Example:
            >>> A = Circulant(3, (1, 1, 6))
            >>> A.transpose(-2, -1) == A.mT
            True
        """
        if (dim0, dim1) not in _SWAPS:
            raise ValueError(
                f"expected dims -2 and -1 (rows and columns) to be transposed, got {dim0}, {dim1}"
            )
        return self.mT

    def repeat(self, *repeats: int | Sequence[int]) -> Self:
        """Repeats along batch and heads.

        Args:
            *repeats: ``A.repeat(b, h, 1, 1)``, or ``A.repeat(b, h)``; also as one sequence.

        Returns:
            A Circulant of shape ``(b * B, h * heads, N, N)``.

        Raises:
            TypeError: If an argument is not an int.
            ValueError: If rows or columns would repeat, or a number is negative.

        Example:
            >>> Circulant(3, (2, 1, 6)).repeat(1, 4, 1, 1).shape
            torch.Size([2, 4, 6, 6])

        References:
            ``Base.repeat`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return self.with_values(regrouping.repeated(self, regrouping.unpacked(repeats)))

    def reshape(self, *shape: int | Sequence[int]) -> Self:
        """Regroups batch and heads.

        Args:
            *shape: ``A.reshape(B, heads, N, N)``, also as one sequence; one of B and heads may be
                -1. ``A.reshape(-1, N, N)`` is short for ``A.reshape(-1, 1, N, N)``.

        Returns:
            A Circulant with the same entries in the same order.

        Raises:
            TypeError: If an argument is not an int.
            ValueError: If rows or columns would change, or batch times heads would.

        Example:
            >>> Circulant(3, (2, 4, 6)).reshape(8, 1, 6, 6).shape
            torch.Size([8, 1, 6, 6])

        References:
            ``Base.reshape`` in CirculantAttention.jl, ``src/array.jl``.
        """
        return self.with_values(regrouping.regrouped(self, regrouping.unpacked(shape)))

    def __getitem__(self, index: Any) -> Self | torch.Tensor:
        """Batches and heads give a Circulant, rows, columns and entries dense tensors.

        ``A[b, h]``, ``A[1:]``, ``A[:, [0, 2]]`` are Circulants; they keep all four dims, an int
        leaving a dim of size 1. ``A[b, h, i, j]`` is an entry (zero outside the pattern),
        ``A[b, h, i]`` a dense row, ``A[..., j]`` dense columns, with the dims that torch would
        give. Another number of indices or an index out of range raises ``IndexError``, one that is
        neither an int, a slice nor a list of ints ``TypeError``.

        Example:
            >>> A = Circulant(3, (2, 4, 6))
            >>> A[0, 1:3].shape, A[0, 0, 2].tolist()
            (torch.Size([1, 2, 6, 6]), [0.0, 1.0, 1.0, 1.0, 0.0, 0.0])

        References:
            ``Base.getindex`` in CirculantAttention.jl, ``src/array.jl``.
        """
        lead, row, column = indexing.parse(index)
        values = self.with_values(indexing.take_lead(self.values, lead))
        if row == slice(None) and column == slice(None):
            return values
        return indexing.dense_block(values.rows, values.geometry, lead, row, column)
