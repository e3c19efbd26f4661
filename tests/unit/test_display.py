"""How a Circulant is shown: the line of facts, and the picture (see parity/test_display.py)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from inputs import matrix

from circulant_attention import Circulant
from circulant_attention.geometry import make_geometry
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


def test_summary_of_entries_that_were_not_computed_yet(device):
    A = matrix((5, 4), 3, device)
    assert repr(A.mT) == repr(A)
    assert A.mT.pending_transpose() is A.values


def test_picture_by_hand(device):
    # Eight pixels in a circle, each with its two neighbours: two lines of four cells. Line one:
    #   x x . . . . . x
    #   x x x . . . . .
    #   . x x x . . . .
    #   . . x x x . . .
    A = Circulant(3, (1, 1, 8), device=device)
    assert str(A).splitlines()[1:] == ["[0, 0, :, :] =", "⎡⠻⣦⡀⠈⎤", "⎣⡀⠈⠻⣦⎦"]


@pytest.mark.parametrize(("lines", "cells"), [(19, 10), (4, 40), (2, 2), (1, 1)])
def test_no_picture_is_larger_than_its_room(lines, cells):
    drawn = braille(make_geometry(5, (300,)), max_height=lines, max_width=cells).splitlines()
    # Both brackets need two lines and two cells.
    assert len(drawn) <= max(lines, 2)
    assert {len(line) for line in drawn} == {len(drawn[0])}
    assert len(drawn[0]) <= max(cells, 2) + 2


def test_picture_of_the_readme_of_the_julia_package():
    # Its array has the sizes (128, 96), the first dim fastest; here the last dim is.
    stored = Path(__file__).parents[2] / "parity" / "data" / "readme_display.txt"
    drawn = braille(make_geometry(15, (96, 128)), max_height=19, max_width=40)
    assert drawn.splitlines() == stored.read_text(encoding="utf-8").splitlines()
    other = braille(make_geometry(15, (128, 96)), max_height=19, max_width=40)
    assert not set(other.splitlines()) & set(drawn.splitlines())


def test_slices_are_counted_by_batch_and_head(device):
    lines = str(Circulant(3, (2, 2, 8), device=device)).splitlines()
    headers = [line for line in lines if line.startswith("[")]
    assert headers == ["[0, 0, :, :] =", "[0, 1, :, :] =", "[1, 0, :, :] ="]
    assert lines[-1] == "⋮"
    pictures = [lines[2 + 3 * number : 4 + 3 * number] for number in range(3)]
    assert pictures[0] == pictures[1] == pictures[2]


@pytest.mark.parametrize(("batch", "heads"), list(itertools.product([1, 3], [1, 2])))
def test_an_ellipsis_stands_for_more_than_three_slices(batch, heads, device):
    A = Circulant(3, (batch, heads, 8), device=device)
    assert str(A).count("=\n") == min(3, batch * heads)
    assert str(A).endswith("⋮") == (batch * heads > 3)
    assert picture(A, max_slices=9).count("=\n") == batch * heads


def test_an_empty_batch_has_a_summary_only(device):
    A = Circulant(3, (0, 2, 8), device=device)
    assert str(A) == repr(A)


def test_first_line_of_the_picture_is_the_summary(device):
    A = matrix((5, 4), 3, device)
    assert str(A).splitlines()[0] == repr(A)
    assert f"{A}" == str(A)
