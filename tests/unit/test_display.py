"""How a Circulant is shown: the line of facts, and the picture (see parity/test_display.py)."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from random import Random

import numpy as np
import pytest
import reference
import torch
from inputs import matrix
from torch._subclasses.fake_tensor import FakeTensorMode

from circulant_attention import Circulant, DotSimilarity, circulant_adjacency
from circulant_attention import geometry as geometry_module
from circulant_attention.geometry import Geometry, make_geometry
from circulant_attention.matrix import pattern
from circulant_attention.matrix.display import braille, picture


def test_summary(device):
    A = Circulant(3, (2, 3, 5, 4), device=device)
    where = A.device
    assert repr(A) == (
        "Circulant(float32, kernel-length 3, spatial-size (5, 4), shape (2, 3, 20, 20), "
        f"1080 stored entries, {where})"
    )
    B = matrix((5, 4, 3), (3, 1, 3), device, dtype=torch.complex128).requires_grad_()
    assert repr(B) == (
        "Circulant(complex128, kernel-length (3, 1, 3), spatial-size (5, 4, 3), "
        f"shape (2, 3, 60, 60), 3240 stored entries, {where}, requires_grad=True)"
    )


def test_picture_by_hand(device):
    # Eight pixels in a circle, each with its two neighbours: two lines of four cells. Line one:
    #   x x . . . . . x
    #   x x x . . . . .
    #   . x x x . . . .
    #   . . x x x . . .
    A = Circulant(3, (1, 1, 8), device=device)
    assert str(A).splitlines()[1:] == ["[0, 0, :, :] =", "⎡⠻⣦⡀⠈⎤", "⎣⡀⠈⠻⣦⎦"]
    # Five rows are spread over the eight dots of two lines, at dots 1, 3 (2.75), 4 (4.5), 6, 8.
    B = Circulant(1, (1, 1, 5), device=device)
    assert str(B).splitlines()[2:] == ["⎡⠡⡀⠀⎤", "⎣⠀⠐⡀⎦"]
    assert str(Circulant(1, (1, 1, 1), device=device)).splitlines()[2:] == ["⎡⠁⠀⎤", "⎣⠀⠀⎦"]
    # 101 columns on 76 dots: the third one falls between the dots 2 and 3 and goes to the even one,
    # so that row 1, which reaches no further, leaves dot 3 out.
    drawn = str(Circulant(5, (1, 1, 101), device=device)).splitlines()[2:]
    assert len(drawn) == 19
    assert drawn[0][1:3] == "⢻⣶"


@pytest.mark.parametrize(("lines", "cells"), [(19, 10), (4, 40), (2, 2), (1, 1)])
def test_no_picture_is_larger_than_its_room(lines, cells):
    drawn = braille(make_geometry(5, (300,)), max_height=lines, max_width=cells).splitlines()
    # Both brackets need two lines and two cells.
    assert len(drawn) <= max(lines, 2)
    assert {len(line) for line in drawn} == {len(drawn[0])}
    assert len(drawn[0]) <= max(cells, 2) + 2


# Dots of a cell by (row, column), as the Unicode block "Braille Patterns" numbers its bits.
BITS = {(0, 0): 0, (1, 0): 1, (2, 0): 2, (0, 1): 3, (1, 1): 4, (2, 1): 5, (3, 0): 6, (3, 1): 7}


def _drawn(size, window, lines, cells):
    """The picture by its definition, entry by entry, numbered from one as in Julia."""
    near = reference.mask(size, window)
    n = len(near)
    dots = n
    if n > 4 * lines or n > 2 * cells:
        dots = int(min(2 * cells / n, 4 * lines / n) * n)
    height, width = max(dots, 8), max(dots, 4)
    rows = [[0x2800] * -(-width // 2) for _ in range(-(-height // 4))]
    for i, j in (near.nonzero() + 1).tolist():
        # Python's round goes to the even neighbour of a tie, as Julia's does.
        row = round((i - 1) * (max(height - 1, 1) / max(n - 1, 1)) + 1) - 1
        column = round((j - 1) * (max(width - 1, 1) / max(n - 1, 1)) + 1) - 1
        rows[row // 4][column // 2] |= 1 << BITS[row % 4, column % 2]
    brackets = ["⎡⎤", *["⎢⎥"] * (len(rows) - 2), "⎣⎦"]
    return [b[0] + "".join(map(chr, row)) + b[1] for b, row in zip(brackets, rows, strict=True)]


def test_pictures_of_many_grids_are_those_of_the_definition():
    random = Random(7)
    for _ in range(150):
        dims = random.choice([1, 2, 3])
        size = tuple(random.randint(1, [140, 13, 6][dims - 1]) for _ in range(dims))
        window = tuple(random.randrange(1, n + 1, 2) for n in size)
        lines, cells = random.randint(2, 10), random.randint(2, 20)
        drawn = braille(make_geometry(window, size), max_height=lines, max_width=cells)
        assert drawn.splitlines() == _drawn(size, window, lines, cells), (size, window)


def test_intervals_meet_where_an_entry_is_stored():
    random = Random(8)
    for _ in range(60):
        dims = random.choice([1, 2, 3])
        size = tuple(random.randint(1, [40, 8, 4][dims - 1]) for _ in range(dims))
        window = tuple(random.randrange(1, n + 1, 2) for n in size)
        near = reference.mask(size, window)
        n = len(near)
        # Every seventh pair of ends is the wrong way round: an empty interval.
        ends = [sorted(random.choices(range(n), k=2), reverse=i % 7 == 0) for i in range(24)]
        first, last = np.array(ends).T
        met = pattern.meet(
            make_geometry(window, size), (first[:, None], last[:, None]), (first, last)
        )
        expected = [[bool(near[a : b + 1, c : d + 1].any()) for c, d in ends] for a, b in ends]
        assert met.tolist() == expected, (size, window)


def test_pictures_of_a_large_grid_form_nothing_of_its_size(monkeypatch, device):
    entries = torch.empty(1, 1, 1, device=device).expand(1, 1, 1024**2 * 35**2)
    A = Circulant(entries, 35, (1024, 1024))
    monkeypatch.setattr(Geometry, "col_indices", None)
    tracemalloc.start()
    text, card = str(A), A._repr_html_()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A tensor or an array with a number per pixel has at least 1 MiB.
    assert peak < 1024**2
    assert text.splitlines()[2] in card
    # 76 dots of 13797 pixels, 13.5 rows of the grid, but half of that for the first; 17 rows reach
    # from the first dot to the third, from every other one two dots on and back.
    assert text.splitlines()[2].startswith("⎡⢿⣷⣄⠀")


def test_pictures_under_a_default_device_and_in_fake_mode(monkeypatch):
    A = Circulant(3, (1, 2, 30))
    expected = str(A), A._repr_html_()
    with torch.device("meta"):
        assert (str(A), A._repr_html_()) == expected
    monkeypatch.setattr(geometry_module, "_pattern", None)
    with FakeTensorMode():
        assert (str(A), A._repr_html_()) == expected
        fake = Circulant(3, (1, 2, 30))
        assert (str(fake), fake._repr_html_()) == expected


def test_printing_inside_export_leaves_no_trace(device):
    printed = []

    class Printing(torch.nn.Module):
        def forward(self, x):
            A = circulant_adjacency(DotSimilarity(), x, x, 3)
            printed.append(str(A))
            return A @ x

    torch.export.export(Printing(), (torch.randn(1, 2, 31, device=device),), strict=False)
    A = Circulant(3, (1, 1, 31), device=device)
    assert printed[0].partition("\n")[2] == str(A).partition("\n")[2]
    assert type(A.col_indices()) is torch.Tensor


def test_picture_of_the_readme_of_the_julia_package():
    # Its array has the sizes (128, 96), the first dim fastest; here the last dim is.
    stored = Path(__file__).parents[2] / "parity" / "data" / "readme_display.txt"
    drawn = braille(make_geometry(15, (96, 128)), max_height=19, max_width=40)
    assert drawn.splitlines() == stored.read_text(encoding="utf-8").splitlines()
    other = braille(make_geometry(15, (128, 96)), max_height=19, max_width=40)
    assert not set(other.splitlines()) & set(drawn.splitlines())


@pytest.mark.parametrize(("batch", "heads"), [*itertools.product([1, 3], [1, 2]), (2, 2), (0, 2)])
def test_an_ellipsis_stands_for_more_than_three_slices(batch, heads, device):
    A = Circulant(3, (batch, heads, 8), device=device)
    first, *lines = str(A).splitlines()
    assert first == repr(A)
    assert f"{A}" == str(A)
    slices = list(itertools.product(range(batch), range(heads)))
    headers = [line for line in lines if line.startswith("[")]
    assert headers == [f"[{b}, {h}, :, :] =" for b, h in slices[:3]]
    assert len({tuple(lines[3 * i + 1 : 3 * i + 3]) for i in range(len(headers))}) <= 1
    assert str(A).endswith("⋮") == (len(slices) > 3)
    assert picture(A, max_slices=9).count("=\n") == len(slices)
