"""Fused attention (pooling of L inputs into one) against its formula, column by column."""

import copy
import math

import pytest
import torch
from gradients import outputs_and_gradients
from peak_memory import PeakMemory
from torch import nn
from torch.testing import assert_close

from circulant_attention.nn import FusedAttention
from circulant_attention.nn import averaged_softmax as averaged

# Sums of at most 1e3 products of numbers of order 1 in another order, in float64.
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def by_hand(Q, K, V, norm=None, fuse=None, scale=None):
    """The formula for one sample: columns of Q, K (u, L) and V (d, L), one input each."""
    d, L = V.shape
    norm = norm or (lambda S: S.softmax(dim=0))
    fuse = fuse or (lambda S: S.mean(dim=1))
    scores = K.T @ Q * (1 / math.sqrt(d) if scale is None else scale)
    alpha = fuse(norm(scores)).reshape(L)
    return V @ alpha, alpha


def columns_of_patches(x, window, stride):
    """The patches of (C, *spatial) as columns, cut out one by one in row-major order."""
    starts = [range(0, n - w + 1, s) for n, w, s in zip(x.shape[1:], window, stride, strict=True)]
    corners = torch.cartesian_prod(*map(torch.tensor, map(list, starts))).reshape(-1, len(starts))
    patches = []
    for corner in corners.tolist():
        cut = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        patches.append(x[(slice(None), *cut)].reshape(-1))
    return torch.stack(patches, dim=1)


CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PATCHES = {
    "sequence": ((13,), (3,), (2,)),
    "image": ((6, 9), (2, 3), None),
    "overlapping": ((7, 6), (3, 2), (1, 2)),
    "remainder": ((7, 8), (2, 3), (2, 3)),
    "volume": ((4, 5, 4), 2, (2, 1, 2)),
    "whole": ((3, 4), (3, 4), (3, 4)),
    "integers": ((7, 9), 3, 2),
}


def of_every_dim(n, dims):
    return (n,) * dims if isinstance(n, int) else n


@pytest.mark.parametrize("case", PATCHES)
def test_patches_by_hand(case, device):
    size, *settings = PATCHES[case]
    kwargs = {"padding": 1, "dtype": torch.double, "device": device}
    f_Q, f_K, f_V = (CONVOLUTIONS[len(size)](3, c, 3, **kwargs) for c in (4, 4, 2))
    kwargs = dict(zip(("window", "stride"), settings, strict=True))
    pool = FusedAttention(f_Q, f_K, f_V, **kwargs)
    window = of_every_dim(kwargs["window"], len(size))
    stride = of_every_dim(kwargs["stride"] or window, len(size))
    x = torch.randn(2, 3, *size, dtype=torch.double, device=device)

    def expected(x):
        maps = zip(*(f(x) for f in (f_Q, f_K, f_V)), strict=True)
        columns = ((columns_of_patches(z, window, stride) for z in sample) for sample in maps)
        return torch.stack([by_hand(*Q_K_V)[0].view(2, *window) for Q_K_V in columns])

    parameters = list(pool.parameters())
    found = outputs_and_gradients(pool, x, parameters=parameters)
    assert found[0].shape == (2, 2, *window)
    assert_close(found, outputs_and_gradients(expected, x, parameters=parameters), **EXACT)
    flat = FusedAttention(f_Q, f_K, f_V, **kwargs, flatten=True)
    assert_close(flat(x), found[0].flatten(1), **EXACT)


@pytest.mark.parametrize("stacked", [False, True], ids=["list", "tensor"])
def test_collection_by_hand(stacked, device):
    f_Q, f_K, f_V = (nn.Conv2d(3, c, 3, dtype=torch.double, device=device) for c in (4, 4, 2))
    pool = FusedAttention(f_Q, f_K, f_V)
    x = torch.randn(2, 7, 3, 5, 4, dtype=torch.double, device=device)

    def expected(x):
        maps = (
            (torch.stack([f(one).flatten() for one in sample], 1) for f in (f_Q, f_K, f_V))
            for sample in x
        )
        return torch.stack([torch.cat(by_hand(*Q_K_V)) for Q_K_V in maps])

    parameters = list(pool.parameters())

    def y_and_weights(x):
        y, alpha = pool(x if stacked else list(x.unbind(1)), need_weights=True)
        assert y.shape == (2, 2, 3, 2)
        return torch.cat((y.flatten(1), alpha), 1)

    found = outputs_and_gradients(y_and_weights, x, parameters=parameters)
    assert_close(found, outputs_and_gradients(expected, x, parameters=parameters), **EXACT)


