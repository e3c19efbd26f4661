"""Non-local means against the formula in NumPy, tiles, wrapping, memory and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from peak_memory import PeakMemory
from torch import Tensor
from torch.testing import assert_close

from circulant_attention.denoising import (
    attention_window,
    bytes_per_pixel,
    nonlocal_means,
    patches,
    tile_size,
    tiling,
)
from circulant_attention.ops.windows import CIRCULAR, TRUNCATED, VALID

SIGMA = 0.3
WINDOW = 5
PATCH = 3

each_boundary = pytest.mark.parametrize(
    "boundary", ["circular", "truncated", ("truncated", "circular")], ids=["wraps", "ends", "globe"]
)


def random_image(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    return torch.rand(shape, dtype=dtype, device=device)


Boundary = str | tuple[str, str]


def per_dim(boundary: Boundary) -> tuple[str, str]:
    return (boundary, boundary) if isinstance(boundary, str) else boundary


def inside(positions: np.ndarray, size: int, boundary: Boundary) -> np.ndarray:
    """The pixels at positions that may lie beyond the borders: a circle, or mirrored at them."""
    if boundary == "circular":
        return positions % size
    mirrored = np.pad(np.arange(size), 50, mode="reflect") if size > 1 else np.zeros(101, int)
    return mirrored[positions + 50]


def smoothed(image: np.ndarray, boundary: Boundary = "circular") -> np.ndarray:
    """``(C, H, W)``, every pixel by its definition."""
    taps = {-1: 3 / 16, 0: 5 / 8, 1: 3 / 16}
    rows, columns = (np.arange(size) for size in image.shape[1:])
    ends = per_dim(boundary)

    def moved(down: int, right: int) -> np.ndarray:
        below = inside(rows + down, len(rows), ends[0])
        beside = inside(columns + right, len(columns), ends[1])
        return image[:, below[:, None], beside]

    return sum(a * b * moved(down, right) for down, a in taps.items() for right, b in taps.items())


def window_weights(
    smooth: np.ndarray,
    row: int,
    column: int,
    window: int,
    patch: int,
    h: float,
    boundary: Boundary = "circular",
) -> np.ndarray:
    """The weights of one pixel as ``(window, window)``, by their definition."""
    channels, height, width = smooth.shape
    ends = per_dim(boundary)
    reach = np.arange(patch) - patch // 2
    spread = (patch - 1) / 4 or 1
    gaussian = np.exp(-(reach[:, None] ** 2 + reach[None] ** 2) / (2 * spread**2))
    gaussian /= gaussian.sum()

    def patch_at(row: int, column: int) -> np.ndarray:
        rows = inside(row + reach, height, ends[0])
        columns = inside(column + reach, width, ends[1])
        return smooth[:, rows[:, None], columns[None]]

    weights = np.zeros((window, window))
    for down in range(window):
        for right in range(window):
            at = row + down - window // 2, column + right - window // 2
            there = (0 <= n < size for n, size in zip(at, (height, width), strict=True))
            if any(end == "truncated" and not n for end, n in zip(ends, there, strict=True)):
                continue
            other = patch_at(at[0] % height, at[1] % width)
            difference = np.abs(patch_at(row, column) - other) ** 2
            weights[down, right] = np.exp(-(gaussian * difference).sum() / channels / h**2)
    return weights / weights.sum()


def denoised(
    image: np.ndarray, window: int, patch: int, h: float, boundary: Boundary = "circular"
) -> np.ndarray:
    """``(C, H, W)`` by the definition."""
    height, width = image.shape[1:]
    smooth = smoothed(image, boundary)
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            weights = window_weights(smooth, row, column, window, patch, h, boundary)
            rows = (row + np.arange(window) - window // 2) % height
            columns = (column + np.arange(window) - window // 2) % width
            block = image[:, rows[:, None], columns[None]]
            result[:, row, column] = (weights * block).sum((1, 2))
    return result


def rounding(image: Tensor, window: int, patch: int, h: float) -> float:
    """By how much two correct computations may differ.

    A score is half a sum of C P^2 squared differences of features. Features are at most
    ``sqrt(2) |x| / h`` long; a smoothed and scaled pixel has some 16 roundings, each of which moves
    a difference by eps times that length. So a score is off by ``(16 * 2 + C P^2) eps |f|^2`` at
    most, a weight by twice that, relatively, and the mean over the window adds a rounding per
    pixel, in the softmax and in the sum. Both computations err: twice.
    """
    eps = torch.finfo(image.dtype).eps
    length = 2 * float(image.abs().max()) ** 2 / h**2
    terms = image.shape[-3] * patch**2
    weight = math.expm1(2 * (32 + terms) * eps * length) + (2 * window**2 + 8) * eps
    return 2 * weight * float(image.abs().max())


@each_boundary
@pytest.mark.parametrize(
    ("shape", "window", "patch", "dtype"),
    [
        ((1, 1, 9, 11), 5, 3, torch.float64),
        ((2, 3, 7, 6), 3, 5, torch.float64),
        ((1, 2, 7, 7), 7, 1, torch.float64),
        ((1, 2, 6, 8), 5, 3, torch.complex128),
        ((1, 1, 9, 8), 5, 3, torch.float32),
    ],
    ids=["grey", "colour-batch", "window-of-the-image", "complex", "float32"],
)
def test_equals_the_formula(
    shape: tuple[int, ...],
    window: int,
    patch: int,
    dtype: torch.dtype,
    boundary: Boundary,
    device: str,
) -> None:
    image = random_image(*shape, dtype=dtype, device=device)
    options = {"window": window, "patch": patch, "bandwidth": 1.3, "boundary": boundary}
    result = nonlocal_means(image, SIGMA, **options)
    assert result.dtype == dtype
    exact = image.to(torch.complex128 if image.is_complex() else torch.float64).cpu().numpy()
    expected = np.stack([denoised(one, window, patch, 1.3 * SIGMA, boundary) for one in exact])
    bound = rounding(image, window, patch, 1.3 * SIGMA)
    assert_close(
        result.cpu().to(torch.from_numpy(expected).dtype),
        torch.from_numpy(expected),
        rtol=0,
        atol=bound,
    )


def test_an_image_without_a_batch(device: str) -> None:
    image = random_image(2, 8, 9, device=device)
    result = nonlocal_means(image, SIGMA, window=WINDOW, patch=PATCH, tile=4)
    expected = nonlocal_means(image[None], SIGMA, window=WINDOW, patch=PATCH, tile=4)[0]
    assert torch.equal(result, expected)


@each_boundary
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("size", "window", "patch", "tile"),
    # 13 and 17 divide by no tile; halos wrap on every side.
    [((13, 17), WINDOW, PATCH, tile) for tile in (1, 4, 7, (3, 20), (13, 5), (9, 12), 13, 1000)]
    + [((9, 14), 9, 9, (4, 3))],
    ids=str,
)
def test_tiles_give_what_the_whole_image_gives(size, window, patch, tile, dtype, boundary, device):
    image = random_image(1, 2, *size, dtype=dtype, device=device)
    options = {"window": window, "patch": patch, "boundary": boundary}
    whole = nonlocal_means(image, SIGMA, **options)
    tiled = nonlocal_means(image, SIGMA, tile=tile, **options)
    assert_close(tiled, whole, rtol=0, atol=rounding(image, window, patch, 0.7 * SIGMA))


def test_halos_are_computed_at_truncated_borders_only() -> None:
    """Other tiles are valid problems, of their own pixels."""
    for boundary, at_borders in ((CIRCULAR, VALID), (TRUNCATED, TRUNCATED)):
        tiles = tiling.spans(31, 8, 3, boundary)
        assert [tile.boundary for tile in tiles] == [at_borders, VALID, VALID, at_borders]
        for tile in tiles:
            queries = range(tile.stop - tile.start)[tile.queries]
            assert queries[tile.crop] == range(tile.stop - tile.start)[tile.inner]
            if tile.boundary == VALID:
                assert len(queries) == 8 or tile is tiles[-1]
                assert tile.stop - tile.start == len(queries) + 6


def test_borders_wrap(device: str) -> None:
    image = random_image(1, 1, 10, 12, device=device)
    shift = {"shifts": (4, -5), "dims": (2, 3)}
    options = {"window": WINDOW, "patch": PATCH}
    moved = nonlocal_means(image.roll(**shift), SIGMA, **options)
    expected = nonlocal_means(image, SIGMA, **options).roll(**shift)
    assert_close(moved, expected, rtol=0, atol=rounding(image, WINDOW, PATCH, 0.7 * SIGMA))


def test_truncated_images_commute_with_mirrors_and_are_local(device: str) -> None:
    image = random_image(1, 1, 10, 12, device=device)
    options = {"window": WINDOW, "patch": PATCH, "boundary": "truncated"}
    bound = rounding(image, WINDOW, PATCH, 0.7 * SIGMA)
    result = nonlocal_means(image, SIGMA, **options)
    for dims in [(2,), (3,)]:
        mirrored = nonlocal_means(image.flip(dims), SIGMA, **options)
        assert_close(mirrored, result.flip(dims), rtol=0, atol=bound)
    other = image.clone()
    # Two pixels of the window, one of the patch, one of the smoothing.
    other[..., 5:] = 0
    changed = nonlocal_means(other, SIGMA, **options)
    assert torch.equal(changed[..., :1], result[..., :1])
    assert not torch.equal(
        nonlocal_means(other, SIGMA, **options, tile=3)[..., 4:], result[..., 4:]
    )


@each_boundary
def test_attention_window_equals_the_formula(boundary: Boundary, device: str) -> None:
    image = random_image(2, 2, 7, 9, device=device)
    bound = rounding(image, WINDOW, PATCH, 0.7 * SIGMA)
    h = 0.7 * SIGMA
    options = {"patch": PATCH, "boundary": boundary}
    for pixel in [(0, 0), (3, 4), (6, 8), (1, 7)]:
        weights = attention_window(image, SIGMA, pixel, window=WINDOW, **options)
        assert weights.shape == (2, WINDOW, WINDOW)
        for one, of_one in zip(image.cpu().numpy(), weights.cpu(), strict=True):
            smooth = smoothed(one, boundary)
            expected = window_weights(smooth, *pixel, WINDOW, PATCH, h, boundary)
            assert_close(of_one, torch.from_numpy(expected), rtol=0, atol=bound)
    # A window of the whole image keeps the pixel in its middle.
    square = image[0, :, :, :7]
    weights = attention_window(square, SIGMA, (1, 5), window=7, **options)
    smooth = smoothed(square.cpu().numpy(), boundary)
    expected = window_weights(smooth, 1, 5, 7, PATCH, h, boundary)
    assert_close(weights.cpu(), torch.from_numpy(expected), rtol=0, atol=bound)


def test_patches_are_neighbours_in_order(device: str) -> None:
    image = random_image(2, 3, 5, 6, device=device)
    result = patches(image, 3).reshape(2, 3, 3, 3, 5, 6)
    for down in range(3):
        for right in range(3):
            for row in range(5):
                for column in range(6):
                    neighbour = image[:, :, (row + down - 1) % 5, (column + right - 1) % 6]
                    assert torch.equal(result[:, :, down, right, row, column], neighbour)


def test_no_noise_changes_nothing(device: str) -> None:
    image = random_image(1, 8, 8, device=device)
    result = nonlocal_means(image, 0, window=WINDOW, patch=PATCH)
    assert torch.equal(result, image)
    assert result.data_ptr() != image.data_ptr()


@pytest.mark.parametrize(
    "sigma",
    [np.float32(0.25), np.float64(0.25), torch.tensor(0.25), torch.tensor(0.25).double()],
    ids=["float32", "float64", "tensor", "double-tensor"],
)
def test_sigma_of_every_type(sigma: object, device: str) -> None:
    image = random_image(2, 1, 8, 9, device=device)
    bound = rounding(image, WINDOW, PATCH, 0.7 * 0.25)
    for function in (
        lambda sigma: nonlocal_means(image, sigma, window=WINDOW, patch=PATCH),
        lambda sigma: attention_window(image, sigma, (1, 8), window=WINDOW, patch=PATCH),
    ):
        assert_close(function(sigma), function(0.25), rtol=0, atol=bound)


def test_sigma_per_image(device: str) -> None:
    image = random_image(3, 2, 8, 9, device=device)
    sigmas = torch.tensor([0.2, 0.0, 0.4], dtype=torch.float64, device=device)
    result = nonlocal_means(image, sigmas, window=WINDOW, patch=PATCH, tile=5)
    for one, denoised, sigma in zip(image, result, sigmas.tolist(), strict=True):
        expected = nonlocal_means(one, sigma, window=WINDOW, patch=PATCH)
        assert_close(denoised, expected, rtol=0, atol=rounding(image, WINDOW, PATCH, 0.7 * 0.2))
    assert torch.equal(result[1], image[1])
    weights = attention_window(image[::2], sigmas[::2], (4, 4), window=WINDOW, patch=PATCH)
    expected = attention_window(image[2], 0.4, (4, 4), window=WINDOW, patch=PATCH)
    assert_close(weights[1], expected, rtol=0, atol=rounding(image, WINDOW, PATCH, 0.7 * 0.2))


@pytest.mark.parametrize("tile", [None, (4, 3)], ids=["whole", "tiled"])
def test_gradients_of_sigma(tile: tuple[int, int] | None, device: str) -> None:
    image = random_image(2, 1, 5, 6, device=device)
    sigma = torch.tensor([0.2, 0.4], dtype=torch.float64, device=device, requires_grad=True)

    def function(sigma: Tensor) -> Tensor:
        return nonlocal_means(image, sigma, window=3, patch=3, tile=tile)

    assert torch.autograd.gradcheck(function, (sigma,), fast_mode=True)
    zero = torch.zeros(2, dtype=torch.float64, device=device, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(zero).sum(), zero)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_compiles_for_any_size_and_sigma() -> None:
    def function(image: Tensor, sigma: float | Tensor) -> Tensor:
        tile = tile_size(image, window=3, patch=3)
        return nonlocal_means(image, sigma, window=3, patch=3, tile=tile)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in [(1, 1, 6, 5), (2, 2, 7, 8)]:
        image = random_image(*shape)
        for sigma in (0.2, 0.3, torch.tensor(0.4)):
            expected = function(image, sigma)
            bound = rounding(image, 3, 3, 0.7 * 0.2)
            assert_close(compiled(image, sigma), expected, rtol=0, atol=bound)


def test_a_batch_of_nothing() -> None:
    image = torch.empty(0, 1, 9, 10)
    assert tile_size(image, window=3) == (9, 10)
    assert bytes_per_pixel(image, window=3) == 0
    assert nonlocal_means(image, 0.1, window=3, patch=3, tile=4).shape == image.shape


def test_progress_counts_every_tile(device: str) -> None:
    calls: list[tuple[int, int]] = []
    image = random_image(1, 1, 10, 12, device=device)
    nonlocal_means(
        image, SIGMA, window=3, patch=3, tile=(4, 6), progress=lambda *call: calls.append(call)
    )
    assert calls == [(done, 6) for done in range(1, 7)]


@each_boundary
@pytest.mark.parametrize("tile", [None, (4, 3)], ids=["whole", "tiled"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients(
    tile: tuple[int, int] | None, dtype: torch.dtype, boundary: Boundary, device: str
) -> None:
    image = random_image(1, 1, 5, 6, dtype=dtype, device=device).requires_grad_()

    def function(image: Tensor) -> Tensor:
        return nonlocal_means(image, SIGMA, window=3, patch=3, tile=tile, boundary=boundary)

    assert torch.autograd.gradcheck(function, (image,), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (image,), fast_mode=True)


@pytest.mark.parametrize("tile", [None, (4, 3)], ids=["whole", "tiled"])
def test_transforms(tile: tuple[int, int] | None, device: str) -> None:
    image = random_image(2, 1, 7, 6, device=device)

    def loss(image: Tensor) -> Tensor:
        return nonlocal_means(image, SIGMA, window=3, patch=3, tile=tile).square().sum()

    leaf = image.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    # Sums of 9 products in another order; the derivative of a weight has factors of up to 1 / h^2.
    assert_close(torch.func.grad(loss)(image), expected, rtol=1e-10, atol=1e-10)
    each = torch.func.vmap(torch.func.grad(loss))(image)
    assert_close(each, expected, rtol=1e-10, atol=1e-10)


def test_the_backward_pass_keeps_patches_or_nothing() -> None:
    image = random_image(1, 1, 32, 32).requires_grad_()

    def kept(tile: int | None) -> int:
        sizes = {}

        def pack(x: Tensor) -> Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            result = nonlocal_means(image, SIGMA, window=WINDOW, patch=PATCH, tile=tile)
        assert result.requires_grad
        return sum(sizes.values())

    features = 32 * 32 * PATCH**2 * 8
    assert features <= kept(None) < 2 * features  # and no weights, of WINDOW**2 per pixel
    assert kept(8) < features / 5


@pytest.mark.parametrize("memory", [1 << 20, 1 << 24, 1 << 29, 1 << 40])
@pytest.mark.parametrize(
    ("shape", "window"),
    [((1, 512, 512), 21), ((3, 3000, 4000), 21), ((1, 40, 5000), 9), ((2, 1, 31, 33), 31)],
    ids=["camera", "12-megapixel", "strip", "wide-window"],
)
def test_tile_size_keeps_to_the_memory(shape: tuple[int, ...], window: int, memory: int) -> None:
    image = torch.empty(1, dtype=torch.float32).expand(shape)
    rows, columns = tile_size(image, window=window, memory=memory)
    height, width = shape[-2:]
    assert 1 <= rows <= height
    assert 1 <= columns <= width

    def taken(rows: int, columns: int) -> int:
        down = height if rows == height else rows + window - 1
        across = width if columns == width else columns + window - 1
        return down * across * bytes_per_pixel(image, window=window)

    assert taken(rows, columns) <= memory or (rows, columns) == (1, 1)
    assert taken(1, 1) <= memory or (rows, columns) == (1, 1)
    if taken(height, width) <= memory:
        assert (rows, columns) == (height, width)


def test_best_tile_costs_least() -> None:
    size, halo = (9, 14), 2

    def cost(rows: int, columns: int) -> int:
        """Computed pixels, if every block were as large as the first."""
        blocks = math.ceil(size[0] / rows) * math.ceil(size[1] / columns)
        return blocks * block(rows, columns)

    def block(rows: int, columns: int) -> int:
        down = size[0] if rows == size[0] else rows + 2 * halo
        return down * (size[1] if columns == size[1] else columns + 2 * halo)

    for room in range(25, 130):
        fitting = [
            cost(rows, columns)
            for rows in range(1, size[0] + 1)
            for columns in range(1, size[1] + 1)
            if block(rows, columns) <= room
        ]
        best = tiling.best_tile(size, halo, room)
        assert block(*best) <= room
        assert cost(*best) == min(fitting)


def test_memory_is_bounded(device: str) -> None:
    image = random_image(1, 512, 512, dtype=torch.float32, device=device)
    memory = 1 << 22
    tile = tile_size(image, window=9, patch=7, memory=memory)
    with PeakMemory() as counted:
        nonlocal_means(image, 0.1, window=9, patch=7, tile=tile)
    # A tile, and the results of tiles and strips and their concatenation. The patches of the whole
    # image take 49 MiB.
    assert counted.peak < memory + 4 * image.nbytes


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image": [1.0]}, TypeError, "expected image to be a tensor, got list"),
        (
            {"image": torch.ones(1, 9, 9, dtype=torch.uint8)},
            TypeError,
            "got torch.uint8.*divide by",
        ),
        ({"image": torch.ones(9, 9)}, ValueError, r"expected image of shape .*, got \(9, 9\)"),
        ({"image": torch.ones(1, 9, 0)}, ValueError, "channels and pixels"),
        ({"sigma": -0.1}, ValueError, "expected sigma to be zero or more, got -0.1"),
        ({"sigma": math.nan}, ValueError, "expected sigma to be zero or more, got nan"),
        ({"sigma": "0.1"}, TypeError, "expected sigma to be a number, got str"),
        ({"sigma": True}, TypeError, "expected sigma to be a number, got bool"),
        ({"sigma": np.float32(math.inf)}, ValueError, "expected sigma to be zero or more, got inf"),
        ({"sigma": torch.tensor(-0.5)}, ValueError, "expected sigma to be zero or more, got -0.5"),
        ({"sigma": torch.tensor(1j)}, TypeError, "expected sigma to be real, got torch.complex64"),
        ({"sigma": torch.ones(1)}, ValueError, r"expected sigma of shape \(\), got \(1,\)"),
        (
            {"sigma": torch.ones(3), "image": torch.ones(2, 1, 9, 9)},
            ValueError,
            r"expected sigma of shape \(\) or \(B,\) = \(2,\), got \(3,\)",
        ),
        ({"window": 4}, ValueError, "expected window to be odd and positive, got 4"),
        ({"window": -1}, ValueError, "expected window to be odd and positive, got -1"),
        ({"window": 11}, ValueError, "window not larger than the image of 9 x 10 pixels, got 11"),
        ({"window": 3.0}, TypeError, "expected window to be an int, got float"),
        ({"patch": 2}, ValueError, "expected patch to be odd and positive, got 2"),
        ({"patch": 11}, ValueError, "patch not larger than the image of 9 x 10 pixels, got 11"),
        ({"bandwidth": 0}, ValueError, "expected bandwidth to be positive, got 0"),
        ({"boundary": "0"}, ValueError, "boundary to be 'circular' or 'truncated', .* got '0'"),
        ({"boundary": ["circular"]}, ValueError, r"or two of them, got \['circular'\]"),
        ({"boundary": 3 * ("circular",)}, ValueError, r"or two of them, got \('circular', 'circ"),
        ({"boundary": True}, TypeError, "expected boundary to be a string or two, got True"),
        ({"tile": 0}, ValueError, "expected tile to be positive, got 0"),
        ({"tile": (1, 2, 3)}, TypeError, "expected tile to be an int, two ints or None"),
    ],
)
def test_bad_input(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"image": torch.ones(1, 9, 10), "sigma": 0.1, "window": 3, "patch": 3} | options
    with pytest.raises(error, match=message):
        nonlocal_means(**arguments)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("patches(image[0], 3)", ValueError, r"shape \(B, C, H, W\), got \(1, 9, 10\)"),
        ("patches(image, 2)", ValueError, "expected patch to be odd"),
        ("weights((9, 0))", ValueError, r"pixel in the image of 9 x 10 pixels, got \(9, 0\)"),
        ("weights((0, -1))", ValueError, r"pixel in the image of 9 x 10 pixels, got \(0, -1\)"),
        ("weights(5)", TypeError, r"expected pixel to be two ints, \(row, column\), got 5"),
        ("weights((1.0, 2))", TypeError, r"pixel to be two ints, \(row, column\), got \(1.0, 2\)"),
        ("weights((1, 2, 3))", ValueError, r"expected pixel to be two ints, .*, got \(1, 2, 3\)"),
        ("weights(())", ValueError, r"expected pixel to be two ints, .*, got \(\)"),
        ("weights((0, 0), 0)", ValueError, "expected sigma to be positive, got 0"),
        ("tile_size(image, window=3, memory=0)", ValueError, "memory to be positive, got 0"),
        ("tile_size(image, window=3, memory=1e9)", TypeError, "memory to be an int, got float"),
        ("bytes_per_pixel(image, window=4)", ValueError, "expected window to be odd"),
        ("bytes_per_pixel(1.0)", TypeError, "expected image to be a tensor, got float"),
    ],
)
def test_bad_input_of_the_others(call: str, error: type[Exception], message: str) -> None:
    image = torch.ones(1, 1, 9, 10)

    def weights(pixel: object, sigma: float = 0.1) -> Tensor:
        return attention_window(image, sigma, pixel, window=3)

    with pytest.raises(error, match=message):
        eval(call, {**globals(), "image": image, "weights": weights})
