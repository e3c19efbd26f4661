"""The contract of every module: what torch's own layers can do, too."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from gradients import outputs_and_gradients
from torch import nn
from torch.testing import assert_close

from circulant_attention import DistanceSimilarity, Window
from circulant_attention import nn as own

# Under autocast these have the results of float32, and those add them in float32 to their input.
NOT_CAST = ("AxialPositionalEmbedding", "CosAttn")
RESIDUAL = ("CirculantTransformerBlock", "AxialImageTransformer", "CosMHSA")
# Sums of at most 1e4 products of numbers of order 1 in another order, in float64.
EXACT = {"rtol": 1e4 * 2**-53, "atol": 1e4 * 2**-53}


@dataclass
class Case:
    """A module, called with `inputs` tensors of one shape.

    The sizes of `shape` differ: the compiler takes equal ones for equal always, and compiles again.
    `row` is the smallest shape that it takes, `shown` are parts of its representation. `fixed` are
    the beginnings of the names that keep their values when parameters are drawn anew. `insensitive`
    are those of parameters that no result depends on: a softmax does not change if the same number
    is added to all scores of a row, as the bias of the keys does. `drops`: it has a dropout.
    """

    make: Callable[..., nn.Module]
    shape: tuple[int, ...]
    row: tuple[int, ...]
    shown: str
    inputs: int = 1
    fixed: tuple[str, ...] = ()
    insensitive: tuple[str, ...] = ()
    drops: bool = False
    out: tuple[int, ...] | None = None


def pool(device=None, dtype=None, **kwargs):
    return own.FusedAttention(
        *(nn.Conv2d(4, 4, 1, device=device, dtype=dtype) for _ in range(3)), window=2, **kwargs
    )


def bag(device=None, dtype=None):
    layers = (nn.Linear(4, 4, bias=False, device=device, dtype=dtype) for _ in range(2))
    return own.FusedAttention(*layers, norm=torch.sigmoid, scale=0.5)


def denoiser(device=None, dtype=None):
    return own.NonlocalDenoiser(0.5, window=3, patch=3, bandwidth=0.9, boundary="truncated")


def distance(**kwargs):
    return {"similarity": DistanceSimilarity(), "bandwidth": 0.5, "learn_bandwidth": True, **kwargs}


CASES = {
    "CirculantAttention1d": Case(
        lambda **kw: own.CirculantAttention1d(4, 2, 3, **kw),
        (2, 4, 7),
        (1, 4, 3),
        "channels=4, heads=2, window=(3,), similarity=DotSimilarity()",
        insensitive=("to_k.bias",),
    ),
    "CirculantAttention2d": Case(
        lambda **kw: own.CirculantAttention2d(4, 2, (1, 3), **distance(**kw)),
        (2, 4, 5, 6),
        (1, 4, 1, 3),
        "window=(1, 3), similarity=DistanceSimilarity(), bandwidth=0.5, learn_bandwidth=True",
        fixed=("log_bandwidth",),
    ),
    "CirculantAttention3d": Case(
        lambda **kw: own.CirculantAttention3d(4, 2, (1, 3, 1), bias=False, **kw),
        (2, 4, 3, 5, 6),
        (1, 4, 1, 3, 1),
        "channels=4, heads=2, window=(1, 3, 1)",
    ),
    "CirculantAttention1d-causal": Case(
        lambda **kw: own.CirculantAttention1d(
            4, 2, Window(((2, 0),), dilation=2, boundary="truncated"), **kw
        ),
        (2, 4, 7),
        (1, 4, 1),
        "window=Window(((2, 0),), dilation=2, boundary='truncated'), similarity=DotSimilarity()",
        insensitive=("to_k.bias",),
    ),
    "CirculantTransformerBlock-window": Case(
        lambda **kw: own.CirculantTransformerBlock(
            4, 2, Window(4, boundary=("truncated", "circular")), **distance(**kw)
        ),
        (2, 4, 5, 6),
        (1, 4, 1, 4),
        "window=Window(4, boundary=('truncated', 'circular'))",
        fixed=("norm", "attention.log_bandwidth"),
    ),
    "CirculantAttention2d-terms": Case(
        lambda **kw: own.CirculantAttention2d(
            4, 2, (1, 3), relative_bias=True, attention_dropout=0.25, **kw
        ),
        (2, 4, 5, 6),
        (1, 4, 1, 3),
        "relative_bias=True, attention_dropout=0.25",
        fixed=("relative_bias",),
        drops=True,
        insensitive=("to_k.bias",),
    ),
    "CirculantTransformerBlock": Case(
        lambda **kw: own.CirculantTransformerBlock(4, 2, (1, 3), dropout=0.25, **kw),
        (2, 4, 5, 6),
        (1, 4, 1, 3),
        "p=0.25",
        fixed=("norm",),
        drops=True,
        insensitive=("attention.to_k.bias",),
    ),
    "CirculantTransformerBlock-distance": Case(
        lambda **kw: own.CirculantTransformerBlock(4, 2, 3, mlp_ratio=3, **distance(**kw)),
        (2, 4, 5, 6),
        (1, 4, 3, 3),
        "Conv2d(4, 12, kernel_size=(1, 1), stride=(1, 1))",
        fixed=("norm", "attention.log_bandwidth"),
    ),
    "SelfAttention": Case(
        lambda **kw: own.SelfAttention(4, 2, dim_heads=3, dropout=0.25, **kw),
        (2, 5, 4),
        (1, 1, 4),
        "dim=4, heads=2, dim_heads=3, dropout=0.25",
        drops=True,
    ),
    "AxialAttention": Case(
        lambda **kw: own.AxialAttention(4, heads=2, num_dimensions=3, sum_axial_out=False, **kw),
        (2, 3, 6, 5, 4),
        (1, 1, 1, 1, 4),
        "dim=4, num_dimensions=3, dim_index=4, sum_axial_out=False",
    ),
    "AxialAttention-summed": Case(
        lambda **kw: own.AxialAttention(4, heads=2, dim_index=1, **kw),
        (2, 4, 5, 6),
        (1, 4, 1, 3),
        "(fn): SelfAttention(",
    ),
    "AxialPositionalEmbedding": Case(
        lambda **kw: own.AxialPositionalEmbedding(4, (8, 8), **kw),
        (2, 4, 5, 6),
        (1, 4, 1, 1),
        "dim=4, shape=(8, 8), emb_dim_index=1",
    ),
    "AxialImageTransformer": Case(
        lambda **kw: own.AxialImageTransformer(
            4, 1, 2, axial_pos_emb_shape=(8, 8), dropout=0.25, **kw
        ),
        (2, 4, 5, 6),
        (1, 4, 1, 3),
        "dim=4, depth=1, dim_index=1, reversible=True",
        fixed=("@1",),
        drops=True,
    ),
    "AxialImageTransformer-plain": Case(
        lambda **kw: own.AxialImageTransformer(4, 1, 2, reversible=False, dim_index=-1, **kw),
        (2, 5, 6, 4),
        (1, 1, 3, 4),
        "dim=4, depth=1, dim_index=3, reversible=False",
        fixed=("@1",),
    ),
    "CosAttn1d": Case(
        lambda **kw: own.CosAttn1d(8, 2, 9, **kw),
        (2, 4, 6),
        (1, 4, 1),
        "N=(8,), n_head=2, M=(9,), eps=1e-05",
        inputs=3,
        fixed=("attn_coef",),
    ),
    "CosAttn2d": Case(
        lambda **kw: own.CosAttn2d(8, 2, (9, 10), eps=0.5, **kw),
        (2, 4, 5, 6),
        (1, 4, 1, 3),
        "N=(8, 8), n_head=2, M=(9, 10), eps=0.5",
        inputs=3,
        fixed=("attn_coef",),
    ),
    "CosAttn3d": Case(
        lambda **kw: own.CosAttn3d(8, 2, 9, **kw),
        (2, 4, 3, 5, 6),
        (1, 4, 1, 1, 3),
        "N=(8, 8, 8), n_head=2, M=(9, 9, 9)",
        inputs=3,
        fixed=("attn_coef",),
    ),
    "CosMHSA": Case(
        lambda **kw: own.CosMHSA(2, 4, 8, dropout=0.25, **kw),
        (2, 4, 5, 6),
        (1, 4, 1, 3),
        "p=0.25",
        fixed=("norm", "cos_att"),
        drops=True,
    ),
    "FusedAttention": Case(
        lambda **kw: pool(flatten=True, scale=0.5, **kw),
        (2, 4, 5, 6),
        (1, 4, 2, 2),
        "window=2, stride=2, scale=0.5, flatten=True",
        insensitive=("f_K.bias",),
        out=(16,),
    ),
    "FusedAttention-collection": Case(
        bag, (2, 7, 4), (1, 1, 4), "norm=sigmoid, window=None, stride=None, scale=0.5", out=(4,)
    ),
    "NonlocalDenoiser": Case(
        denoiser, (3, 2, 5, 6), (1, 1, 3, 3), "bandwidth=0.9, boundary='truncated', memory="
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def inputs(case, device="cpu", dtype=torch.double, shape=None):
    return torch.randn(case.inputs, *(shape or case.shape), dtype=dtype, device=device).unbind()


def made(case, device="cpu", dtype=torch.double):
    return case.make(device=device, dtype=dtype).eval()


def result_shape(case, shape):
    return shape if case.out is None else (shape[0], *case.out)


def after_roundings(dtype, exact):
    """A dozen layers or so, each with roundings of numbers of the size of its results."""
    return 16 * torch.finfo(dtype).eps * exact.abs().max().item()


def test_every_module_is_here():
    assert {name.partition("-")[0] for name in CASES} == set(own.__all__)


def test_begins_on_the_meta_device(case):
    module = case.make(device="meta").eval()
    assert all(x.is_meta for x in module.state_dict().values())
    y = module(*inputs(case, "meta", torch.float32))
    assert y.is_meta and y.shape == result_shape(case, case.shape)
    module.to_empty(device="cpu")
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
    for name, value in module.state_dict().items():
        assert value.isfinite().all()
        if name.startswith(case.fixed):
            assert_close(value, made(case, dtype=torch.float32).state_dict()[name])
    assert module(*inputs(case, dtype=torch.float32)).isfinite().all()


def test_reset_parameters_draws_all_anew(case, device):
    torch.manual_seed(0)
    module = made(case, device)
    before = copy.deepcopy(module.state_dict())
    for value in module.state_dict().values():
        nn.init.constant_(value, 7)
    if before:
        module.reset_parameters()
    for name, value in module.state_dict().items():
        # Gains begin as ones, their biases as zeros: "@1" finds them by their values.
        constant = "@1" in case.fixed and before[name].unique().numel() == 1
        fixed = constant or name.startswith(case.fixed)
        assert torch.equal(value, before[name]) == fixed, name
        assert not (value == 7).any(), name


def test_representation_names_the_arguments(case):
    assert case.shown in repr(case.make())


def test_state_is_saved_and_loaded(case, device):
    module, other = made(case, device), made(case, device)
    x = inputs(case, device)
    other.load_state_dict(module.state_dict())
    assert_close(other(*x), module(*x), rtol=0, atol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_apart(case, copied, device):
    module = made(case, device)
    x = inputs(case, device)
    y = module(*x)
    other = copied(module)
    with torch.no_grad():
        for value in module.state_dict().values():
            value.zero_()
    assert_close(other(*x), y, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_moves_between_dtypes_and_devices(case, dtype, device):
    module = made(case, device)
    x = inputs(case, device)
    exact = module(*x)
    y = module.to(dtype)(*(one.to(dtype) for one in x))
    assert y.dtype == dtype and y.device == exact.device
    assert_close(y.double(), exact, rtol=0, atol=after_roundings(dtype, exact))
    assert all(value.dtype == dtype for value in module.state_dict().values())
    assert module.to("meta")(*(one.to("meta", dtype) for one in x)).is_meta


def test_a_batch_of_none(case, device):
    module = made(case, device)
    x = [one[:0].requires_grad_() for one in inputs(case, device)]
    y = module(*x)
    assert y.shape == (0, *result_shape(case, case.shape)[1:])
    y.sum().backward()
    assert all(one.grad.shape == one.shape for one in x)
    assert not any(p.grad is not None and p.grad.any() for p in module.parameters())


def test_the_smallest_grid(case, device):
    x = inputs(case, device, shape=case.row)
    y = made(case, device)(*x)
    assert y.shape == result_shape(case, case.row) and y.isfinite().all()


def test_inference_mode(case, device):
    if device == "emulated":
        pytest.skip("the emulated device has no inference mode")
    module = made(case, device)
    x = inputs(case, device)
    expected = module(*x)
    with torch.inference_mode():
        assert_close(module(*x), expected, **EXACT)
        assert_close(module(*(one.clone() for one in x)), expected, **EXACT)


def test_every_parameter_has_a_gradient(case, device):
    module = made(case, device).train()
    x = [one.requires_grad_() for one in inputs(case, device)]
    y = module(*x)
    (y * torch.randn_like(y)).sum().backward()
    for name, leaf in [*module.named_parameters(), *((f"x{i}", one) for i, one in enumerate(x))]:
        assert leaf.grad.isfinite().all(), name
        assert (leaf.grad.abs().max() > 1e-12) != name.startswith(case.insensitive or "?"), name


def test_autocast(case, device):
    module = made(case, device, torch.float32)
    x = [one.requires_grad_() for one in inputs(case, device, torch.float32)]
    exact = module(*x)
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        y = module(*x)
    name = type(module).__name__
    assert (y.dtype == torch.float32) == name.startswith((*NOT_CAST, *RESIDUAL))
    assert torch.equal(y.float(), exact) == name.startswith(NOT_CAST)
    y.float().square().sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in (*x, *module.parameters()))
    assert all(leaf.grad.dtype == torch.float32 for leaf in (*x, *module.parameters()))
    assert_close(y.float(), exact, rtol=0, atol=after_roundings(torch.bfloat16, exact))


def test_dropout_is_on_in_training_only(case, device):
    module = made(case, device)
    x = inputs(case, device)
    assert torch.equal(module(*x), module(*x))
    module.train()
    assert torch.equal(module(*x), module(*x)) != case.drops


# Dynamo itself instantiates the autograd.Function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiles_as_one_graph_for_all_sizes(case, device):
    module = made(case, device)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    parameters = list(module.parameters())
    grown = (case.shape[0] + 1, *(n + (n not in (2, 4)) for n in case.shape[1:]))
    # Torch fixes the sizes in the backward pass of the reversible layers.
    torch._dynamo.reset()
    one_graph = not getattr(module, "reversible", False)
    with torch._dynamo.config.patch(error_on_recompile=one_graph):
        for shape in (case.shape, grown):
            x = inputs(case, device, shape=shape)
            found = outputs_and_gradients(compiled, *x, parameters=parameters)
            assert_close(found, outputs_and_gradients(module, *x, parameters=parameters), **EXACT)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_is_exported(case, device):
    module = made(case, device)
    x = inputs(case, device)
    exported = torch.export.export(module, x).module()
    assert_close(exported(*x), module(*x), **EXACT)


def test_derivatives(case, device):
    """Reverse and forward mode, and the second order of both kinds."""
    module = made(case, device)
    x = [one.requires_grad_() for one in inputs(case, device, shape=case.row)]
    names = [name for name, _ in module.named_parameters()]

    def function(*tensors):
        weights = dict(zip(names, tensors[case.inputs :], strict=True))
        return torch.func.functional_call(module, weights, tensors[: case.inputs])

    leaves = (*x, *module.parameters())
    check = {"check_forward_ad": True, "fast_mode": True}
    assert torch.autograd.gradcheck(function, leaves, **check)
    assert torch.autograd.gradgradcheck(module, tuple(x), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


# Some operators of torch have no batching rule: vmap loops over them and says so.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_transforms(case, device):
    """By the inputs and by weights that take the place of the module's."""
    module = made(case, device)
    x = inputs(case, device)
    weights = {name: p.detach() for name, p in module.named_parameters()}

    def loss(weights, *x):
        return torch.func.functional_call(module, weights, x).square().sum()

    by_inputs = torch.func.grad(lambda *x: loss(weights, *(one[None] for one in x)))
    each = torch.func.vmap(by_inputs)(*x)
    leaves = [one.clone().requires_grad_() for one in x]
    module(*leaves).square().sum().backward()
    assert_close(each.squeeze(1), leaves[0].grad, **EXACT)
    tangents = tuple(map(torch.randn_like, x))
    value, tangent = torch.func.jvp(lambda *x: loss(weights, *x), x, tangents)
    assert_close(value, loss(weights, *x), **EXACT)
    along = sum((one.grad * t).sum() for one, t in zip(leaves, tangents, strict=True))
    assert_close(tangent, along, rtol=1e-9, atol=1e-9)

    def by_weights(*x):
        return torch.func.grad(loss)(weights, *(one[None] for one in x))

    for name, gradients in torch.func.vmap(by_weights)(*x).items():
        assert_close(gradients.sum(0), module.get_parameter(name).grad, **EXACT)
