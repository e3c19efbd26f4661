"""Axial attention against the `axial_attention` package and against itself."""

import copy
from pathlib import Path

import pytest
import torch
from peak_memory import PeakMemory
from torch.testing import assert_close

from circulant_attention import nn as own
from circulant_attention.nn import scaled_dot_product

USAGE = Path(__file__).parents[2] / "examples" / "axial_attention_usage.py"
# Sums of at most 1e4 products of numbers of order 1, in another order.
EXACT = {"rtol": 1e4 * 2**-53, "atol": 1e4 * 2**-53}


def results(module, x, *args, call=None):
    """The result and the gradients, by ``backward``: the reference package has no other."""
    x = x.detach().clone().requires_grad_()
    y = (module if call is None else call)(x, *args)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view(y.shape)
    module.zero_grad()
    (y + weights).square().mean().backward()
    return [y.detach(), x.grad, *(p.grad for p in module.parameters())]


def pair(call, device):
    """The reference module and ours with the same weights, drawn from the same seed."""
    # Here, so that the other tests, such as those on a GPU, run without that package.
    import axial_attention as reference

    modules = []
    for package in (reference, own):
        torch.manual_seed(0)
        modules.append(eval(call, dict(vars(package))).to(device, torch.double))
    return modules


def randomise(module):
    """Weights that leave no symmetry, biases and gains included."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
            parameter.copy_(parameter + 0.2 * noise.to(parameter.device))


# The shapes of the inputs.
MODULES = {
    "AxialAttention(8, dim_index=1, heads=2)": [(2, 8, 5, 7)],
    "AxialAttention(8, heads=4)": [(2, 5, 7, 8)],
    "AxialAttention(3, dim_index=1, dim_heads=5, heads=1)": [(1, 3, 4, 6)],
    "AxialAttention(6, num_dimensions=3, dim_index=2, heads=3)": [(2, 3, 6, 4, 5)],
    "AxialAttention(6, num_dimensions=3, dim_index=2, heads=2, sum_axial_out=False)": [
        (2, 3, 6, 4, 5)
    ],
    "AxialPositionalEmbedding(4, (5, 7))": [(2, 4, 5, 7)],
    "AxialPositionalEmbedding(4, (3, 5, 7), emb_dim_index=4)": [(2, 3, 5, 7, 4)],
    "SelfAttention(8, heads=2, dim_heads=3)": [(3, 6, 8)],
    "SelfAttention(8, heads=2)": [(3, 4, 8), (3, 6, 8)],
} | {
    f"AxialImageTransformer(8, depth=2, heads=2, reversible={reversible}{shape})": [(2, 8, 5, 7)]
    for reversible in (True, False)
    for shape in ("", ", axial_pos_emb_shape=(5, 7)")
}


@pytest.mark.parametrize("call", MODULES)
def test_equals_the_reference_package(call, device):
    theirs, ours = pair(call, device)
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)  # the same initial draw
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, *kv = (torch.randn(shape, dtype=torch.double, device=device) for shape in MODULES[call])
    assert_close(results(ours, x, *kv), results(theirs, x, *kv), **EXACT)
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_close(theirs(x, *kv), ours(x, *kv), **EXACT)


@pytest.mark.parametrize("block", range(5))
def test_usage_of_the_reference_package(block):
    """Its README's examples; the two that take long run on tensors without data."""
    source = USAGE.read_text().split("# %% ")[1:]
    assert len(source) == 5
    code = "# " + source[block]
    if block in (2, 3):
        with torch._subclasses.FakeTensorMode():
            exec(code, {})
    else:
        exec(code, {})


# Reversible form


def plain_autograd(net, x, mask=None):
    """The reversible transformer's function with every activation recorded."""
    x = net.pos_emb(x)
    a = b = x
    for block in net.layers.blocks:
        a, b = block(a, b, mask)
    return (a + b) / 2


