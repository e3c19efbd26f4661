"""Files of BSON.jl, checkpoints, and the command line of examples/groupcdl."""

import re
import subprocess
import sys
from pathlib import Path

import groupcdl_reference as reference
import julia_files
import numpy as np
import pytest
import torch
from julia_files import datatype, element, encode, symbol
from PIL import Image

from examples.groupcdl import __main__ as program
from examples.groupcdl import checkpoint, images, julia_bson

ROOT = Path(__file__).parents[2]
SIZES = dict(K=3, M=4, C=1, p=3, d=1, hidden=2)
NET = dict(K=3, M=4, C=1, p=3, s=2, d=0, nlss_windowsize=3, nlss_hidden=2, nlss_Δupdate=2)


def load(folder, document):
    path = folder / "some.bson"
    path.write_bytes(encode(document))
    return julia_bson.load(path)


def array(values, kind=None):
    kind = kind or element(values.dtype)
    return {"tag": "array", "type": kind, "size": [*values.shape], "data": values.tobytes("F")}


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "uint8", "int64", "bool"])
def test_arrays(tmp_path, dtype):
    values = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    found = load(tmp_path, {"x": array(values)})["x"]
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)
    # Column-major in Julia, so the reversed dims are row-major without a move.
    assert julia_bson.tensor(found).shape == (4, 3, 2)
    assert torch.equal(julia_bson.tensor(found), torch.from_numpy(values.transpose(2, 1, 0).copy()))


def test_complex_integers(tmp_path):
    pairs = array(np.array([[1, 2], [3, 4]]).T, datatype("Complex", datatype("Int64")))
    found = load(tmp_path, {"x": pairs | {"size": [2]}})["x"]
    assert found.dtype == np.complex128 and found.tolist() == [1 + 2j, 3 + 4j]


def test_values(tmp_path):
    number = {"tag": "struct", "type": datatype("Float32"), "data": np.float32(0.5).tobytes()}
    pair = {"tag": "tuple", "data": [1, symbol("b")]}
    complex_type = datatype("Complex", datatype("Float32"))
    documents = {
        "plain": [1, 2.5, True, None, "text", b"\x01\x02"],
        "number": number,
        "pair": pair,
        "svec": {"tag": "svec", "data": []},
        "dict": {"tag": "struct", "type": datatype("Dict"), "data": [["a", "b"], [1, number]]},
        "complex": {"tag": "struct", "type": complex_type, "data": [number, number]},
        "pairs": {
            "tag": "array",
            "type": datatype("Tuple"),
            "size": [1, 2],
            "data": [pair, {"tag": "tuple", "data": [2]}],
        },
        "module": {"tag": "ref", "path": ["Main", "Lux"]},
        "struct": {"tag": "struct", "type": datatype("Conv", 2), "data": [1, symbol("relu")]},
        "union": {"tag": "unionall", "body": datatype("Array"), "var": symbol("T")},
        "bottom": {"tag": "jl_bottom_type"},
    }
    found = load(tmp_path, documents)
    *plain, binary = found["plain"]
    assert plain == [1, 2.5, True, None, "text"]
    assert binary.tolist() == [1, 2]
    assert found["number"] == 0.5
    assert found["pair"] == (1, "b")
    assert found["svec"] == ()
    assert found["dict"] == {"a": 1, "b": 0.5}
    assert found["complex"] == 0.5 + 0.5j
    assert found["pairs"].shape == (1, 2)
    assert found["pairs"].tolist() == [[(1, "b"), (2,)]]
    assert found["module"] == "Main.Lux"
    kind = julia_bson.JuliaType("Conv", (2,))
    assert found["struct"] == julia_bson.JuliaStruct(kind, (1, "relu"))
    assert found["union"].name == "UnionAll"
    assert found["bottom"].name == "Union{}"


