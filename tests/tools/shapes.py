"""Random problems for the native ops."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def problems(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape ``(G, C, *spatial)`` and a window that fits."""
    dims = draw(st.integers(1, 3))
    largest = {1: 100, 2: 24, 3: 10}[dims]
    size = tuple(draw(st.integers(1, largest)) for _ in range(dims))
    window = tuple(2 * draw(st.integers(0, min(n - 1, 16) // 2)) + 1 for n in size)
    return (draw(st.integers(1, 4)), draw(st.integers(1, 9)), *size), window