def transformer(device="cpu", dtype=torch.double, **kwargs):
    torch.manual_seed(0)
    settings = {"dim": 4, "depth": 2, "heads": 2, "axial_pos_emb_shape": (8, 8)} | kwargs
    return own.AxialImageTransformer(**settings, device=device, dtype=dtype)


@pytest.mark.parametrize("mode", ["train", "eval", "create_graph"])
def test_reversible_gradients_equal_recorded_ones(mode, device):
    """A plain pass takes fused kernels and no transform, one that records a graph the others."""
    net = transformer(device, depth=4).train(mode != "eval")
    x = torch.randn(2, 4, 5, 7, dtype=torch.double, device=device, requires_grad=True)
    leaves = [x, *net.parameters()]
    y = net(x)
    assert_close(y, plain_autograd(net, x), **EXACT)
    found = torch.autograd.grad(y.square().sum(), leaves, create_graph=mode == "create_graph")
    recorded = torch.autograd.grad(plain_autograd(net, x).square().sum(), leaves)
    assert_close(found, recorded, **EXACT)
    for parameter in list(net.parameters())[::2]:
        parameter.requires_grad_(False)
    net.zero_grad()
    net(x).square().sum().backward()
    found = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert set(found) == {name for name, p in net.named_parameters() if p.requires_grad}
    net.zero_grad()
    plain_autograd(net, x).square().sum().backward()
    for name, gradient in found.items():
        assert_close(gradient, net.get_parameter(name).grad, **EXACT)


def training_peak(reversible, depth):
    net = own.AxialImageTransformer(dim=4, depth=depth, heads=2, reversible=reversible)
    x = torch.randn(1, 4, 32, 32, requires_grad=True)
    with PeakMemory() as memory:
        net(x).sum().backward()
    gradients = sum(p.grad.untyped_storage().nbytes() for p in net.parameters())
    return memory.peak - gradients


def test_reversible_training_memory_does_not_grow_with_depth():
    """398408 bytes for depth 2 and for depth 24; 1047192 and 11279128 with activations kept."""
    assert training_peak(True, 24) == training_peak(True, 2) < training_peak(False, 2)
    assert training_peak(False, 24) > 8 * training_peak(False, 2)


def test_reversible_dropout_is_replayed(device):
    """Two passes before one backward: nothing of a pass is kept in the module."""
    net = transformer(device, dropout=0.4)
    x = torch.randn(2, 2, 4, 5, 7, dtype=torch.double, device=device, requires_grad=True)
    found = []
    for call in (net, lambda x: plain_autograd(net, x)):
        torch.manual_seed(7)
        product = call(x[0]) * call(x[1])
        found.append([product, *torch.autograd.grad(product.sum(), [x, *net.parameters()])])
        # The generator goes on from the forward passes.
        found[-1].append(torch.rand(1, device=device))
    assert_close(*found, **EXACT)


@pytest.mark.parametrize("reversible", [True, False], ids=["reversible", "plain"])
def test_gradcheck_of_the_masked_transformer(reversible, device):
    net = transformer(device, dim=2, depth=1, heads=1, reversible=reversible)
    randomise(net)
    x = torch.randn(1, 2, 2, 3, dtype=torch.double, device=device, requires_grad=True)
    mask = torch.tensor([[[True, True, False], [False, True, False]]], device=device)
    # At the pixels that a mask sets to zero the channel norm's root has no derivative.
    assert torch.autograd.gradcheck(lambda x: net(x, mask), (x,))


