"""The demo: what it prints, draws, reads and writes, and what it refuses with exit status 2."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage import data, io

import circulant_attention
from circulant_attention.demo import cli, image_file, selfcheck, work
from circulant_attention.demo.cli import main
from circulant_attention.demo.output import Problem

SMALL = ["--window", "5", "--patch", "3"]


def photo(height: int = 24, width: int = 30, channels: int | None = None, dtype=np.uint8):
    """A part of a real photograph, in the dtype."""
    pixels = data.astronaut()[:height, 100 : 100 + width]
    if channels is None:
        pixels = pixels[..., 1]
    elif channels in (2, 4):
        pixels = np.concatenate([pixels[..., : channels - 1], 255 - pixels[..., :1]], -1)
    return pixels.astype(dtype) * np.dtype(dtype).type(257 if dtype == np.uint16 else 1)


def png_of_16_bit(pixels: np.ndarray) -> bytes:
    """A file ``(H, W, C)``, by the definition of the format."""
    height, width, channels = pixels.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture
def small_photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    io.imsave(path, photo(), check_contrast=False)
    return path


def decibels(text: str) -> dict[str, float]:
    """The printed table of results."""
    rows = re.findall(r"^(noisy|circulant attention|scikit-image) +(-?[\d.]+) dB", text, re.M)
    return {name: float(value) for name, value in rows}


def test_without_arguments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    text, progress = capsys.readouterr()
    results = decibels(text)
    # The noise has the standard deviation 0.1, so its PSNR is 20 dB; over 512 x 512 pixels the
    # standard error of that is 0.012 dB.
    assert abs(results["noisy"] - 20) < 0.06
    assert results["circulant attention"] >= results["scikit-image"] - 0.3
    assert min(results["circulant attention"], results["scikit-image"]) > 28.5
    assert "512 x 512 pixels" in text
    assert "1/1" in progress
    (written,) = tmp_path.iterdir()
    assert written.name == "denoised.png"
    drawn = io.imread(written)
    assert drawn.dtype == np.uint8
    assert min(drawn.shape[:2]) > 1000
    assert drawn[..., :3].std() > 30


def test_truncated_borders(tmp_path, monkeypatch, capsys):
    """A dark and a bright border; the windows that are drawn end there, too."""
    monkeypatch.chdir(tmp_path)
    image = np.zeros((40, 40), np.uint8)
    image[:, 20:] = 255
    io.imsave("photo.png", image, check_contrast=False)
    ratios = {}
    for boundary in ("circular", "truncated"):
        options = ["--add-noise=0.2", "--window=31", "--figure=figure.png"]
        assert main(["photo.png", *options, "--boundary", boundary]) == 0
        text = capsys.readouterr().out
        ratios[boundary] = decibels(text)["circulant attention"]
        assert f"{'wraps' if boundary == 'circular' else 'ends'} at borders" in text
    # Patches at the borders of the default look like the edge: fewer pixels are averaged.
    assert ratios["truncated"] > ratios["circular"] + 0.2


@pytest.mark.parametrize(
    ("arguments", "added", "sigma", "origin", "files"),
    [
        ("photo.png", None, None, "estimated", "denoised.png"),
        ("photo.png --sigma 0.2", None, 0.2, "given", "denoised.png"),
        ("photo.png --add-noise 0.2", 0.2, 0.2, "added", "denoised.png"),
        ("photo.png --add-noise=.2 --sigma=.1", 0.2, 0.1, "given", "denoised.png"),
        ("photo.png --output o.bmp --figure f.pdf --window=63", None, None, "", "o.bmp f.pdf"),
        ("--sigma 0.2 --figure f.jpg", 0.2, 0.2, "given", "f.jpg"),
        ("--output o.png --figure f.svg", 0.1, 0.1, "added", "o.png f.svg"),
        ("--output o.tif", 0.1, 0.1, "added", "o.tif"),
    ],
)
def test_what_noise_and_which_files(
    arguments, added, sigma, origin, files, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    io.imsave("photo.png", photo(64, 64), check_contrast=False)
    assert main([*SMALL, *arguments.split()]) == 0
    text = capsys.readouterr().out
    files = files.split()
    assert {path.name for path in tmp_path.iterdir()} == {*files, "photo.png"}
    added_line = re.search(r"^added noise Gaussian, sigma ([\d.]+) of the range", text, re.M)
    assert (float(added_line[1]) if added_line else None) == added
    assert bool(decibels(text)) == (added is not None)
    level = re.search(rf"^noise +sigma ([\d.]+) of the range from .*, {origin}", text, re.M)
    assert level
    assert sigma is None or float(level[1]) == sigma
    starts = {"bmp": b"BM", "tif": b"II*", "pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}
    for path in map(Path, files):
        assert path.read_bytes().startswith(starts.get(path.suffix[1:], b"\x89PNG"))


@pytest.mark.parametrize(
    ("sigma", "dtype", "white"), [(0.05, np.float32, 1000), (0.1, np.uint8, 255)]
)
def test_the_noise_is_estimated(sigma, dtype, white, capsys, tmp_path):
    clean = np.kron(np.linspace(0.4, 0.6, 64).reshape(8, 8), np.ones((32, 32)))
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    path, output = tmp_path / "noisy.tif", tmp_path / "out.tif"
    tifffile.imwrite(path, (white * noisy.clip(0, 1)).astype(dtype))
    assert main([str(path), "--output", str(output)]) == 0
    text = capsys.readouterr().out
    found = float(re.search(r"^noise +sigma ([\d.]+) .*, estimated", text, re.M)[1])
    # A median of 16,384 coefficients has a relative standard error of 0.9 %; the steps add to it.
    assert found == pytest.approx(sigma * (white if dtype == np.float32 else 1), rel=0.05)
    denoised = tifffile.imread(output)
    assert denoised.dtype == dtype
    assert (denoised / white - clean).std() < 0.3 * sigma


@pytest.mark.parametrize(
    ("name", "channels", "dtype", "described"),
    [
        ("grey.png", None, np.uint8, "grey, 8 bit"),
        ("grey.png", None, np.uint16, "grey, 16 bit"),
        ("grey.png", None, bool, "grey, 1 bit"),
        ("colour.png", 3, np.uint8, "colour, 8 bit"),
        ("colour.png", 3, np.uint16, "colour, 16 bit"),
        ("colour.jpg", 3, np.uint8, "colour, 8 bit"),
        ("alpha.png", 2, np.uint8, "grey, 8 bit, transparency kept"),
        ("alpha.png", 2, np.uint16, "grey, 16 bit, transparency kept"),
        ("alpha.png", 4, np.uint8, "colour, 8 bit, transparency kept"),
        ("alpha.png", 4, np.uint16, "colour, 16 bit, transparency kept"),
        ("grey.tif", None, bool, "grey, 1 bit"),
        ("grey.tif", None, np.uint16, "grey, 16 bit"),
        ("colour.tif", 3, np.uint16, "colour, 16 bit"),
        ("alpha.tif", 2, np.uint8, "grey, 8 bit, transparency kept"),
        ("alpha.tif", 4, np.uint16, "colour, 16 bit, transparency kept"),
        ("grey.tif", None, np.float32, "grey, float32"),
        ("colour.tif", 3, np.float64, "colour, float64"),
        ("half.tif", None, np.float16, "grey, float16"),
    ],
)
def test_images_keep_format_depth_and_transparency(
    name, channels, dtype, described, tmp_path, capsys
):
    path, output = tmp_path / name, tmp_path / f"out-{name}"
    pixels = photo(channels=channels, dtype=dtype) if dtype is not bool else photo() > 177
    if dtype == np.uint16:
        pixels.reshape(24, 30, -1)[0, :3, 0] = (1, 2, 256)  # 0, 0, 1 in 8 bits
    if path.suffix == ".tif":
        extra = {"photometric": "rgb" if channels in (3, 4) else "minisblack"}
        if channels in (2, 4):
            extra |= {"extrasamples": ["unassalpha"], "planarconfig": "contig"}
        compression, order = ("lzw", ">") if dtype == np.uint16 else (None, "<")
        tifffile.imwrite(path, pixels, compression=compression, byteorder=order, **extra)
    elif dtype == np.uint16:
        path.write_bytes(png_of_16_bit(pixels.reshape(24, 30, -1)))
    else:
        Image.fromarray(pixels).save(path)

    # The least noise that can be given: all weight is on the pixel itself.
    sigma = "0.001" if pixels.dtype.kind == "f" else "1e-6"
    assert main([str(path), *SMALL, "--sigma", sigma, "--output", str(output)]) == 0
    assert f"24 x 30 pixels, {described}\n" in capsys.readouterr().out
    if path.suffix == ".tif":
        written = tifffile.imread(output)
    elif dtype == np.uint16:
        written = imagecodecs.png_decode(output.read_bytes())
    else:
        written = np.asarray(Image.open(output))
    assert (written.dtype, written.shape) == (pixels.dtype, pixels.shape)
    if path.suffix == ".jpg":
        assert np.abs(written.astype(float) - pixels).mean() < 5
        return
    assert np.array_equal(written, pixels)
    read = image_file.read(str(path)).pixels
    assert read.dtype == (torch.float64 if dtype == np.float64 else torch.float32)
    white = {bool: 1, np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    colours = pixels.reshape(24, 30, -1)[..., : 1 if channels in (None, 2) else 3]
    expected = torch.from_numpy(colours.astype(float) / white).movedim(-1, 0)
    # One rounding to float32.
    torch.testing.assert_close(read.double(), expected, rtol=2**-24, atol=0)


@pytest.mark.parametrize(
    "options",
    [{"photometric": "rgb"}, {"photometric": "rgb", "planarconfig": "separate"}, {}],
    ids=["guessed", "planes", "pages"],
)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_channels_first(options, dtype, tmp_path):
    path, output = tmp_path / "planar.tif", tmp_path / "out.tif"
    pixels = np.ascontiguousarray(np.moveaxis(photo(channels=3, dtype=dtype), -1, 0))
    tifffile.imwrite(path, pixels, **({"photometric": "minisblack"} | options))
    sigma = "0.001" if dtype == np.float32 else "1e-6"
    assert main([str(path), *SMALL, "--sigma", sigma, "--output", str(output)]) == 0
    written = tifffile.imread(output)
    assert written.dtype == pixels.dtype
    assert np.array_equal(written, pixels)


def test_palettes(tmp_path):
    colours = np.eye(3, dtype=np.uint8)[np.arange(24) % 3][None].repeat(5, 0) * 255
    for name in ("palette.png", "palette.tif"):
        Image.fromarray(colours).quantize(8).save(tmp_path / name)
        palette = image_file.read(str(tmp_path / name))
        assert torch.equal(palette.pixels, torch.from_numpy(colours / 255.0).float().movedim(-1, 0))


def test_photographs_are_turned_upright_and_keep_their_metadata(tmp_path):
    path, output = tmp_path / "turned.jpg", tmp_path / "out.jpg"
    image = Image.fromarray(photo())
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held upright: its first row is the right-hand side
    exif[0x0110] = "camera"
    image.save(path, exif=exif, icc_profile=b"profile", quality=100)
    read = image_file.read(str(path))
    expected = torch.from_numpy(photo() / 255.0).float().rot90(-1)
    assert (read.pixels[0] - expected).abs().max() < 0.02
    assert main([str(path), *SMALL, "--output", str(output)]) == 0
    with Image.open(output) as written:
        assert written.size == (24, 30)
        assert dict(written.getexif()) == {0x0110: "camera"}
        assert written.info["icc_profile"] == b"profile"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "there is no such file"),
        ("folder.png", Path.mkdir, "there is no such file"),
        ("empty.png", Path.touch, "cannot read .* as an image"),
        ("text.png", "no image", "cannot read .* as an image"),
        ("text.tif", "no image", "cannot read .* as an image"),
        ("cut.png", "cut", "cannot read .* as an image"),
        ("movie.tif", np.zeros((2, 9, 8, 3), np.uint8), "expected one grey or colour image"),
        ("frames.gif", [Image.new("L", (9, 8), n) for n in (0, 255)], "expected one image"),
        ("integers.tif", np.zeros((9, 8), np.int32), "expected 1, 8 or 16 bit .* got int32"),
        ("infinite.tif", np.full((9, 8), np.inf, np.float32), "expected finite numbers"),
        ("inks.jpg", [Image.new("CMYK", (20, 20))], "got CMYK"),
        ("lab.tif", [Image.new("LAB", (20, 20))], "got LAB"),
        ("flat.png", [Image.new("L", (40, 40))], "estimate .* give --sigma"),
        ("layers.psd", [Image.new("L", (40, 40))], "cannot write"),
    ],
)
def test_refuses_other_files(name, content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if callable(content):
        content(Path(name))
    elif isinstance(content, np.ndarray):
        tifffile.imwrite(name, content)
    elif content == "cut":
        io.imsave(name, photo(100, 100), check_contrast=False)
        Path(name).write_bytes(Path(name).read_bytes()[:500])
    elif isinstance(content, str):
        Path(name).write_text(content)
    elif content:
        frames = {"save_all": True, "append_images": content[1:]} if content[1:] else {}
        content[0].save(name, "png" if name.endswith("psd") else None, **frames)
    refuse([name, *SMALL], message, capsys)


def test_pixels_are_rounded_and_clipped():
    photo = image_file.from_array("photo", np.zeros((1, 4), np.uint8))
    pixels = torch.tensor([[[-0.1, 0.7 / 255, 1.2 / 255, 1.1]]])
    written = imagecodecs.png_decode(image_file.encoded(photo, pixels, "out.png"))
    assert written.tolist() == [[0, 1, 1, 255]]


def test_refuses_arrays_without_pixels():
    with pytest.raises(Problem, match="cannot use nothing: the image is empty"):
        image_file.from_array("nothing", np.zeros((0, 4), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--window 4", "argument --window: must be odd and positive, got 4"),
        ("--window -3", "--window: must be odd and positive, got -3"),
        ("--window three", "argument --window: invalid .* value: 'three'"),
        ("--window 25", "--window must not be larger than the image of 24 x 30 pixels, got 25"),
        ("--patch 2", "--patch: must be odd and positive, got 2"),
        ("--patch 27 --window 3", "--patch must not be larger than the image"),
        ("--sigma -0.1", "--sigma: must be positive, got -0.1"),
        ("--sigma nan", "--sigma: must be positive, got nan"),
        ("--sigma 25", "--sigma must lie between 1e-06 and 1 for pixels from 0 .* got 25"),
        ("--sigma 1e-9", "--sigma must lie between"),
        ("--add-noise 0", "--add-noise: must be positive, got 0"),
        ("--add-noise 25", "--add-noise must lie between 1e-06 and 1 .* got 25"),
        ("--boundary reflect", "argument --boundary: invalid choice: 'reflect'"),
        ("--device abacus", "--device: cannot use abacus"),
        ("--device meta", "--device: must be cpu or cuda, got meta"),
        ("--device cuda:99", "--device: cannot use cuda:99"),
        ("--output picture", "cannot write picture: unknown format"),
        ("--output picture.txt", "cannot write picture.txt: unknown format .txt"),
        ("--output missing/picture.png", "cannot write missing/picture.png: .* not a folder"),
        ("--output photo.png/picture.png", "cannot write .*: .* not a folder"),
        ("--output folder.png", "cannot write folder.png: it is not a file"),
        ("--output photo.png", "--output would be written over the image photo.png"),
        ("--output link.png", "--output would be written over the image photo.png"),
        ("--figure figure.txt", "--figure: must end in one of .png, .* got figure.txt"),
        ("--figure .png", "--figure: must end in one of .png, .* got .png"),
        ("--figure missing/figure.png", "cannot write missing/figure.png"),
        ("--figure link.png", "--figure would be written over the image photo.png"),
        ("--figure denoised.png", "--output and --figure must differ, got denoised.png"),
        ("deep.png --output o.jpg", "cannot write an image of 16 bit to o.jpg: use .png"),
        ("alpha.png --output o.jpg", "cannot write an image of 8 bit to o.jpg: .*RGBA"),
        ("float.tif --output o.png", "cannot write an image of float32 to o.png: use .tif"),
        ("--colour", "unrecognized arguments: --colour"),
    ],
)
def test_refuses_bad_arguments(arguments, message, small_photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(small_photo)
    (tmp_path / "denoised.png").write_text("of an earlier run")
    Image.fromarray(photo(channels=4)).save("alpha.png")
    io.imsave("deep.png", photo(dtype=np.uint16), check_contrast=False)
    tifffile.imwrite("float.tif", photo(dtype=np.float32))
    image = ["photo.png"] if arguments.startswith("--") else []
    refuse([*SMALL, *image, *arguments.split()], message, capsys)


def refuse(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Checks that one line on stderr says why, and that nothing is done in the current folder."""

    def contents() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in Path().iterdir()}

    before = contents()
    assert main(arguments) == 2
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.count("\n") == 1
    assert re.match(f"python -m circulant_attention: error: .*{message}", error), error
    assert contents() == before