def test_values_that_are_there_several_times(tmp_path):
    shared = array(np.arange(6.0).reshape(2, 3))
    second = {"tag": "tuple", "data": [{"tag": "backref", "ref": 1}]}
    documents = {
        "_backrefs": [shared, second],
        "a": {"tag": "backref", "ref": 1},
        "b": {"tag": "backref", "ref": 2},
    }
    found = load(tmp_path, documents)
    assert set(found) == {"a", "b"}
    assert found["b"][0] is found["a"]
    assert found["a"].shape == (2, 3)


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"x": {"tag": "mystery"}}, "the tag 'mystery' is unknown"),
        ({"x": array(np.zeros(3), datatype("Int64")) | {"size": [4]}}, "32 bytes has 24"),
        ({"x": array(np.zeros(3), datatype("Float80"))}, "numbers of type Float80 are not read"),
        ({"x": {"tag": "backref", "ref": 1}}, "reference 1 of 0"),
        (
            {"_backrefs": [{"tag": "tuple", "data": [{"tag": "backref", "ref": 1}]}], "x": 0}
            | {"x": {"tag": "backref", "ref": 1}},
            "reference 1 contains itself",
        ),
        ({"x": {"tag": "tuple"}}, "not as BSON.jl writes it"),
    ],
)
def test_unknown_content(tmp_path, document, match):
    with pytest.raises(julia_bson.JuliaFileError, match=match):
        load(tmp_path, document)