NORMS = {
    "default": None,
    "column-softmax": lambda S: S.softmax(dim=-2),
    "row-softmax": nn.Softmax(dim=-1),
    "sigmoid": torch.sigmoid,
}
FUSES = {
    "default": None,
    "mean": lambda P: P.mean(dim=-1),
    "max": lambda P: P.amax(dim=-1, keepdim=True),
    "learned": nn.Linear(5, 1, dtype=torch.double),
}


@pytest.mark.parametrize("fuse", FUSES)
@pytest.mark.parametrize("norm", NORMS)
def test_other_norms_and_fuses(norm, fuse, device):
    norm, fuse = NORMS[norm], copy.deepcopy(FUSES[fuse])
    f_Q, f_K = (nn.Linear(3, 4, dtype=torch.double) for _ in range(2))
    pool = FusedAttention(f_Q, f_K, norm=norm, fuse=fuse, scale=0.7).to(device)
    x = torch.randn(2, 5, 3, dtype=torch.double, device=device)

    def expected(x):
        samples = [by_hand(f_Q(one).T, f_K(one).T, one.T, norm, fuse, 0.7)[0] for one in x]
        return torch.stack(samples)

    parameters = list(pool.parameters())
    assert_close(
        outputs_and_gradients(pool, x, parameters=parameters),
        outputs_and_gradients(expected, x, parameters=parameters),
        **EXACT,
    )


def test_g_V_is_applied_to_the_result(device):
    head = nn.Linear(12, 5, dtype=torch.double, device=device)
    pool = FusedAttention(g_V=head, window=2, flatten=True)
    x = torch.randn(2, 3, 4, 6, dtype=torch.double, device=device)
    assert_close(pool(x), head(FusedAttention(window=2)(x).flatten(1)), **EXACT)


# A variable number of inputs


@pytest.mark.parametrize("fuse", [None, FUSES["max"]], ids=["streamed", "custom"])
def test_masked_inputs_are_as_if_they_were_not_there(fuse, device):
    pool = FusedAttention(nn.Linear(3, 4).double(), nn.Linear(3, 4).double(), fuse=fuse).to(device)
    x = torch.randn(3, 6, 3, dtype=torch.double, device=device)
    kept = [[0, 1, 2, 3, 4, 5], [1, 4], [3]]
    mask = torch.zeros(3, 6, dtype=torch.bool, device=device)
    for sample, chosen in enumerate(kept):
        mask[sample, chosen] = True
    padded = x.masked_fill(~mask.unsqueeze(-1), torch.nan)
    y, alpha = pool(padded, mask, need_weights=True)
    for sample, chosen in enumerate(kept):
        alone, weights = pool(x[sample : sample + 1, chosen], need_weights=True)
        assert_close(y[sample : sample + 1], alone, **EXACT)
        assert_close(alpha[sample : sample + 1, chosen], weights, **EXACT)
    assert not alpha[~mask].any()
    found = outputs_and_gradients(lambda x: pool(x, mask), x)
    expected = outputs_and_gradients(
        lambda x: torch.cat([pool(x[i : i + 1, chosen]) for i, chosen in enumerate(kept)]), x
    )
    assert_close(found, expected, **EXACT)


def test_masked_patches(device):
    """Two patches of six remain."""
    pool = FusedAttention(window=2)
    x = torch.randn(1, 3, 4, 6, dtype=torch.double, device=device)
    mask = torch.tensor([[True, False, False, False, False, True]], device=device)
    corners = torch.stack([x[:, :, :2, :2], x[:, :, 2:, 4:]], dim=1)
    assert_close(pool(x, mask), FusedAttention()(corners), **EXACT)