@pytest.mark.parametrize("missing", list(cli._PACKAGES))
def test_says_which_package_is_missing(missing, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    assert main([]) == 2
    assert capsys.readouterr().err == (
        f"python -m circulant_attention: error: the demo needs {cli._PACKAGES[missing]}: "
        "pip install 'circulant-attention[demo]'\n"
    )


@pytest.mark.parametrize("place", ["work", "writing"])
@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_files(
    place, exception, small_photo, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "old.png"
    output.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise exception(28, "No space left on device")

    if place == "work":
        monkeypatch.setattr(work, "nonlocal_means", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    arguments = [str(small_photo), *SMALL, "--output", str(output)]
    if exception is KeyboardInterrupt:
        assert main(arguments) == 130
        assert capsys.readouterr().err.endswith("\npython -m circulant_attention: interrupted\n")
    elif exception is OSError and place == "writing":
        assert main(arguments) == 2
        assert f"error: cannot write {output}: No space left on device\n" in capsys.readouterr().err
    else:
        with pytest.raises(exception):
            main(arguments)
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.png", "photo.png"]


def start(folder: Path, command: str) -> subprocess.Popen[str]:
    """Runs the demo as a user does, from a shell in a folder that is not the project's."""
    package = Path(circulant_attention.__file__).parent
    return subprocess.Popen(
        ["bash", "-c", command.replace("DEMO", f"exec {sys.executable} -m circulant_attention")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal: a shell starts its background jobs with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    "command",
    [
        "DEMO photo.png ARGUMENTS",
        "(DEMO photo.png ARGUMENTS) | head -1; exit ${PIPESTATUS[0]}",
        "(DEMO photo.png ARGUMENTS 2>&1) | head -1; exit ${PIPESTATUS[0]}",
        "DEMO photo.png ARGUMENTS > /dev/full",
        "DEMO photo.png ARGUMENTS >&- 2>&-",
    ],
    ids=["open", "pipe", "both-piped", "full", "closed"],
)
def test_as_a_command_with_any_stdout(command, tmp_path, small_photo):
    with start(tmp_path, command.replace("ARGUMENTS", " ".join(SMALL))) as process:
        output, error = process.communicate()
    assert process.returncode == 0, error
    assert "error" not in error.lower()
    assert io.imread(tmp_path / "denoised.png").shape == (24, 30)
    if command == "DEMO photo.png ARGUMENTS":
        assert "5 x 5, 25 neighbours a pixel, 18,000 weights" in output
        assert output.endswith("\nThe denoised image is in denoised.png\n")


def test_ctrl_c(tmp_path):
    io.imsave(tmp_path / "photo.png", data.astronaut()[::2, ::2], check_contrast=False)
    with start(tmp_path, "DEMO photo.png --window 61 --patch 15") as process:
        for line in process.stdout:
            if line.startswith("Circulant attention"):
                process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130
    assert error.splitlines()[-1] == "python -m circulant_attention: interrupted"
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_devices_denoise_alike(small_photo, tmp_path, monkeypatch, capsys, device):
    results = []
    for name in ("cpu", device):
        if name == "emulated":  # the command line does not take it
            monkeypatch.setattr(cli, "_device", torch.device)
        output = tmp_path / f"on-{name}.png"
        arguments = [str(small_photo), *SMALL, "--add-noise", "0.1", "--device", name]
        assert main([*arguments, "--output", str(output)]) == 0
        text = capsys.readouterr().out
        assert re.search(rf"^device +{name}\b", text, re.M)
        results.append(decibels(text))
    assert len(results[0]) == 3
    assert results[1] == pytest.approx(results[0], abs=0.011)  # rounded to 0.01


def test_self_check_notices_wrong_results(small_photo, tmp_path, monkeypatch, capsys, device):
    assert selfcheck.largest_difference(torch.device(device)) < selfcheck.TOLERANCE
    right = selfcheck.nonlocal_means
    monkeypatch.setattr(selfcheck, "nonlocal_means", lambda *a, **k: right(*a, **k) * (1 + 1e-9))
    assert main([str(small_photo), *SMALL, "--output", str(tmp_path / "out.png")]) == 1
    assert "WRONG" in capsys.readouterr().out