def test_kernels_are_turned_round():
    """The convolution of NNlib, sum over u, v of w[u, v] x[i - u, j - v], in torch."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 4)), rng.normal(size=(2, 2))
    kernel = julia_bson.kernel(w.reshape(2, 2, 1, 1))
    y = torch.nn.functional.conv2d(torch.from_numpy(x[None, None]), kernel)
    for i in range(1, 3):
        for j in range(1, 4):
            want = sum(w[u, v] * x[i - u, j - v] for u in (0, 1) for v in (0, 1))
            assert y[0, 0, i - 1, j - 1].item() == pytest.approx(want)


@pytest.fixture
def folder(tmp_path):
    ps = reference.parameters(np.random.default_rng(0), **SIZES)
    return julia_files.write_folder(tmp_path / "net", ps, **NET)


def photograph(path, height=16, width=18, mode="L"):
    rng = np.random.default_rng(0)
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8), mode).save(path)
    return path


def test_checkpoint(folder):
    """The degree of the thresholds is that of the arrays, as in Julia: config.yaml has another."""
    net = checkpoint.load(folder)
    assert (net.config.d, net.config.hidden, net.config.nlss_update) == (1, 2, 2)
    ps = reference.parameters(np.random.default_rng(0), **SIZES)
    layer = ps["lista"]["layer"]["layer_2"]
    want = layer["analysis"]["weight"][::-1, ::-1].transpose(3, 2, 0, 1)
    assert np.array_equal(net.layers[1].analysis.detach(), want)
    want = layer["prox"]["weight"].transpose(3, 2, 1, 0)
    assert np.array_equal(net.layers[1].thresholds.detach(), want)
    assert not net.training


def run(capsys, *arguments):
    """The output of the command line; the status must be 0."""
    program.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_image(folder, tmp_path, capsys):
    path = photograph(tmp_path / "a.png")
    out = run(capsys, folder, path, "--sigma", 25, "--output", tmp_path / "out")
    found = re.fullmatch(r"a.png, 18 x 16: noisy (\S+) dB, denoised (\S+) dB, \d+\.\d\d s\n", out)
    clean = images.read(path, 1)
    noisy = images.add_noise(clean, 25 / 255, 0, "a.png")
    with torch.no_grad():
        denoised = checkpoint.load(folder)(noisy, 25 / 255)
    for text, x in zip(found.groups(), (noisy, denoised), strict=True):
        error = (x - clean).double().square().mean()
        assert float(text) == pytest.approx(-10 * torch.log10(error).item(), abs=0.006)
    written = images.read(tmp_path / "out" / "a_denoised.png", 1)
    torch.testing.assert_close(written, denoised.clamp(0, 1), rtol=0, atol=0.51 / 255)
    # The same seed gives the same noise, another one other noise.
    same = run(capsys, folder, path, "--sigma", 25, "--seed", 0)
    assert same.rpartition(",")[0] == out.rpartition(",")[0]
    other = run(capsys, folder, path, "--sigma", 25, "--seed", 1)
    assert other.rpartition(",")[0] != out.rpartition(",")[0]


def test_folder(folder, tmp_path, capsys):
    many = tmp_path / "many"
    many.mkdir()
    photograph(many / "b.png", 9, 12)
    photograph(many / "a.png", 16, 18, "RGB")
    (many / "notes.txt").write_text("no image")
    head, rule, *rows = run(capsys, folder, many, "--sigma", 15).splitlines()
    assert head.startswith("| image |") and set(rule) <= set("|-")
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[0] for row in cells] == ["a.png", "b.png", "mean of 2"]
    for column in (2, 3):
        first, second, mean = (float(row[column]) for row in cells)
        assert mean == pytest.approx((first + second) / 2, abs=0.011)
    # Each image has the noise that it has alone.
    alone = run(capsys, folder, many / "b.png", "--sigma", 15)
    assert f"noisy {cells[1][2]} dB, denoised {cells[1][3]} dB" in alone


def test_complex_array(tmp_path, capsys):
    sizes = SIZES | {"dtype": "complex64"}
    ps = reference.parameters(np.random.default_rng(0), **sizes)
    folder = julia_files.write_folder(tmp_path / "net", ps, **NET, is_complex=True)
    rng = np.random.default_rng(1)
    np.save(tmp_path / "a.npy", rng.random((10, 12)) + 1j * rng.random((10, 12)))
    assert "a.npy, 12 x 10: noisy" in run(capsys, folder, tmp_path / "a.npy", "--sigma", 10)


def test_colours(tmp_path):
    """Grey values are those of ITU-R BT.601 in 8 bits; a grey image has three equal channels."""
    path = photograph(tmp_path / "a.png", mode="RGB")
    rgb = np.asarray(Image.open(path), float)
    grey = np.round(rgb @ [0.299, 0.587, 0.114])
    # Within half a level, and a rounding of the weights.
    assert np.abs(images.read(path, 1)[0, 0].numpy() * 255 - grey).max() <= 1
    assert torch.equal(images.read(path, 3)[0], torch.tensor(rgb / 255).float().permute(2, 0, 1))
    x = images.read(photograph(tmp_path / "b.png"), 3)
    assert x.shape == (1, 3, 16, 18) and torch.equal(x[:, 0], x[:, 2])


def change(**net):
    """Writes other lines into config.yaml."""

    def apply(folder, _):
        path = folder / "config.yaml"
        lines = [f"  {key}: {value}" for key, value in (NET | net).items()]
        path.write_text("\n".join(["net:", *lines]), encoding="utf-8")

    return apply


def parameters(**sizes):
    """Writes the parameters of another network into net.bson."""

    def apply(folder, _):
        ps = reference.parameters(np.random.default_rng(0), **{**SIZES, **sizes})
        (folder / "net.bson").write_bytes(julia_files.checkpoint(ps))

    return apply


def write(name, content):
    def apply(folder, _):
        (folder / name).write_bytes(content)

    return apply


def remove(name):
    return lambda folder, _: (folder / name).unlink()


def cut(folder, _):
    content = (folder / "net.bson").read_bytes()
    (folder / "net.bson").write_bytes(content[: len(content) // 2])


def without_gamma(folder, _):
    ps = reference.parameters(np.random.default_rng(0), **SIZES)
    del ps["lista"]["nlss"][reference.GAMMA]
    (folder / "net.bson").write_bytes(julia_files.checkpoint(ps))


def image_of(height, width, mode="L"):
    return lambda _, image: photograph(image, height, width, mode)


BAD_FILES = {
    "no bson": (remove("net.bson"), "net has no net.bson"),
    "no config": (remove("config.yaml"), "net has no config.yaml"),
    "not bson": (write("net.bson", b"PK\x03\x04 a zip file"), "net.bson is no BSON file"),
    "cut bson": (cut, "net.bson is no BSON file"),
    "other bson": (write("net.bson", encode({"a": 1})), "net.bson has no ps: it is a checkpoint"),
    "other network": (parameters(hidden=0), "ps.lista has no layer: it is a checkpoint of another"),
    "no groups": (change(nlss_windowsize=1), "ps.lista has no layer_1: it is a checkpoint of anot"),
    "missing key": (without_gamma, "ps.lista.nlss has no γ"),  # noqa: RUF001
    "fewer layers": (change(K=4), "ps.lista.layer has no layer_4"),
    "more layers": (change(K=2), "ps.lista.layer has 3 layers, config.yaml 2"),
    "filters": (
        change(M=5),
        "ps.lista.layer.layer_1.analysis is (4, 1, 3, 3), but config.yaml makes it (5, 1, 3, 3)",
    ),
    "complex": (change(is_complex="true"), "is torch.float32, but config.yaml makes it torch.comp"),
    "not yaml": (write("config.yaml", b"net: [1"), "config.yaml is no YAML"),
    "no section": (write("config.yaml", b"network:\n  K: 3"), "config.yaml has no section net"),
    "unknown key": (change(heads=2), "net has the unknown key heads"),
    "type": (change(K="many"), "net.K cannot be 'many'"),
    "bool": (change(M="true"), "net.M cannot be True"),
    "value": (change(nlss_similarity="cosine"), "nlss_similarity must be distance or dot"),
    "Gabor": (change(MoG=5), "Gabor kernels (MoG > 0) are not supported"),
    "small image": (
        image_of(16, 4),
        "a.png: an image of 16 x 4 pixels is too small: windows of 3 with stride 2 need at least",
    ),
    "no image": (lambda _, image: image.write_text("text"), "a.png is no image"),
    "cut image": (
        lambda _, image: image.write_bytes(image.read_bytes()[:150]),
        "a.png is no image",
    ),
    "missing image": (lambda _, image: image.unlink(), "a.png does not exist"),
    "kind": (
        lambda _, image: Image.new("F", (9, 9)).save(image, "tiff"),
        "a.png has pixels of the unknown kind F",
    ),
}


@pytest.mark.parametrize(("spoil", "match"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(folder, tmp_path, capsys, spoil, match):
    image = photograph(tmp_path / "a.png")
    spoil(folder, image)
    refused(capsys, [folder, image, "--sigma", "25"], match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"--sigma": "-1"}, "argument --sigma: must be from 0 to 255, not -1"),
        ({"--sigma": "nan"}, "argument --sigma: must be from 0 to 255, not nan"),
        ({"--sigma": "loud"}, "argument --sigma: invalid level value: 'loud'"),
        ({"--seed": "-1"}, "argument --seed: must be from 0"),
        ({"--device": "abacus"}, "there is no device abacus"),
        ({"checkpoint": "nowhere"}, "nowhere is no folder with net.bson and config.yaml"),
        ({"image": "."}, "has no images"),
    ],
)
def test_bad_arguments(folder, tmp_path, capsys, monkeypatch, changes, match):
    monkeypatch.chdir(folder)
    given = {"checkpoint": folder, "image": photograph(tmp_path / "a.png"), "--sigma": "25"}
    given |= changes
    arguments = [given.pop("checkpoint"), given.pop("image")]
    for option, value in given.items():
        arguments += [f"{option}={value}"]
    refused(capsys, arguments, match)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.zeros((9, 9), int), "no array of real or complex numbers"),
        (np.zeros(9), r"must be \(H, W\) or \(C, H, W\), not \(9,\)"),
        (np.zeros((2, 9, 9)), r"must be \(B, 1, H, W\), not \(1, 2, 9, 9\)"),
        (np.zeros((9, 9), complex), "must be real for this network"),
    ],
)
def test_bad_numpy_arrays(folder, tmp_path, capsys, values, match):
    np.save(tmp_path / "a.npy", values)
    refused(capsys, [folder, tmp_path / "a.npy", "--sigma", "25"], re.compile(match))


def refused(capsys, arguments, match):
    """Status 2 and one line on stderr."""
    with pytest.raises(SystemExit) as end:
        program.main([str(argument) for argument in arguments])
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1 and err.startswith("python -m examples.groupcdl: ")
    assert re.search(match, err) if isinstance(match, re.Pattern) else match in err


def test_process(folder, tmp_path):
    """As in a shell: the status and the one line."""
    command = [sys.executable, "-m", "examples.groupcdl", folder, tmp_path / "a.png", "--sigma=25"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == f"python -m examples.groupcdl: {tmp_path / 'a.png'} does not exist\n"