def test_masked_attention_has_every_derivative(device):
    """torch's fused kernels have the first in reverse mode only."""
    module = own.AxialAttention(2, heads=2, dtype=torch.double, device=device)
    x = torch.randn(1, 2, 3, 2, dtype=torch.double, device=device, requires_grad=True)
    mask = torch.tensor([[[True, True, False], [False, True, False]]], device=device)

    def function(x):
        return module(x, mask)

    assert torch.autograd.gradcheck(function, (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, (x,))
    hessian = torch.func.hessian(lambda x: function(x).square().sum())(x)
    twice = torch.autograd.functional.hessian(lambda x: function(x).square().sum(), x)
    assert_close(hessian, twice, **EXACT)


def test_a_first_derivative_takes_the_fused_kernel():
    """In a plain backward pass nothing is computed by the mathematical backend."""
    module = own.SelfAttention(8, 2)
    x = torch.randn(2, 16, 8, requires_grad=True)
    with torch.profiler.profile() as profile:
        module(x).sum().backward()
    called = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu_backward" in called
    assert "aten::_scaled_dot_product_attention_math" not in called


# Attention by the formula, masks, dropout, sizes


def attention_by_hand(module, x, mask):
    """The formula of SelfAttention in float64."""
    h, e = module.heads, module.dim_heads
    q = (x @ module.to_q.weight.T).unflatten(-1, (h, e))
    k, v = ((x @ w.T).unflatten(-1, (h, e)) for w in module.to_kv.weight.chunk(2))
    scores = torch.einsum("bihe,bjhe->bhij", q, k) / e**0.5
    scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    y = torch.einsum("bhij,bjhe->bihe", scores.softmax(-1), v).flatten(2)
    return y @ module.to_out.weight.T + module.to_out.bias


def test_masked_self_attention_by_hand(device):
    module = own.SelfAttention(6, 2, dim_heads=4, dtype=torch.double, device=device)
    x = torch.randn(3, 5, 6, dtype=torch.double, device=device)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 1]]).bool().to(device)
    by_hand = results(module, x, call=lambda x: attention_by_hand(module, x, mask))
    assert_close(results(module, x, None, mask), by_hand, **EXACT)


@pytest.mark.parametrize("index", [1, -1, 2], ids=["first", "last", "middle"])
@pytest.mark.parametrize("chained", [False, True], ids=["summed", "sequential"])
def test_masked_axial_attention_equals_the_cut_grid(index, chained, device):
    torch.manual_seed(0)
    module = own.AxialAttention(
        6,
        heads=2,
        dim_index=index,
        sum_axial_out=not chained,
        dtype=torch.double,
        device=device,
    )
    x = torch.randn(2, 5, 7, 6, dtype=torch.double, device=device)
    mask = torch.zeros(2, 5, 7, dtype=torch.bool, device=device)
    mask[0, :3, :4] = True
    mask[1, :, 5:] = True
    y = module(x.movedim(-1, index), mask).movedim(index, -1)
    cut = [x[:1, :3, :4], x[1:, :, 5:]]
    alone = [module(part.movedim(-1, index)).movedim(index, -1) for part in cut]
    assert_close(y[:1, :3, :4], alone[0], **EXACT)
    assert_close(y[1:, :, 5:], alone[1], **EXACT)
    assert not y[~mask].any()


@pytest.mark.parametrize("reversible", [True, False], ids=["reversible", "plain"])
def test_masked_transformer_equals_the_image_alone(reversible, device):
    net = transformer(device, reversible=reversible)
    randomise(net)
    x = torch.randn(2, 4, 6, 8, dtype=torch.double, device=device)
    mask = torch.zeros(2, 6, 8, dtype=torch.bool, device=device)
    mask[0, :4, :5] = True
    mask[1] = True
    y, dx, *_ = results(net, x, mask)
    assert_close(y[:1, :, :4, :5], net(x[:1, :, :4, :5]), **EXACT)
    assert_close(y[1:], net(x[1:]), **EXACT)
    assert not y.movedim(1, -1)[~mask].any()
    assert not dx.movedim(1, -1)[~mask].any()


def test_attention_weights_are_dropped_in_training_only(device):
    torch.manual_seed(0)
    module = own.SelfAttention(4, 1, dropout=0.5, dtype=torch.double, device=device)
    with torch.no_grad():  # values all equal to one: each output is a sum of attention weights
        module.to_kv.weight[4:] = 1.0
        module.to_out.weight.copy_(torch.eye(4, device=device))
        module.to_out.bias.zero_()
    x = torch.rand(1, 2000, 4, dtype=torch.double, device=device)
    x /= x.sum(-1, keepdim=True)
    sums = module(x)[0, :, 0]
    # About 1000 of 2000 weights survive, doubled: one sum scatters by about 1/sqrt(2000), their
    # mean by less than that.
    assert 0.1 / 2000**0.5 < sums.std() < 10 / 2000**0.5
    assert abs(sums.mean() - 1) < 0.05
    sums = module.eval()(x)[0, :, 0]
    assert_close(sums, torch.ones_like(sums), **EXACT)


