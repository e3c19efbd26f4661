"""The pictures: what is drawn where, on which axes, and the card of notebooks."""

from __future__ import annotations

import re
import sys

import matplotlib
import numpy as np
import pytest
import torch
from inputs import matrix
from torch.testing import assert_close

from circulant_attention import Circulant, circulant_mh_attention
from circulant_attention.geometry import Geometry
from circulant_attention.matrix import plotting

matplotlib.use("Agg")
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def _drawn(ax):
    """The numbers of the picture, NaN where it is blank."""
    return torch.from_numpy(ax.images[-1].get_array().filled(torch.nan))


@pytest.mark.parametrize(("size", "window"), [((9,), 3), ((4, 5), 3), ((3, 4, 3), (1, 3, 3))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_spy_draws_the_magnitudes_of_the_stored_entries(size, window, dtype, device):
    A = matrix(size, window, device, dtype=dtype).requires_grad_()
    ax = A.spy(head=2, batch=1)
    # The pattern, with entries other than zero.
    stored = A.with_values(torch.ones_like(A.values)).to_dense()[1, 2] != 0
    expected = A.detach().to_dense()[1, 2].abs().float().where(stored, torch.nan)
    assert_close(_drawn(ax), expected.cpu(), rtol=0, atol=0, equal_nan=True)
    n = A.shape[-1]
    assert ax.images[-1].get_extent() == [-0.5, n - 0.5, n - 0.5, -0.5]
    assert ax.get_title() == "A[1, 2]"


def test_spy_draws_zeros_that_are_stored(device):
    A = 0 * Circulant(3, (1, 1, 8), device=device)
    assert int((_drawn(A.spy()) == 0).sum()) == 24


def test_spy_of_a_large_matrix_keeps_the_largest_of_each_cell(device, monkeypatch):
    A = matrix((6, 5), 3, device, batch=1, heads=1, dtype=torch.float32)
    magnitudes = A.to_dense()[0, 0].abs().cpu()
    monkeypatch.setattr(plotting, "_CELLS", 10)
    monkeypatch.setattr(plotting, "_CHUNK", 40)
    blocks = magnitudes.reshape(10, 3, 10, 3).amax((1, 3))
    expected = blocks.where(blocks > 0, torch.nan)
    assert_close(_drawn(A.spy()), expected, rtol=0, atol=0, equal_nan=True)


def _large(kind, device):
    """A matrix of 40 x 30 pixels, its entries computed or not, and a computed copy."""
    q, k = torch.randn(2, 1, 4, 40, 30, device=device)
    A = circulant_mh_attention(q, k, k, (5, 3), 2)[1]
    A = A.mT if kind == "transposed" else A
    twin = circulant_mh_attention(q, k, k, (5, 3), 2)[1]
    twin = twin.with_values(twin.values)
    twin = twin.with_values(twin.mT.values) if kind == "transposed" else twin
    if kind == "computed":
        A.values  # noqa: B018
    return A, twin


def _of_cells(entries, stored, side):
    """The picture of ``side`` cells each way: the largest entry, NaN where none is stored."""
    cell = [torch.arange(n) * side // n for n in entries.shape]
    flat = (cell[0][:, None] * side + cell[1]).flatten()
    values = entries.abs().where(stored, -1).flatten()
    largest = torch.full((side**2,), -1.0).scatter_reduce(0, flat, values, "amax")
    return largest.where(largest >= 0, torch.nan).reshape(side, side)


@pytest.mark.parametrize("kind", ["computed", "lazy", "transposed"])
def test_spy_of_many_entries_is_exact_or_reads_some_rows(kind, device, monkeypatch):
    A, twin = _large(kind, device)
    stored = twin.with_values(torch.ones_like(twin.values)).to_dense()[0, 1].cpu() > 0
    entries = twin.to_dense()[0, 1].cpu()
    drawn = _drawn(A.spy(head=1))
    assert kind == "computed" or A._source._values is None
    assert_close(drawn, _of_cells(entries, stored, 512), rtol=1e-5, atol=0, equal_nan=True)

    monkeypatch.setattr(plotting, "_CELLS", 100)
    monkeypatch.setattr(plotting, "_CHUNK", 40)
    monkeypatch.setattr(plotting, "_ENTRIES", 1200 * 15 - 1)
    ax = A.spy(head=1)
    assert kind == "computed" or A._source._values is None
    assert ax.get_title() == "A[0, 1], 100 of 1200 rows (gray: not read)"
    # Row 12 r + 6 stands for the rows 12 r to 12 r + 11; below, all cells with an entry are gray.
    below, drawn = (torch.from_numpy(x.get_array().filled(torch.nan)) for x in ax.images)
    read = _of_cells(entries[6::12], stored[6::12], 100)
    assert_close(drawn, read, rtol=1e-5, atol=0, equal_nan=True)
    assert torch.equal(below.isnan(), _of_cells(entries, stored, 100).isnan())
    assert 0 < int(drawn.isfinite().sum()) < int(below.isfinite().sum())


def test_pictures_of_a_large_grid_form_nothing_of_its_size(device, monkeypatch):
    monkeypatch.setattr(Geometry, "col_indices", None)
    q = torch.randn(1, 2, 1024, 1024, device=device)
    A = circulant_mh_attention(q, q, q, (35, 1), 1)[1]
    for draw in (A.spy, lambda: A.window_image((1000, 3)), lambda: A.window_image(77)):
        draw()
        assert A._source._values is None
    T = Circulant(torch.ones(1, 1, 1, device=device).expand(1, 1, 1024**2 * 35**2), 35, (1024,) * 2)
    drawn = _drawn(T.spy())
    # Cell (r, c) stands for two rows of the grid: 17 rows and the wrap fill nine cells each way.
    apart = (torch.arange(512)[:, None] - torch.arange(512)).remainder(512)
    near = (apart <= 9) | (apart >= 503)
    assert bool((drawn[near & (apart != 9)] == 1).all())
    assert bool(drawn[~near].isnan().all())


@pytest.mark.parametrize("kind", ["lazy", "transposed"])
def test_window_image_of_a_lazy_matrix_computes_its_row(kind, device):
    A, twin = _large(kind, device)
    drawn = _drawn(A.window_image((39, 0), head=1))
    assert A._source._values is None
    expected = _drawn(twin.window_image((39, 0), head=1))
    assert_close(drawn, expected, rtol=1e-5, atol=0, equal_nan=True)
    assert int((~drawn.isnan()).sum()) == 15


def test_an_error_leaves_no_figure(device):
    q, k = torch.randn(2, 1, 2, 30, 30, device=device)
    A = circulant_mh_attention(q, k, k, 3, 1)[1]
    for draw in (lambda: A.spy(1), lambda: A.window_image(900), lambda: A.window_image(0, 1)):
        with pytest.raises(ValueError, match="expected"):
            draw()
    k.add_(1)
    for draw in (A.spy, lambda: A.window_image(3)):
        with pytest.raises(RuntimeError, match="changed in place"):
            draw()
    assert not pyplot.get_fignums()


def test_numpy_ints_and_a_default_device(device):
    A = matrix((6, 5), 3, device)
    expected = _drawn(A.spy(1, 1)), _drawn(A.window_image(7, 1, 1))
    with torch.device("meta"):
        one = np.int64(1)
        images = A.spy(one, one), A.window_image(np.unravel_index(7, (6, 5)), one, one)
        drawn = [_drawn(ax) for ax in images]
        assert_close(_drawn(A.window_image(np.int32(7), 1, 1)), drawn[1], equal_nan=True)
    assert_close(drawn, list(expected), rtol=0, atol=0, equal_nan=True)
    assert images[0].get_title() == "A[1, 1]"
    assert (
        images[1].get_title() == A.window_image(7, 1, 1).get_title() == "A[1, 1], row of pixel 1, 2"
    )
    with pytest.raises(
        ValueError, match=re.escape("expected pixel in a grid of size (6, 5), got (6, 0)")
    ):
        A.window_image((np.int64(6), np.int64(0)))


@pytest.mark.parametrize("pixel", [(0, 4), (2, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_window_image_is_a_row_on_its_grid(pixel, dtype, device):
    A = matrix((5, 6), (3, 5), device, dtype=dtype).requires_grad_()
    ax = A.window_image(pixel, head=1, batch=1)
    row = A.detach().to_dense()[1, 1, pixel[0] * 6 + pixel[1]].reshape(5, 6).cpu()
    near = torch.zeros(5, 6, dtype=torch.bool)
    for down in (-1, 0, 1):
        for right in (-2, -1, 0, 1, 2):
            near[(pixel[0] + down) % 5, (pixel[1] + right) % 6] = True
    expected = (row.abs() if dtype.is_complex else row).where(near, torch.nan)
    assert_close(_drawn(ax), expected, rtol=0, atol=0, equal_nan=True)
    (mark,) = ax.lines
    assert mark.get_xydata().tolist() == [[pixel[1], pixel[0]]]


def test_window_image_of_a_signal_has_a_bar_per_pixel(device):
    A = matrix((7,), 3, device, dtype=torch.float32)
    ax = A.window_image(0)
    heights = torch.tensor([bar.get_height() for bar in ax.patches])
    assert torch.equal(heights, A.to_dense()[0, 0, 0].cpu())


def test_window_image_of_a_volume_shows_the_slice_of_the_pixel(device):
    A = matrix((4, 5, 3), 3, device, dtype=torch.float32)
    drawn = _drawn(A.window_image((3, 0, 1)))
    row = A.to_dense()[0, 0, 3 * 15 + 1].reshape(4, 5, 3)[3].cpu()
    assert torch.equal(drawn.nan_to_num(), row)


def test_pictures_are_drawn_on_given_axes(device):
    A = matrix((4, 5), 3, device)
    _, (left, right) = pyplot.subplots(1, 2)
    assert A.spy(ax=left) is left
    assert A.window_image(3, ax=right) is right
    assert len(left.images) == len(right.images) == 1
    assert len(pyplot.get_fignums()) == 1


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"need matplotlib.*pip install 'circulant-attention\[pl"):
        Circulant(3, (1, 1, 4, 5)).spy()
    assert "Circulant" in Circulant(3, (1, 1, 4, 5))._repr_html_()


def test_card(device):
    A = matrix((4, 5), (3, 1), device).requires_grad_()
    card = A._repr_html_()
    for fact in ("(2, 3, 20, 20)", "float64", "(4, 5)", "(3, 1)", "360 (3 of 20 in a row)", "True"):
        assert f">{fact}</td>" in card
    assert str(A).splitlines()[2] in card
    assert len(card) < 4096
    # Well-formed: every tag is closed, and no other markup came in.
    from xml.etree import ElementTree

    tags = {element.tag for element in ElementTree.fromstring(card).iter()}
    assert tags == {"div", "b", "table", "tr", "th", "td", "details", "summary", "pre"}


def test_card_of_an_empty_batch(device):
    assert "0 (3 of 8 in a row)" in Circulant(3, (0, 1, 8), device=device)._repr_html_()
