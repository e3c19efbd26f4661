"""The network of examples/groupcdl against NumPy with Julia's conventions, and its training."""

from dataclasses import replace

import groupcdl_reference as reference
import julia_files
import numpy as np
import pytest
import torch

from benchmarks import network as benchmark
from benchmarks.__main__ import parse
from benchmarks.cases import NETWORK
from examples.groupcdl import checkpoint, parameters, training
from examples.groupcdl.network import Config, GroupCDL, MaskedFourier, analyse, synthesise

# A network of every kind: sizes, what config.yaml says, and the image (H, W).
NETWORKS = {
    "grey": (dict(K=5, M=6, C=1, p=5, d=1, hidden=4), dict(s=2, window=5, update=2), (13, 12)),
    "colour": (dict(K=3, M=5, C=3, p=4, hidden=3), dict(s=1, window=3), (5, 6)),
    "complex": (
        dict(K=4, M=4, C=1, p=3, hidden=3, dtype="complex64"),
        dict(s=2, window=3, update=3),
        (7, 9),
    ),
    "stride 3": (dict(K=2, M=4, C=1, p=6, d=2, hidden=2), dict(s=3, window=3), (8, 10)),
    "dot": (dict(K=3, M=4, C=1, p=3, hidden=3), dict(s=1, window=3, dot=True), (5, 4)),
    "compared": (
        dict(K=2, M=4, C=1, p=3, hidden=3, compressed="similarity"),
        dict(s=1, window=3),
        (4, 5),
    ),
    "not projected": (
        dict(K=2, M=4, C=1, p=3, hidden=3, compressed=False),
        dict(s=1, window=3),
        (4, 5),
    ),
    "no groups": (dict(K=3, M=5, C=1, p=5), dict(s=2), (9, 8)),
}


@pytest.fixture(params=NETWORKS)
def case(request, tmp_path):
    """The network of a checkpoint in double precision, its Julia parameters, its settings."""
    sizes, settings, grid = NETWORKS[request.param]
    return make(tmp_path, sizes, settings, grid)


def make(folder, sizes, settings, grid):
    ps = reference.parameters(np.random.default_rng(5), **sizes)
    net = {key: sizes[key] for key in ("K", "M", "C", "p")}
    net.update(s=settings["s"], d=0, is_complex=sizes.get("dtype") == "complex64")
    if "window" in settings:
        net.update(
            nlss_windowsize=settings["window"],
            nlss_hidden=sizes["hidden"],
            nlss_Δupdate=settings.get("update", 1),
            nlss_compressed=str(sizes.get("compressed", "all")).lower(),
            nlss_similarity="dot" if settings.get("dot") else "distance",
        )
    network = wide(checkpoint.load(julia_files.write_folder(folder, ps, **net)))
    shape = (2, sizes["C"], *grid)
    dtype = torch.complex128 if net["is_complex"] else torch.float64
    return network, ps, settings, torch.rand(shape, dtype=dtype)


def wide(network):
    """The network in double precision, complex parameters too."""
    for parameter in network.parameters():
        dtype = torch.complex128 if parameter.is_complex() else torch.float64
        parameter.data = parameter.data.to(dtype)
    return network


def rows_of(ps):
    """The layer that projects the rows."""
    return ps["lista"]["nlss"][reference.THETA]


def julia(x):
    """(B, C, H, W) as (H, W, C, B)."""
    return x.detach().numpy().transpose(2, 3, 1, 0)


def expected(ps, y, settings, sigma=0.3, mask=None):
    keys = {"stride": settings["s"], "window": settings.get("window", 1)}
    keys.update(update=settings.get("update", 1), dot=settings.get("dot", False), mask=mask)
    return reference.network(ps, julia(y), sigma, **keys)


def test_network_is_that_of_numpy(case):
    network, ps, settings, y = case
    want = expected(ps, y, settings)
    got = julia(network(y, 0.3))
    # Hundreds of roundings of float64, which thresholds do not amplify much.
    assert np.abs(got - want).max() <= 1e-11 * np.abs(want).max()
    # The network does something, and so do the weights of its matrix.
    assert np.abs(want - julia(y)).max() > 0.05
    if "window" in settings and rows_of(ps):
        rows_of(ps)["weight"][:] = 0
        assert np.abs(expected(ps, y, settings) - want).max() > 1e-6


