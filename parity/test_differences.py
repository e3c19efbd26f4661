"""Where the package is meant to differ from CirculantAttention.jl 1.0.1, one test per difference.

The table of `parity/README.md` names each of them.
"""

import numpy as np
import pytest
import torch

import circulant_attention as ca
from parity import reference
from parity.cases import REFERENCE_SIMFUN, SIMFUN, Grid, images, normal, random_circulant
from parity.compare import assert_circulant, assert_image
from parity.convention import circulant_to_torch, spatial_to_torch, to_torch, window_to_torch
from parity.reference import cotangents
from parity.test_attention import expected_attention
from parity.tolerance import of_product, of_similarity, of_sum

pytestmark = pytest.mark.usefixtures("device")

GRID = Grid((5, 8), 3)


def tensors(names: str, channels: int = 4, batch: int = 2, sizes=(8, 5)) -> list[torch.Tensor]:
    """Give one random float64 tensor per letter."""
    return [to_torch(normal((*sizes[::-1], channels, batch), np.float64, n)) for n in names]


# Defects of the Julia package that are mended here.


def test_multi_head_attention_keeps_its_similarity():
    # There the similarity is dropped, and the dot product always taken.
    q, k, v = images(GRID, 6, 2, np.float64, "qkv")
    settings = GRID.window, 3
    distance = REFERENCE_SIMFUN["distance"]
    y, bound, *_ = expected_attention(distance, q, k, v, *settings, np.float64)
    tensors_of_them = map(to_torch, (q, k, v))
    ours, _ = ca.circulant_mh_attention(SIMFUN["distance"], *tensors_of_them, *settings)
    assert_image(ours, y, bound)
    of_dot, _ = reference.circulant_mh_attention(REFERENCE_SIMFUN["dot"], q, k, v, *settings)
    assert np.max(np.abs(of_dot - y)) > 0.1


def test_multi_head_attention_without_a_similarity_works():
    # There this form calls a method that does not exist.
    q, k, v = tensors("qkv", channels=6)
    y, a = ca.circulant_mh_attention(q, k, v, GRID.window, 3)
    expected, with_dot = ca.circulant_mh_attention(ca.DotSimilarity(), q, k, v, GRID.window, 3)
    assert torch.equal(y, expected) and a == with_dot


@pytest.mark.parametrize("simfun", SIMFUN.values(), ids=repr)
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_similarity_has_the_precision_of_its_arguments(simfun, dtype):
    # There every similarity is one of Float32.
    x, y = tensors("xy")
    assert ca.circulant_similarity(simfun, x.to(dtype), y.to(dtype), 3).dtype == dtype
    if dtype in (torch.float32, torch.float64):
        complex_dtype = dtype.to_complex()
        both = ca.circulant_similarity(simfun, x.to(complex_dtype), y.to(complex_dtype), 3)
        assert both.dtype == dtype


def test_a_window_that_outgrows_the_grid_is_refused(device):
    # There its rows hold columns twice.
    columns = [reference.cartesian_circulant(entry, (3,), 5)[0] for entry in range(1, 6)]
    assert len(set(columns)) < len(columns)
    with pytest.raises(ValueError, match=r"W .*larger than the grid.* 5 .*size 3"):
        ca.Circulant(5, (1, 1, 8, 3), device=device)


def test_an_even_window_is_refused(device):
    # There an assertion fails where the pattern is made.
    for window in (4, 0, -3, (3, 2)):
        with pytest.raises(ValueError, match="W must be odd and positive"):
            ca.Circulant(window, (1, 1, 8, 5), device=device)


def test_heads_that_do_not_divide_the_channels_are_refused(device):
    # There nothing looks at it: a reshape fails, or the channels of several images are mixed.
    q, k, v = tensors("qkv", channels=6, batch=4)
    a = ca.Circulant(3, (4, 4, 8, 5), dtype=torch.float64, device=device)
    for call in (
        lambda: ca.circulant_mh_attention(q, k, v, 3, 4),
        lambda: ca.circulant_mh_adjacency(ca.DotSimilarity(), q, k, 3, 4),
        lambda: a @ ca.mh @ v,
    ):
        with pytest.raises(ValueError, match=r"divisible by (nheads|A.shape\[1\])=4, got 6"):
            call()