def test_a_batch_too_large_for_one_launch_is_split(monkeypatch, device):
    torch.manual_seed(0)
    module = own.AxialAttention(4, heads=2, dtype=torch.double, device=device)
    x = torch.randn(2, 5, 7, 4, dtype=torch.double, device=device)
    mask = torch.rand(2, 5, 7, device=device) > 0.3
    whole = module(x), module(x, mask)
    monkeypatch.setattr(scaled_dot_product, "_LARGEST_BATCH", 3)
    assert_close((module(x), module(x, mask)), whole, **EXACT)


def test_embedding_of_a_smaller_rectangle(device):
    embed = own.AxialPositionalEmbedding(3, (6, 9), dtype=torch.double, device=device)
    x = torch.randn(2, 3, 4, 7, dtype=torch.double, device=device)
    full = embed(torch.zeros(1, 3, 6, 9, dtype=torch.double, device=device))
    assert_close(embed(x), x + full[:, :, :4, :7], **EXACT)


@pytest.mark.parametrize("index", [-1, 2])
def test_transformer_with_channels_elsewhere(index, device):
    net, moved = transformer(device), transformer(device, dim_index=index)
    for name, parameter in moved.named_parameters():
        weight = net.get_parameter(name)
        parameter.data = weight.movedim(1, index) if name.startswith("pos_emb") else weight
    x = torch.randn(2, 4, 5, 7, dtype=torch.double, device=device)
    assert_close(moved(x.movedim(1, index)).movedim(index, 1), net(x), **EXACT)


# Dtypes, compilation


@pytest.mark.parametrize("reversible", [True, False], ids=["reversible", "plain"])
def test_single_precision_and_autocast(device, reversible):
    net = transformer(device, reversible=reversible)
    single = copy.deepcopy(net).float()
    x = torch.randn(2, 4, 5, 7, dtype=torch.double, device=device)
    exact = results(net, x)

    def worst(found):
        pairs = zip(found, exact, strict=True)
        return max((f.double() - e).abs().max() / e.abs().max() for f, e in pairs)

    # Each of some 20 layers rounds to 24 (8 with bfloat16) bits; errors of that many roundings.
    assert worst(results(single, x.float())) < 100 * 2**-24

    def under_autocast(x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return single(x)

    found = results(single, x.float(), call=under_autocast)
    assert found[0].dtype == torch.float32
    assert 2**-16 < worst(found) < 100 * 2**-8


def test_backward_inside_autocast_after_a_pass_without_graph(device):
    """A weight cast by a pass that records no graph must not cut the next one's gradients."""
    net = transformer(device, dtype=torch.float32)
    x = torch.randn(2, 4, 5, 7, device=device)
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        net(x).sum().backward()
        inside = [p.grad.clone() for p in net.parameters()]
        net.zero_grad()
        y = net(x).sum()
    y.backward()
    assert_close(inside, [p.grad for p in net.parameters()], rtol=0, atol=0)


# Dynamo itself instantiates the autograd.Function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("reversible", [True, False], ids=["reversible", "plain"])
def test_compiles_as_one_graph_with_dropout_and_mask(reversible, device):
    net = transformer(device, depth=1, reversible=reversible, dropout=0.4)
    x = torch.randn(2, 4, 5, 7, dtype=torch.double, device=device)
    mask = torch.rand(2, 5, 7, device=device) > 0.3
    found = []
    for call in (torch.compile(net, fullgraph=True, backend="aot_eager"), net):
        torch.manual_seed(3)
        found.append(results(net, x, mask, call=call))
    assert_close(*found, **EXACT)