def test_noise_level_per_image(case):
    network, _, _, y = case
    both = network(y, torch.tensor([0.1, 0.4], dtype=torch.float64).view(2, 1, 1, 1))
    for i, sigma in enumerate((0.1, 0.4)):
        alone = network(y[i : i + 1], sigma)
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-11, atol=1e-11)


def test_masked_fourier(tmp_path):
    sizes, settings, _ = NETWORKS["complex"]
    network, ps, settings, x = make(tmp_path, sizes, settings, (8, 6))
    mask = (torch.rand(8, 6) < 0.6).double()
    operator = MaskedFourier(mask)
    y = operator(x) + 0.1 * torch.randn_like(x)
    want = expected(ps, y, settings, mask=mask.numpy()[:, :, None, None])
    got = julia(network(y, 0.3, operator))
    assert np.abs(got - want).max() <= 1e-11 * np.abs(want).max()
    with pytest.raises(ValueError, match="8 x 5 must be multiples of 2"):
        network(y[..., :5], 0.3, operator)


def test_gradients(case):
    """Of y, sigma and all parameters, along a direction, against a difference quotient."""
    network, _, _, y = case
    inputs = [y, torch.tensor(0.3, dtype=torch.float64), *network.parameters()]
    inputs = [x.detach().requires_grad_() for x in inputs]
    directions = [torch.randn_like(x) for x in inputs]
    weights = torch.randn_like(y)
    names = [name for name, _ in network.named_parameters()]

    def functional(h):
        moved = [x + h * step for x, step in zip(inputs, directions, strict=True)]
        values = dict(zip(names, moved[2:], strict=True))
        x = torch.func.functional_call(network, values, tuple(moved[:2]))
        return (weights.conj() * x).real.sum()

    gradients = torch.autograd.grad(functional(0.0), inputs, allow_unused=True)
    unused = [name for name, found in zip(names, gradients[2:], strict=True) if found is None]
    # The first layer has no codes to synthesise, and two layers no last matrix to blend with.
    blended = network.config.K > 2 or not network.config.grouped
    assert unused == ["layers.0.synthesis", *(() if blended else ["nonlocal_similarity.gamma"])]
    slope = sum(
        (found.conj() * step).real.sum()
        for found, step in zip(gradients, directions, strict=True)
        if found is not None
    )
    h = 1e-6
    quotient = (functional(h) - functional(-h)) / (2 * h)
    # h**2 times a third derivative, and roundings of float64 over h.
    torch.testing.assert_close(slope, quotient.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("p", "s", "size"), [(7, 2, 12), (4, 1, 9), (6, 3, 9)])
def test_synthesis_is_the_adjoint_of_analysis(dtype, p, s, size):
    x = torch.randn(1, 2, size, size + s, dtype=dtype)
    kernel = torch.randn(3, 2, p, p, dtype=dtype)
    codes = analyse(x, kernel, s)
    assert codes.shape == (1, 3, size // s, size // s + 1)
    z = torch.randn_like(codes)
    left = torch.vdot(codes.flatten(), z.flatten())
    right = torch.vdot(x.flatten(), synthesise(z, kernel, s).flatten())
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("size", [(9, 8), (8, 9)])
def test_smallest_image(size):
    """Codes of 5 x 5 pixels for a window of 5; one pixel less is refused."""
    config = Config(K=2, M=2, p=3, s=2, nlss_windowsize=5)
    net = parameters.initialise(GroupCDL(config), torch.Generator().manual_seed(0))
    y = torch.rand(1, 1, 9, 9)
    assert net(y, 0.1).shape == y.shape
    with pytest.raises(ValueError, match=r"of \d x \d pixels is too small: .*least 9 x 9"):
        net(torch.rand(1, 1, *size), 0.1)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (torch.rand(1, 3, 12, 12), r"must be \(B, 1, H, W\), not \(1, 3, 12, 12\)"),
        (torch.rand(12, 12), r"must be \(B, 1, H, W\)"),
        (torch.rand(1, 1, 12, 12, dtype=torch.complex64), "must be real"),
    ],
)
def test_wrong_images(y, match):
    with pytest.raises(ValueError, match=match):
        GroupCDL(Config(K=2, M=2, p=3, nlss_windowsize=3))(y, 0.1)