def test_sizes_that_do_not_match_are_refused():
    # There an assertion fails, or the answer is wrong. tests/unit/test_errors.py has every case.
    (x,), (batch_of_four,) = tensors("x"), tensors("y", batch=4)
    (other_grid,), (other_channels,) = tensors("y", sizes=(5, 8)), tensors("y", channels=3)
    for bad, match in (
        (batch_of_four, r"batch size.* 2, got 4"),
        (other_grid, r"spatial size.*\(8, 5\), got .*\(.*5, 8\)"),
        (other_channels, r"channels.* 4, got 3"),
    ):
        with pytest.raises(ValueError, match=match):
            ca.circulant_similarity(ca.DotSimilarity(), x, bad, 3)


def test_sparse_data_of_another_pattern_is_refused(device):
    # There any sparse array is taken at its word.
    data = ca.Circulant(3, (1, 1, 4, 9), device=device).data
    assert ca.Circulant(data, 3, (4, 9)).shape == (1, 1, 36, 36)
    for window, spatial_size in ((3, (9, 4)), (3, (6, 6)), ((1, 9), (4, 9)), (9, (36,))):
        with pytest.raises(ValueError, match="pattern is not the circulant one"):
            ca.Circulant(data, window, spatial_size)


def test_cotangents_of_complex_arrays_are_conjugated():
    # There the rules of scale and attention leave the conjugates out, which real arrays do not
    # notice; and the cotangent of a complex array is real. Of scale: test_rules.py.
    a = random_circulant(GRID, 1, 2, np.complex128)
    x, dy = images(GRID, 4, 2, np.complex128, "xy")
    values, image = (to_torch(t).requires_grad_() for t in (a.nzVal, x))
    for apply, expected, rule in (
        (ca.circulant_attention, reference.circulant_attention, cotangents.attention),
        (
            ca.circulant_transposed_attention,
            reference.circulant_transposed_attention,
            cotangents.transposed_attention,
        ),
    ):
        ours = ca.Circulant(values, GRID.window, spatial_to_torch(GRID.spatial_size))
        y = apply(ours, image)
        assert_image(y, expected(a, x), of_product(expected, a, x, np.complex128))
        d_values, d_image = torch.autograd.grad(y, (values, image), to_torch(dy))
        da, dx = rule(a, x, dy)
        of_da, of_dx = rule(a.like(abs(a.nzVal)), abs(x), abs(dy))
        assert_image(d_values, da.nzVal, of_sum(4, of_da.nzVal, np.complex128))
        assert_image(d_image, dx, of_sum(a.per_row, of_dx, np.complex128))


def test_distance_is_negative():
    # The Julia documentation prints its formula without the minus sign that the code has.
    x, y = tensors("xy")
    s = ca.circulant_similarity(ca.DistanceSimilarity(), x, y, 3)
    assert s.values.max() < 0
    same = ca.circulant_similarity(ca.DistanceSimilarity(), x, x, 3).to_dense()
    # No pixel is closer to another one than to itself.
    assert (same.diagonal(dim1=-2, dim2=-1) == 0).all()


# What the Julia package has not.

EXTENDED = {
    "3-d": ((4, 3, 6), 3),
    "3-d-windows": ((4, 3, 6), (3, 1, 5)),
    "2-d-windows": ((5, 8), (3, 7)),
    "2-d-one-wide": ((5, 8), (5, 1)),
}


