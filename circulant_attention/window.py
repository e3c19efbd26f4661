"""What a pixel sees along each dim: offsets before and after it, dilated, on a circle or a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from circulant_attention.checks import MAX_SPATIAL_DIMS, is_int, is_sequence

BOUNDARIES = ("circular", "truncated")
"""The boundaries by name; their numbers are those of the native ops."""

_MOST = 2**30
"""The largest size, reach and dilation that the native ops take."""


class WindowDim(NamedTuple):
    """A window along one dim: offsets ``-before .. after``, ``dilation`` apart."""

    before: int
    after: int
    dilation: int
    circular: bool

    @property
    def length(self) -> int:
        """The number of offsets."""
        return self.before + self.after + 1

    @property
    def span(self) -> int:
        """The pixels from the first to the last that a pixel sees."""
        return self.dilation * (self.before + self.after) + 1

    def mirrored(self) -> WindowDim:
        """The window of the transposed matrix."""
        return self._replace(before=self.after, after=self.before)


@dataclass(frozen=True)
class Window:
    r"""Which pixels a pixel sees: per spatial dim a size, a dilation and a boundary.

    Pixel i sees the pixels

    .. math:: j = i + \text{dilation} \cdot o, \quad o = -\text{before}, \dots, \text{after}.

    In a circular dim j is taken modulo the size of the grid. In a truncated dim a pixel outside of
    the grid is absent: it is not in the matrix, and its weight in a softmax is zero. A Window goes
    wherever a function takes ``W``; an int w stands for ``Window(w)``, with w odd.

    Args:
        size: One entry for all spatial dims, or a sequence with one entry per dim. An entry is a
            number of pixels, or a pair ``(before, after)`` of numbers of pixels beside the pixel
            itself. An odd size w stands for w // 2 before and as many after, an even one for
            w / 2 before and w / 2 - 1 after, as in NATTEN. A pair for a single dim is
            ``((before, after),)``.
        dilation: The distance between pixels that are seen, one for all dims or one per dim.
        boundary: ``"circular"`` or ``"truncated"``, one for all dims or one per dim.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If a size or a dilation is below 1, a number of a pair is negative, one of them
            is above 2**30, a boundary is unknown, or a sequence has no entry, more than 3, or
            another number than the others.

    Example:
        >>> causal = Window(((2, 0),), boundary="truncated")
        >>> Circulant(causal, (1, 1, 5)).to_dense()[0, 0].int().tolist()
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
        >>> around_the_globe = Window(5, boundary=("truncated", "circular"))
    """

    size: int | tuple[int | tuple[int, int], ...]
    dilation: int | tuple[int, ...]
    boundary: str | tuple[str, ...]

    def __init__(
        self,
        size: int | Sequence[int | tuple[int, int]],
        *,
        dilation: int | Sequence[int] = 1,
        boundary: str | Sequence[str] = "circular",
    ) -> None:
        checked = {
            "size": _per_dim("size", size, _checked_size),
            "dilation": _per_dim("dilation", dilation, _checked_dilation),
            "boundary": _per_dim("boundary", boundary, _checked_boundary),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        lengths = {name: len(value) for name, value in checked.items() if isinstance(value, tuple)}
        if len({*lengths.values()}) > 1:
            shown = ", ".join(f"{name} of {length}" for name, length in lengths.items())
            raise ValueError(f"expected a window with one entry per spatial dim, got {shown}")

    def __repr__(self) -> str:
        text = f"Window({self.size}"
        if self.dilation != 1:
            text += f", dilation={self.dilation}"
        if self.boundary != "circular":
            text += f", boundary={self.boundary!r}"
        return text + ")"

    def __reduce__(self) -> tuple[Any, ...]:
        return window_of_attributes, (self.size, self.dilation, self.boundary)


def dims_of(window: Window, count: int) -> tuple[WindowDim, ...]:
    """The window along each of ``count`` spatial dims.

    Raises:
        ValueError: If the window is given for another number of dims.
    """
    parts: list[Any] = []
    for name in ("size", "dilation", "boundary"):
        value = getattr(window, name)
        if isinstance(value, tuple) and len(value) != count:
            raise ValueError(
                f"window W must have one {name} per spatial dim: expected {count}, got {len(value)}"
            )
        parts.append(value if isinstance(value, tuple) else (value,) * count)
    return tuple(_dim(*dim) for dim in zip(*parts, strict=True))


def window_of_attributes(size: Any, dilation: Any, boundary: Any) -> Window:
    """A Window from its attributes, for files."""
    return Window(size, dilation=dilation, boundary=boundary)


def window_of_dims(dims: Sequence[WindowDim]) -> Window:
    """The Window with these dims, in its shortest form."""
    sizes: tuple[Any, ...] = tuple(
        dim.length if dim.before - dim.after in (0, 1) else (dim.before, dim.after) for dim in dims
    )
    return Window(
        sizes[0] if len({*sizes}) == 1 and is_int(sizes[0]) else sizes,
        dilation=_shortest([dim.dilation for dim in dims], sizes),
        boundary=_shortest([BOUNDARIES[not dim.circular] for dim in dims], sizes),
    )


def _shortest(values: list[Any], sizes: tuple[Any, ...]) -> Any:
    """One value for all dims if there is one; dims of one pixel take any."""
    wide = {value for value, size in zip(values, sizes, strict=True) if size != 1}
    return wide.pop() if len(wide) == 1 else tuple(values) if wide else values[0]


def _dim(size: int | tuple[int, int], dilation: int, boundary: str) -> WindowDim:
    before, after = (size // 2, (size - 1) // 2) if isinstance(size, int) else size
    if before + after == 0:
        # One pixel: any dilation and boundary give the same pattern.
        return WindowDim(0, 0, 1, True)
    return WindowDim(before, after, dilation, boundary == "circular")


def _per_dim(name: str, value: Any, checked: Any) -> Any:
    """The value for all dims, or a tuple with one per dim, checked."""
    if is_sequence(value):
        if not 1 <= len(value) <= MAX_SPATIAL_DIMS:
            raise ValueError(
                f"expected {name} of a window to have 1 to {MAX_SPATIAL_DIMS} entries, one per "
                f"spatial dim, got {value!r}"
            )
        return tuple(checked(name, one, value) for one in value)
    return checked(name, value, value)


def _checked_size(name: str, one: object, given: object) -> int | tuple[int, int]:
    if one is not given and is_sequence(one):
        if len(one) != 2 or not all(is_int(reach) for reach in one):
            raise TypeError(f"expected a pair of ints (before, after) in {name}, got {one!r}")
        before, after = int(one[0]), int(one[1])
        if before < 0 or after < 0:
            raise ValueError(
                f"expected reaches (before, after) of at least 0 in {name}, since a window holds "
                f"the pixel itself, got {one!r}"
            )
        if max(before, after) > _MOST:
            raise ValueError(f"expected reaches of at most 2**30 in {name}, got {one!r}")
        return before, after
    if not is_int(one):
        raise TypeError(
            f"expected {name} of a window to be an int or one int or pair (before, after) per "
            f"spatial dim, got {given!r}"
        )
    if not 1 <= one <= _MOST:
        raise ValueError(f"expected {name} of a window from 1 to 2**30, got {given!r}")
    return int(one)


def _checked_dilation(name: str, one: object, given: object) -> int:
    if not is_int(one):
        raise TypeError(
            f"expected {name} of a window to be an int or one int per spatial dim, got {given!r}"
        )
    if not 1 <= one <= _MOST:
        raise ValueError(f"expected {name} of a window from 1 to 2**30, got {given!r}")
    return int(one)


def _checked_boundary(name: str, one: object, given: object) -> str:
    if not isinstance(one, str):
        raise TypeError(
            f"expected {name} of a window to be a string or one per spatial dim, got {given!r}"
        )
    if one not in BOUNDARIES:
        raise ValueError(
            f"expected {name} of a window to be 'circular' or 'truncated', got {given!r}"
        )
    return str(one)