def test_wrong_noise_level():
    net = parameters.initialise(GroupCDL(Config(K=2, M=2, p=3)), torch.Generator())
    with pytest.raises(ValueError, match=r"sigma must be a number or \(3, 1, 1, 1\), not \(3,\)"):
        net(torch.rand(3, 1, 8, 8), torch.rand(3))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(K=0), "K must be at least 1, not 0"),
        (dict(K=1), "K must be at least 2"),
        (dict(p=1, s=2), "p must be at least s, not 1 with s = 2"),
        (dict(nlss_windowsize=4), "nlss_windowsize must be odd, not 4"),
        (dict(nlss_similarity="cosine"), "nlss_similarity must be distance or dot, not cosine"),
        (dict(nlss_compressed="some"), "nlss_compressed must be all, similarity or false"),
    ],
)
def test_wrong_configurations(change, match):
    with pytest.raises(ValueError, match=match):
        Config(**{"nlss_windowsize": 3, **change})


def test_spectral_initialisation():
    """The convolution of each kernel has norm 1, by the singular values of its matrix."""
    net = GroupCDL(Config(K=2, M=3, C=2, p=4, s=2, nlss_windowsize=3))
    parameters.initialise(net, torch.Generator().manual_seed(0))
    size = 16
    unit = torch.eye(2 * size * size).view(-1, 2, size, size)
    matrix = analyse(unit, net.dictionary.detach(), 2).flatten(1)
    # A smaller image than that of the power method has a slightly smaller norm.
    assert 0.9 <= torch.linalg.matrix_norm(matrix, 2) <= 1.001


@pytest.mark.parametrize("complex_images", [False, True])
def test_training_lowers_the_loss(complex_images):
    """Steps on one small batch of a real photograph, or of the phantom; all stays projected."""
    generator = torch.Generator().manual_seed(0)
    config = Config(
        K=3, M=8, p=5, s=2, d=1, is_complex=complex_images, nlss_hidden=4, nlss_windowsize=5
    )
    net = parameters.initialise(GroupCDL(config), generator)
    if complex_images:
        problem = training.Phantom(generator)(1)
    else:
        photograph = training.data.camera()[200:300, 100:200]
        problem = training.Photographs(photograph, generator=generator)(1)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    losses = [training.step(net, optimiser, problem) for _ in range(15)]
    assert losses[-1] < 0.75 * losses[0]
    still = [name for name, value in net.state_dict().items() if torch.equal(value, before[name])]
    assert still == ["layers.0.synthesis"]
    assert all(layer.thresholds.min() >= 0 for layer in net.layers)
    assert 0 <= net.nonlocal_similarity.gamma.item() <= 1
    norms = net.dictionary.detach().abs().square().sum((2, 3)).sqrt()
    assert norms.max() <= 1 + 1e-6


def test_benchmark_network():
    """Both networks agree, the parts add up, and the report shows them."""
    case = replace(NETWORK, channels=4, spatial=(12, 10), window=5)
    result = benchmark.run(case, 1.0)
    assert result["status"] == "ok", result
    for found in (result["ours"], result["plain"]):
        parts = [found[part] for part in benchmark.PARTS]
        assert min(parts) > 0 and sum(parts) < found["total"]
        assert found["calls"] >= 3
    lines = benchmark.markdown(case, result)
    assert any(line.startswith("| blend | ") for line in lines)
    assert lines[-1].startswith("| total | ") and "(100%)" in lines[-1]
    assert "an image of 24 x 20 pixels" in lines[1]


def test_benchmark_network_is_chosen_by_name():
    assert parse(["--cases", "network"]).network
    assert not parse(["--cases", "readme"]).network
    assert parse([]).network and not parse(["--quick"]).network