def check_extended(spatial_size, window, device):
    """Compare the whole of attention on a grid or a window that the Julia package has not."""
    q, k, v = (normal((*spatial_size, 4, 2), np.complex128, name) for name in "qkv")
    ours_window = window_to_torch(window)
    size = (2, 2, *spatial_to_torch(spatial_size))
    pattern = ca.Circulant(ours_window, size, device=device)
    assert_circulant(pattern, reference.ones(window, (*spatial_size, 2, 2)), 0)
    for name, simfun in SIMFUN.items():
        theirs = REFERENCE_SIMFUN[name]
        s = ca.circulant_similarity(simfun, to_torch(q), to_torch(k), ours_window)
        bound = of_similarity(theirs, q, k, window, np.complex128)
        assert_circulant(s, reference.circulant_similarity(theirs, q, k, window), bound)
        y, y_bound, a, a_bound = expected_attention(theirs, q, k, v, window, 2, np.complex128)
        found = ca.circulant_mh_attention(simfun, *map(to_torch, (q, k, v)), ours_window, 2)
        assert_image(found[0], y, y_bound)
        assert_circulant(found[1], a, a_bound)
        apply = reference.circulant_mh_transposed_attention
        transposed = ca.circulant_mh_transposed_attention(circulant_to_torch(a), to_torch(v))
        assert_image(transposed, apply(a, v), of_product(apply, a, v, np.complex128))
    return pattern


def test_three_spatial_dims(device):
    pattern = check_extended(*EXTENDED["3-d"], device)
    assert ca.spatial_dims(pattern) == 3 and ca.kernel_length(pattern) == 3


@pytest.mark.parametrize("case", [name for name in EXTENDED if name != "3-d"])
def test_a_window_per_dim(case, device):
    spatial_size, window = EXTENDED[case]
    pattern = check_extended(spatial_size, window, device)
    # The window is told per dim, in the order of the tensor's dims.
    assert ca.kernel_length(pattern) == pattern.window == window[::-1]
    same = ca.Circulant((3,) * len(window), (1, 1, *spatial_to_torch(spatial_size)))
    assert ca.kernel_length(same) == 3


def test_runs_on_a_cpu():
    # There everything is a CUDA array.
    q, k, v = (x.cpu() for x in tensors("qkv"))
    y, a = ca.circulant_attention(q, k, v, 3)
    assert y.device.type == a.device.type == "cpu"


def test_values_may_have_other_channels():
    # There the output is reshaped to the size of q.
    q, k = images(GRID, 4, 2, np.float64, "qk")
    v = normal((*GRID.spatial_size, 6, 2), np.float64, "v")
    for nheads in (1, 2):
        y, bound, *_ = expected_attention(
            reference.DotSimilarity(), q, k, v, GRID.window, nheads, np.float64
        )
        ours, _ = ca.circulant_mh_attention(*map(to_torch, (q, k, v)), GRID.window, nheads)
        assert ours.shape[1] == 6
        assert_image(ours, y, bound)


def test_arguments_of_two_dtypes_are_promoted():
    # There x and y need one element type, and so do A and B.
    x, y = tensors("xy")
    s = ca.circulant_similarity(ca.DotSimilarity(), x.float(), y, 3)
    assert s.dtype == torch.float64
    assert s == ca.circulant_similarity(ca.DotSimilarity(), x.float().double(), y, 3)
    assert (s + s.float()).dtype == torch.float64
    assert (s.float() @ y).dtype == torch.float64


def test_sums_and_differences_spread_over_heads_and_batch():
    # There A + B asks for equal sizes.
    a, b = (random_circulant(GRID, *n, np.float64) for n in ((2, 3), (1, 1)))
    ours_a, ours_b = circulant_to_torch(a), circulant_to_torch(b)
    spread = reference.repeat(b, 1, 1, 2, 3)
    for ours, expected in (
        (ours_a + ours_b, reference.add(a, spread)),
        (ours_b - ours_a, reference.subtract(spread, a)),
    ):
        assert_circulant(ours, expected, of_sum(1, abs(expected.nzVal), np.float64))


def test_second_derivatives_and_forward_mode():
    # There are rules for reverse mode only, and no test goes beyond first derivatives.
    q, k, v = (t.requires_grad_() for t in tensors("qkv", channels=2, batch=1, sizes=(3, 4)))

    def f(q, k, v):
        return ca.circulant_mh_attention(ca.DistanceSimilarity(), q, k, v, 3, 2)[0]

    assert torch.autograd.gradcheck(f, (q, k, v), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (q, k, v), fast_mode=True)


