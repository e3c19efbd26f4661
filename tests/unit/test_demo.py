"""The demo: what it prints and draws, what it reads, and what it refuses with exit status 2."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage import data, io

import circulant_attention
from circulant_attention.demo import options, photograph, picture, selfcheck
from circulant_attention.demo.cli import main
from circulant_attention.demo.problem import Problem
from circulant_attention.demo.progress import Progress

SMALL = ["--window", "5", "--patch", "3"]


def photo(height: int = 24, width: int = 30, channels: int | None = None, dtype=np.uint8):
    """A part of a real photograph, in the dtype."""
    pixels = data.astronaut()[:height, 100 : 100 + width]
    if channels is None:
        pixels = pixels[..., 1]
    elif channels in (2, 4):
        pixels = np.concatenate([pixels[..., : channels - 1], 255 - pixels[..., :1]], -1)
    return pixels if dtype == np.uint8 else pixels.astype(dtype) * np.dtype(dtype).type(257)


@pytest.fixture
def small_photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    io.imsave(path, photo(), check_contrast=False)
    return path


def decibels(text: str) -> dict[str, float]:
    """The printed table of results."""
    rows = re.findall(r"^(noisy|circulant attention|scikit-image) +(-?[\d.]+) dB", text, re.M)
    return {name: float(value) for name, value in rows}


def test_without_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    text, progress = capsys.readouterr()
    results = decibels(text)
    # The noise has the standard deviation 0.1, so its PSNR is 20 dB; over 512 x 512 pixels the
    # standard error of that is 0.012 dB.
    assert abs(results["noisy"] - 20) < 0.06
    assert results["circulant attention"] >= results["scikit-image"] - 0.3
    assert results["circulant attention"] > 29
    assert "512 x 512 pixels" in text
    assert "tiles: 3 of 3" in progress
    (written,) = tmp_path.iterdir()
    assert written.name == "denoised.png"
    drawn = io.imread(written)
    assert drawn.dtype == np.uint8
    assert min(drawn.shape[:2]) > 1000
    assert drawn[..., :3].std() > 30


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the demo as a user does, in a folder that is not the project's."""
    package = Path(circulant_attention.__file__).parent
    return subprocess.run(
        [sys.executable, "-m", "circulant_attention", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_as_a_command(tmp_path: Path, small_photo: Path) -> None:
    finished = run(tmp_path, small_photo.name, *SMALL)
    assert finished.returncode == 0, finished.stderr
    assert "24 x 30 pixels, grey, 8 bit" in finished.stdout
    assert "5 x 5, 25 neighbours a pixel, 18,000 weights" in finished.stdout
    assert (tmp_path / "denoised.png").stat().st_size > 0


def test_refusal_as_a_command(tmp_path: Path) -> None:
    finished = run(tmp_path, "--window", "4")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr == (
        "python -m circulant_attention: error: --window must be odd and positive, got 4\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_devices_denoise_alike(
    small_photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str,
) -> None:
    results = []
    for name in ("cpu", device):
        if name == "emulated":  # which nobody else can ask for
            monkeypatch.setattr(options, "_checked_device", torch.device)
        output = tmp_path / f"on-{name}.png"
        assert main([str(small_photo), *SMALL, "--device", name, "--output", str(output)]) == 0
        text = capsys.readouterr().out
        assert re.search(rf"^device +{name}\b", text, re.M)
        results.append(decibels(text))
        assert io.imread(output)[..., :3].std() > 30
    assert len(results[0]) == 3
    assert results[1] == pytest.approx(results[0], abs=0.011)  # rounded to 0.01


@pytest.mark.parametrize(
    ("channels", "dtype", "name", "described"),
    [
        (None, np.uint8, "grey.png", "grey, 8 bit"),
        (None, np.uint16, "grey.png", "grey, 16 bit"),
        (3, np.uint8, "colour.png", "colour, 8 bit"),
        (3, np.uint8, "colour.jpg", "colour, 8 bit"),
        (3, np.uint16, "colour.tif", "colour, 16 bit"),
        (2, np.uint8, "alpha.png", "grey, 8 bit, transparency left out"),
        (4, np.uint8, "alpha.png", "colour, 8 bit, transparency left out"),
    ],
)
def test_photographs_of_every_kind(
    channels: int | None,
    dtype: type,
    name: str,
    described: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, output = tmp_path / name, tmp_path / "out.png"
    pixels = photo(channels=channels, dtype=dtype)
    io.imsave(path, pixels, check_contrast=False)
    read = photograph.read(str(path))
    if path.suffix != ".jpg":
        range_ = np.iinfo(dtype).max
        colours = pixels[..., None] if pixels.ndim == 2 else pixels
        colours = colours[..., :-1] if channels in (2, 4) else colours
        expected = torch.from_numpy(colours.astype(np.float64) / range_).movedim(-1, 0)
        assert read.pixels.dtype == torch.float32
        # One rounding to float32.
        torch.testing.assert_close(read.pixels.double(), expected, rtol=0, atol=2**-24)
    assert main([str(path), *SMALL, "--output", str(output), "--sigma", "0.05"]) == 0
    assert f"24 x 30 pixels, {described}\n" in capsys.readouterr().out
    assert io.imread(output).ndim == 3


# The channels of each colour type of a PNG that can have 16 bits.
@pytest.mark.parametrize(("kind", "channels"), [(0, None), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bit_is_read_in_full(kind: int, channels: int | None, tmp_path: Path) -> None:
    pixels = photo(channels=channels, dtype=np.uint16)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels[0, :3, 0] = (1, 2, 256)  # which 8 bits cannot tell from 0, 0, 1
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    path = tmp_path / "colour.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    read = photograph.read(str(path))
    assert (read.bits, read.has_alpha) == (16, channels in (2, 4))
    colours = pixels[..., :-1] if channels in (2, 4) else pixels
    expected = torch.from_numpy(colours.astype(np.float64) / 65535).movedim(-1, 0)
    # One rounding to float32.
    torch.testing.assert_close(read.pixels.double(), expected, rtol=0, atol=2**-24)


def test_compressed_tiff(tmp_path: Path) -> None:
    pixels = photo(channels=3, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "colour.tif", pixels, compression="lzw", photometric="rgb")
    read = photograph.read(str(tmp_path / "colour.tif"))
    assert torch.equal((read.pixels * 65535).round().movedim(0, -1), torch.from_numpy(pixels * 1.0))


def test_palettes_and_one_bit(tmp_path: Path) -> None:
    pixels = photo()
    Image.fromarray(pixels > 128).save(tmp_path / "bits.png")
    bits = photograph.read(str(tmp_path / "bits.png"))
    assert (bits.bits, bits.pixels.shape) == (1, (1, 24, 30))
    assert torch.equal(bits.pixels[0] == 1, torch.from_numpy(pixels > 128))
    colours = np.eye(3, dtype=np.uint8)[np.arange(24) % 3][None].repeat(5, 0) * 255
    Image.fromarray(colours).quantize(8).save(tmp_path / "palette.png")
    palette = photograph.read(str(tmp_path / "palette.png"))
    assert torch.equal(palette.pixels, torch.from_numpy(colours / 255.0).float().movedim(-1, 0))


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(photo())
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held upright: its first row is the right-hand side
    image.save(tmp_path / "turned.png", exif=exif)
    read = photograph.read(str(tmp_path / "turned.png"))
    expected = torch.from_numpy(photo() / 255.0).float().rot90(-1)
    assert torch.equal(read.pixels[0], expected)


def _write_text(path: Path) -> None:
    path.write_text("this is no image")


def _write_cut(path: Path) -> None:
    io.imsave(path, photo(100, 100), check_contrast=False)
    path.write_bytes(path.read_bytes()[:500])


def _write_movie(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((2, 9, 8, 3), np.uint8), photometric="rgb")


def _write_float(path: Path) -> None:
    io.imsave(path, np.zeros((9, 8), np.float32), check_contrast=False)


def _write_frames(path: Path) -> None:
    frames = [Image.new("L", (9, 8), level) for level in (0, 255)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _write_inks(path: Path) -> None:
    Image.new("CMYK", (20, 20)).save(path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("missing.png", lambda path: None, "there is no such file"),
        ("folder.png", Path.mkdir, "there is no such file"),
        ("empty.png", Path.touch, "cannot read .* as an image"),
        ("text.png", _write_text, "cannot read .* as an image"),
        ("text.tif", _write_text, "cannot read .* as an image"),
        ("cut.png", _write_cut, "cannot read .* as an image"),
        ("movie.tif", _write_movie, "expected one grey or colour image"),
        ("frames.gif", _write_frames, "expected one image, got several"),
        ("float.tif", _write_float, "expected 8 or 16 bit per channel, got float32"),
        ("inks.jpg", _write_inks, "got CMYK"),
    ],
)
def test_refuses_what_is_no_photograph(
    name: str, write, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    write(path)
    refuse([str(path), "--output", str(tmp_path / "out.png")], message, tmp_path, capsys)


def test_refuses_arrays_without_pixels() -> None:
    with pytest.raises(Problem, match="cannot use nothing: the image is empty"):
        photograph.from_array("nothing", np.zeros((0, 4), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "4"], "--window must be odd and positive, got 4"),
        (["--window", "-3"], "--window must be odd and positive, got -3"),
        (["--window", "0"], "--window must be odd and positive, got 0"),
        (["--window", "three"], "argument --window: invalid int value: 'three'"),
        (
            ["--window", "25"],
            "--window must not be larger than the image of 24 x 30 pixels, got 25",
        ),
        (["--patch", "2"], "--patch must be odd and positive, got 2"),
        (["--patch", "27", "--window", "3"], "--patch must not be larger than the image"),
        (["--sigma", "-0.1"], "--sigma must lie between 1e-06 and 1, .*, got -0.1"),
        (["--sigma", "0"], "--sigma must lie between"),
        (["--sigma", "25"], "--sigma must lie between"),
        (["--sigma", "nan"], "--sigma must lie between"),
        (["--device", "abacus"], "cannot use --device abacus"),
        (["--device", "meta"], "--device must be cpu or cuda, got meta"),
        (["--device", "cuda:99"], "cannot use --device cuda:99"),
        (["--output", "picture"], "--output must end in one of .png"),
        (["--output", "picture.txt"], "--output must end in one of .png"),
        (["--output", "missing/picture.png"], "cannot write missing/picture.png: No such file"),
        (["--output", "photo.png/picture.png"], "cannot write .*: Not a directory"),
        (["--output", "folder.png"], "cannot write folder.png: it is not a file"),
        (["--output", "photo.png"], "--output would be written over the photograph"),
        (["--output", "link.png"], "--output would be written over the photograph"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_refuses_bad_arguments(
    arguments: list[str],
    message: str,
    small_photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(small_photo)
    (tmp_path / "denoised.png").write_text("of an earlier run")
    refuse(["photo.png", *SMALL, *arguments], message, tmp_path, capsys)


def refuse(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checks that one line on stderr says why nothing was done, and that nothing was."""

    def contents() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}

    before = contents()
    assert main(arguments) == 2
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.count("\n") == 1
    assert re.match(f"python -m circulant_attention: error: .*{message}", error), error
    assert contents() == before


@pytest.mark.parametrize("missing", ["skimage", "matplotlib"])
def test_says_which_package_is_missing(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    assert main([]) == 2
    name = {"skimage": "scikit-image"}.get(missing, missing)
    assert capsys.readouterr().err == (
        f"python -m circulant_attention: error: the demo needs {name}: "
        "pip install 'circulant-attention[demo]'\n"
    )


def test_a_failure_leaves_the_old_picture(
    small_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "old.png"
    output.write_text("old")

    def fail(*_: object) -> None:
        raise RuntimeError("while drawing")

    monkeypatch.setattr(picture, "save", fail)
    with pytest.raises(RuntimeError, match="while drawing"):
        main([str(small_photo), *SMALL, "--output", str(output)])
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.png", "photo.png"]


@pytest.mark.parametrize("suffix", ["pdf", "svg", "jpg"])
def test_other_formats(suffix: str, small_photo: Path, tmp_path: Path) -> None:
    output = tmp_path / f"out.{suffix}"
    assert main([str(small_photo), *SMALL, "--output", str(output)]) == 0
    start = {"pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}[suffix]
    assert output.read_bytes().startswith(start)


def test_self_check_notices_wrong_results(
    small_photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str,
) -> None:
    assert selfcheck.largest_difference(torch.device(device)) < selfcheck.TOLERANCE
    right = selfcheck.nonlocal_means
    monkeypatch.setattr(selfcheck, "nonlocal_means", lambda *a, **k: right(*a, **k) * (1 + 1e-9))
    assert main([str(small_photo), *SMALL, "--output", str(tmp_path / "out.png")]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_telling_pixels_lie_where_they_should() -> None:
    image = torch.full((1, 96, 120), 0.5)
    image[:, :40] = 0.1
    generator = torch.Generator().manual_seed(0)
    image[:, 56:, 60:] += 0.3 * torch.rand((40, 60), generator=generator) - 0.15
    pixels = picture.telling_pixels(image, 11)
    flat, edge, texture = (pixels[kind] for kind in ("flat", "edge", "texture"))
    assert 45 < flat[0] < 91
    assert flat[1] < 55
    assert edge[0] in (39, 40)
    assert texture[0] >= 56
    assert texture[1] >= 60


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (700, 900)])
def test_telling_pixels_of_any_image(size: tuple[int, int]) -> None:
    window = 1 if size == (1, 1) else 3
    rows, columns = picture.shown_part(*size)
    for row, column in picture.telling_pixels(torch.zeros(3, *size), window).values():
        assert rows.start <= row < rows.stop <= size[0]
        assert columns.start <= column < columns.stop <= size[1]


def test_psnr() -> None:
    reference = torch.zeros(1, 2, 2)
    assert photograph.psnr(reference + 0.1, reference) == pytest.approx(20, abs=1e-5)
    assert photograph.psnr(reference, reference) == math.inf


class _Terminal:
    """A stream that keeps what is written to it."""

    def __init__(self, is_terminal: bool) -> None:
        self.text = ""
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_progress_on_a_terminal_is_a_bar() -> None:
    stream = _Terminal(True)
    progress = Progress("tiles", stream)
    progress(1, 2)
    progress(2, 2)
    half, full = "#" * 15 + "." * 15, "#" * 30
    assert re.fullmatch(
        rf"\r  \[{half}\] tiles: 1 of 2, \d+\.\d s\r  \[{full}\] tiles: 2 of 2, \d+\.\d s\n",
        stream.text,
    )


def test_progress_elsewhere_is_few_lines() -> None:
    stream = _Terminal(False)
    progress = Progress("tiles", stream)
    for done in range(1, 1001):
        progress(done, 1000)
    lines = stream.text.splitlines()
    assert re.fullmatch(r"  tiles: 1000 of 1000, \d+\.\d s", lines[-1])
    assert len(lines) < 20
