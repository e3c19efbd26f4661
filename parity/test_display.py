"""Pictures: those of the package are those of the rule that Julia's SparseArrays draws by."""

import pytest

import circulant_attention as ca
from parity import reference
from parity.cases import Grid, grids
from parity.convention import circulant_to_torch, spatial_to_torch

pytestmark = pytest.mark.usefixtures("device")

# What Julia has room for on a terminal of 23 lines and 80 columns: lines, and cells of a line.
HEIGHT, WIDTH = 19, 40


def pictures(a: ca.Circulant) -> list[list[str]]:
    """Take the pictures out of what ``str`` gives, each between its top and its bottom bracket."""
    found = []
    for line in str(a).splitlines():
        if line.startswith("⎡"):
            found.append([])
        if line[:1] in ("⎡", "⎢", "⎣"):
            found[-1].append(line)
    return found


def drawn_by_both(grid: Grid) -> tuple[list[list[str]], list[str]]:
    """Give the package's pictures of two matrices, and the reference's picture of such a one."""
    expected = reference.ones(grid.window, (*grid.spatial_size, 1, 2))
    return pictures(circulant_to_torch(expected)), reference.braille_picture(
        expected, HEIGHT, WIDTH
    )


@grids
def test_small_arrays_are_drawn_dot_by_dot(grid):
    ours, expected = drawn_by_both(grid)
    assert ours == [expected, expected]


@pytest.mark.parametrize(
    "grid",
    [
        Grid((76,), 9),
        Grid((77,), 9),
        Grid((101,), 5),
        Grid((300,), 7),
        Grid((31, 17), 5),
        Grid((7, 5, 6), 3),
    ],
    ids=str,
)
def test_large_arrays_are_shrunk(grid):
    ours, expected = drawn_by_both(grid)
    assert len(expected) == HEIGHT or grid.spatial_size == (76,)
    assert ours == [expected, expected]


def test_what_is_said_above_the_picture(device):
    a = ca.Circulant(3, (2, 1, *spatial_to_torch((6, 9))), device=device)
    header = str(a).splitlines()[0]
    for fact in ("Circulant", "float32", "kernel-length 3", "(9, 6)", "(2, 1, 54, 54)"):
        assert fact in header
    assert f"{2 * 54 * 9} stored entries" in header