def test_functions_that_julia_does_not_export_are_public():
    names = {
        "circulant_attention_",
        "circulant_mh_transposed_attention",
        "circulant_transposed_attention",
        "circulant_transposed_attention_",
        "kernel_length",
        "scale",
        "spatial_dims",
        "spatial_size",
    }
    assert names <= set(ca.__all__)


# What Python or torch would have otherwise.


def test_dims_are_reversed():
    # The same bytes: (H, W, C, B) there is (B, C, W, H) here, and the sizes of heads and batch
    # come before rows and columns.
    x = normal((5, 8, 4, 2), np.float32)
    a = ca.circulant(3, to_torch(x))
    assert to_torch(x).shape == (2, 4, 8, 5)
    assert a.shape == reference.circulant(3, x).size[::-1] == (2, 1, 40, 40)
    assert ca.spatial_size(a) == (8, 5)


def test_always_four_dims():
    # There reshape(A, :, :, :) makes an array of three dims; A[:, :, h, b] is a plain matrix.
    a = random_circulant(GRID, 2, 3, np.float64)
    ours, n = circulant_to_torch(a), a.pixels
    flat = reference.reshape(a, 6)
    assert flat.size == (n, n, 6)
    expected = a.like(flat.nzVal[:, None])
    assert_circulant(ours.reshape(6, 1, n, n), expected, 0)
    assert_circulant(ours.reshape(-1, n, n), expected, 0)
    assert ours[2, 1].shape == (1, 1, n, n)
    for result in (ours, ours[0], ours.sum(0), ours.sum((0, 1)), ours.mT):
        assert result.ndim == 4
    with pytest.raises(ValueError, match="rows and columns stay"):
        ours.reshape(3, 2, n * n)


def test_sums_follow_keepdim_for_rows_and_columns_only():
    # There every sum keeps its dims.
    a = random_circulant(GRID, 2, 3, np.float64)
    ours, n = circulant_to_torch(a), a.pixels
    for dim, dropped, kept in (
        (-1, (3, 2, n), (3, 2, n, 1)),
        (-2, (3, 2, n), (3, 2, 1, n)),
        ((-2, -1), (3, 2), (3, 2, 1, 1)),
    ):
        assert ours.sum(dim).shape == dropped
        assert ours.sum(dim, keepdim=True).shape == kept
    for dim, shape in ((0, (1, 2, n, n)), (1, (3, 1, n, n)), ((0, 1), (1, 1, n, n))):
        assert ours.sum(dim).shape == ours.sum(dim, keepdim=True).shape == shape
    for dim in ((0, 2), (1, 3), 4, (0, 1, 2, 3)):
        with pytest.raises(ValueError, match="expected dim"):
            ours.sum(dim)


def test_index_arrays_are_shared(device):
    # There every head and batch has its own copy.
    data = ca.Circulant(3, (3, 2, 8, 5), device=device).data
    for index in (data.crow_indices(), data.col_indices()):
        assert index.shape[:2] == (3, 2) and index.stride()[:2] == (0, 0)


def test_operators_are_spelled_in_ascii():
    # Python has no ⊗ and no ⨷ that could be defined: @ and @ mh @ stand for them.
    x, _ = tensors("xy")
    a = ca.circulant_mh_adjacency(ca.DotSimilarity(), x, x, 3, 2)
    with pytest.raises(SyntaxError):
        compile("a ⊗ x", "", "eval")
    assert torch.equal(a @ ca.mh @ x, ca.circulant_mh_attention(a, x))
    one_head = a[:, 0]
    assert torch.equal(one_head @ x, ca.circulant_attention(one_head, x))


def test_pictures_number_their_slices_as_torch_does(device):
    # There a slice is [:, :, head, batch], from one.
    shown = str(ca.Circulant(3, (2, 1, 8, 5), device=device)).splitlines()
    assert [line for line in shown if line.startswith("[")] == ["[0, 0, :, :] =", "[1, 0, :, :] ="]