# Streaming


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_parts_agree_with_the_whole(masked, monkeypatch, device):
    """300 inputs in three parts, and in one."""
    x = torch.randn(2, 300, 3, dtype=torch.double, device=device)
    mask = torch.rand(2, 300, device=device) > 0.5 if masked else None
    pool = FusedAttention(scale=0.3)
    found = outputs_and_gradients(lambda x: pool(x, mask), x)
    monkeypatch.setattr(averaged, "_ROWS", 1000)
    assert_close(found, outputs_and_gradients(lambda x: pool(x, mask), x), **EXACT)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_memory_is_linear_in_the_number_of_inputs(training):
    """The matrix of 4096 x 4096 alone would take 64 MiB; the peak is below a quarter."""
    peaks = []
    for length in (1024, 2048, 4096):
        x = torch.randn(1, length, 8, requires_grad=training)
        with PeakMemory() as memory:
            y = FusedAttention()(x)
            if training:
                y.sum().backward()
        peaks.append(memory.peak)
    assert peaks[2] - peaks[1] == 2 * (peaks[1] - peaks[0])
    assert peaks[2] < 64 * 2**20 / 4
    with PeakMemory() as memory:
        FusedAttention(norm=nn.Softmax(dim=-2))(x)
    assert memory.peak > 64 * 2**20


# Derivatives, dtypes, compilation


def test_gradcheck(monkeypatch, device):
    monkeypatch.setattr(averaged, "_ROWS", 2)
    pool = FusedAttention(nn.Linear(2, 2).double(), window=None).to(device)
    x = torch.randn(2, 5, 2, dtype=torch.double, device=device, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True, False, True, True, False]], device=device)
    assert torch.autograd.gradcheck(lambda x: pool(x, mask), (x,))
    assert torch.autograd.gradgradcheck(lambda x: pool(x, mask), (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision(dtype, device):
    x = torch.rand(2, 300, 8, device=device).to(dtype)
    y, alpha = FusedAttention()(x, need_weights=True)
    assert y.dtype == dtype and alpha.dtype == torch.float32
    exact = FusedAttention()(x.double())
    # Scores below 3, so their relative errors are at most thrice as large in the weights; every
    # further rounding is relative to positive terms.
    assert_close(y.double(), exact, rtol=16 * torch.finfo(dtype).eps, atol=0)


def test_gradients_in_float16_do_not_underflow(device):
    """The mean and the softmax of 1024 inputs divide by 2^20; float16 ends at 2^-24."""
    x = (0.5 * torch.randn(1, 1024, 8, device=device)).half()
    f_Q, f_K = (nn.Linear(8, 8, bias=False).to(device) for _ in range(2))
    pool = FusedAttention(f_Q, f_K)
    parameters = list(pool.double().parameters())
    expected = outputs_and_gradients(pool, x.double(), parameters=parameters)
    parameters = list(pool.half().parameters())
    found = outputs_and_gradients(pool, x, parameters=parameters)
    for half, exact in zip(found[2:], expected[2:], strict=True):
        assert (half - exact).norm() < 0.05 * exact.norm()


def test_weights_under_autocast(device):
    pool = FusedAttention(nn.Linear(8, 8), f_V=nn.Linear(8, 8)).to(device)
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        _, alpha = pool(torch.rand(2, 200, 8, device=device), need_weights=True)
    assert alpha.dtype == torch.float32
    assert_close(alpha.sum(1), torch.ones(2, device=device), rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiles_as_one_graph_with_a_mask(device):
    pool = FusedAttention(nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1), window=2)
    pool = pool.to(device, torch.double)
    x = torch.randn(1, 2, 26, 26, dtype=torch.double, device=device)
    mask = torch.rand(1, 169, device=device) > 0.5
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    parameters = list(pool.parameters())
    found = outputs_and_gradients(lambda x: compiled(x, mask), x, parameters=parameters)
    expected = outputs_and_gradients(lambda x: pool(x, mask), x, parameters=parameters)
    assert_close(found, expected, **EXACT)
