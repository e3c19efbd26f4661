"""The native op of biased attention: values, registration, derivatives, empty rows, fallback."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import biases
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from windows import CIRCULAR, TRUNCATED, VALID, Dim, Dims, key_sizes, native, sizes

from circulant_attention.ops import biased_fallback, dtypes
from circulant_attention.ops.biased_attention import biased_attention, composed_biased_attention
from circulant_attention.ops.primitives import SimilarityKind

ops = torch.ops.circulant_attention

GRIDS: dict[str, Dims] = {
    "circular": (Dim(5, 1, 1, 1, CIRCULAR), Dim(4, 1, 1, 1, CIRCULAR)),
    "causal": (Dim(7, 2, 0, 1, TRUNCATED),),
    "mixed": (Dim(3, 1, 1, 1, CIRCULAR), Dim(4, 2, 0, 2, TRUNCATED)),
    "valid": (Dim(3, 1, 0, 1, VALID), Dim(4, 1, 1, 1, CIRCULAR)),
}
# The rows of the biases of four groups.
ROWS = {"both": (2, 2), "offsets": (4, None), "keys": (None, 4), "neither": (None, None)}


def inputs(
    dims: Dims,
    heads: int | None = 2,
    rows: int | None = 2,
    absent: bool = False,
    groups: int = 4,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> list[Tensor | None]:
    """q, k, v, bias and key_bias, which require gradients; with ``absent`` some rows are empty."""
    torch.manual_seed(0)
    K = torch.Size([dim.before + dim.after + 1 for dim in dims]).numel()

    def random(*size: int) -> Tensor:
        return torch.randn(*size, dtype=dtype, device=device)

    found: list[Tensor | None] = [
        random(groups, 2, *sizes(dims)),
        random(groups, 2, *key_sizes(dims)),
    ]
    found.append(random(groups, 3, *key_sizes(dims)))
    for count, width in ((heads, K), (rows, torch.Size(key_sizes(dims)).numel())):
        bias = None if count is None else random(count, width)
        if absent and bias is not None:
            bias[0, 1] = -torch.inf
            if width != K:
                bias[-1] = -torch.inf
        found.append(bias)
    return [x if x is None else x.requires_grad_() for x in found]


def given(tensors: list[Tensor | None]) -> list[Tensor]:
    return [x for x in tensors if x is not None]


def function(
    tensors: list[Tensor | None], window: list[int], kind: int, scale: float = 0.7
) -> Callable[..., tuple[Tensor, Tensor]]:
    """y and lse, zero where it is -inf, as a function of the tensors that are not None."""

    def call(*some: Tensor) -> tuple[Tensor, Tensor]:
        found = iter(some)
        all_of_them = [None if x is None else next(found) for x in tensors]
        y, lse = biased_attention(*all_of_them, window, kind, scale)
        return y, lse.masked_fill(lse == -torch.inf, 0)

    return call


@pytest.mark.parametrize("kind", SimilarityKind)
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("dims", GRIDS.values(), ids=GRIDS)
def test_values(dims, rows, kind):
    tensors = inputs(dims, *rows, absent=True)
    flat = [x if x is None else x.flatten(2) for x in tensors[:3]]
    expected = biases.attention(*flat, *tensors[3:], dims, kind, 0.7)
    settings = native(dims), kind, 0.7
    for attend in (biased_attention, composed_biased_attention, biased_fallback.biased_attention):
        y, lse = attend(*tensors, *settings)
        assert_close(y.flatten(2), expected.y, rtol=0, atol=1e-13)
        assert_close(lse, expected.lse, rtol=0, atol=1e-13)


def test_values_are_those_of_torch():
    """Of scaled_dot_product_attention with the bias of each pair as its mask."""
    dims = GRIDS["mixed"]
    q, k, v, bias, key_bias = inputs(dims, 4, 4)
    pairs = biases.offsets_of_pairs(dims)
    mask = bias[:, pairs.clamp(min=0)] + key_bias[:, None]
    mask = mask.masked_fill(pairs < 0, -torch.inf)
    rows = [x.flatten(2).mT for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*rows, mask, scale=0.7)
    y, _ = biased_attention(q, k, v, bias, key_bias, native(dims), SimilarityKind.DOT, 0.7)
    assert_close(y.flatten(2).mT, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("dims", GRIDS.values(), ids=GRIDS)
def test_opcheck(dims, rows, device):
    tensors = inputs(dims, *rows, device=device)
    arguments = (*tensors, native(dims), 1, 0.7)
    torch.library.opcheck(ops.biased_attention.default, arguments)
    y, lse = ops.biased_attention(*arguments)
    tensors = [x if x is None else x.detach() for x in tensors]
    for dlse in (None, torch.ones_like(lse).detach()):
        torch.library.opcheck(
            ops.biased_attention_backward.default,
            (y.detach().cos(), *tensors, y.detach(), lse.detach(), dlse, *arguments[5:]),
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_opcheck_of_other_dtypes(dtype, device):
    tensors = inputs(GRIDS["circular"], dtype=dtype, device=device)
    tensors[3:] = [x.detach().float() for x in tensors[3:]]
    arguments = (*tensors, [3, 3], 0, 0.7)
    torch.library.opcheck(
        ops.biased_attention.default, arguments, test_utils=["test_schema", "test_faketensor"]
    )


def test_opcheck_without_groups(device):
    tensors = inputs(GRIDS["circular"], groups=0, device=device)
    torch.library.opcheck(ops.biased_attention.default, (*tensors, [3, 3], 0, 0.7))
    y, lse = biased_attention(*tensors, [3, 3], 0, 0.7)
    gradients = torch.autograd.grad(y.sum() + lse.sum(), tensors)
    assert all((dx == 0).all() for dx in gradients)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("kind", SimilarityKind)
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("dims", GRIDS.values(), ids=GRIDS)
def test_gradients_of_the_op_are_those_of_its_composition(dims, rows, kind, absent):
    """And of torch's own functions."""
    tensors = inputs(dims, *rows, absent=absent)
    window = native(dims)
    y, lse = biased_attention(*tensors, window, kind, 0.7)
    dy, dlse = torch.randn_like(y), torch.randn_like(lse)
    found = torch.autograd.grad((y, lse), given(tensors), (dy, dlse))
    composed = composed_biased_attention(*tensors, window, kind, 0.7)
    expected = torch.autograd.grad(composed, given(tensors), (dy, dlse))
    detached = [x if x is None else x.detach() for x in tensors]
    torchs = biased_fallback.biased_attention_backward(
        dy, *detached, y.detach(), lse.detach(), dlse, window, kind, 0.7
    )
    torchs = [x for x, own in zip(torchs, tensors, strict=True) if own is not None]
    for one, two, three in zip(found, expected, torchs, strict=True):
        assert_close(one, two, rtol=0, atol=1e-12)
        assert_close(three, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["circular", "causal", "valid"])
@pytest.mark.parametrize("kind", SimilarityKind)
def test_derivatives_of_first_and_second_order(name, kind):
    tensors = inputs(GRIDS[name])
    # Finite differences change the elements of -inf too.
    call = function(tensors, native(GRIDS[name]), kind)
    assert gradcheck(call, given(tensors), check_forward_ad=False, fast_mode=True)
    assert gradgradcheck(call, given(tensors), fast_mode=True)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("name", GRIDS)
def test_transforms_agree_with_reverse_mode(name, absent):
    """Tangents, second derivatives with create_graph and by torch.func, and vmap."""
    dims = GRIDS[name]
    tensors = inputs(dims, absent=absent)
    call = function(tensors, native(dims), 1)
    plain = tuple(x.detach() for x in given(tensors))
    tangents = tuple(x.nan_to_num(neginf=0).cos() for x in plain)

    def loss(*some: Tensor) -> Tensor:
        y, lse = call(*some)
        return y.square().sum() + lse.cos().sum()

    gradients = torch.autograd.grad(loss(*given(tensors)), given(tensors), create_graph=True)
    _, tangent = torch.func.jvp(loss, plain, tangents)
    products = [(g * t).sum() for g, t in zip(gradients, tangents, strict=True)]
    assert_close(tangent, sum(products).detach(), rtol=0, atol=1e-11)

    second = torch.autograd.grad(sum(products), given(tensors))
    of_func = torch.func.jvp(torch.func.grad(loss, tuple(range(5))), plain, tangents)[1]
    for one, other in zip(second, of_func, strict=True):
        assert one.isfinite().all()
        assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "mapped", [(0, 1, 2, 0, 1), (0, None, None, None, None), (None,) * 3 + (0, 0)]
)
def test_vmap(mapped):
    """Of the op and, by is_grads_batched and vmap of grad, of its backward."""
    dims = GRIDS["mixed"]
    tensors = [x.detach() for x in given(inputs(dims))]
    batched = [
        x if at is None else torch.stack([x, x.flip(0), -x], at)
        for x, at in zip(tensors, mapped, strict=True)
    ]

    def native_call(*some: Tensor) -> Tensor:
        y, lse = ops.biased_attention(*some, native(dims), 0, 0.7)
        back = ops.biased_attention_backward(
            y.cos(), *some, y, lse, lse.sin(), native(dims), 0, 0.7
        )
        return y, lse, *back

    def one_by_one(call: Callable[..., tuple[Tensor, ...]]) -> Iterator[Tensor]:
        rows = [
            call(
                *(
                    x if at is None else x.select(at, i)
                    for x, at in zip(batched, mapped, strict=True)
                )
            )
            for i in range(3)
        ]
        return map(torch.stack, zip(*rows, strict=True))

    def composed_call(*some: Tensor) -> tuple[Tensor, ...]:
        return biased_attention(*some, native(dims), 0, 0.7)

    for call in (native_call, composed_call):
        for found, expected in zip(
            torch.vmap(call, mapped)(*batched), one_by_one(call), strict=True
        ):
            assert_close(found, expected, rtol=0, atol=1e-12)


def test_is_grads_batched():
    tensors = inputs(GRIDS["circular"])
    y, _ = biased_attention(*tensors, [3, 3], 0, 0.7)
    dys = torch.randn(3, *y.shape, dtype=y.dtype)
    found = torch.autograd.grad(y, tensors, dys, is_grads_batched=True, retain_graph=True)
    for at, dy in enumerate(dys):
        for one, other in zip(
            found, torch.autograd.grad(y, tensors, dy, retain_graph=True), strict=True
        ):
            assert_close(one[at], other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", SimilarityKind)
def test_rows_without_keys(kind):
    """Zeros in y, -inf in lse, and zero gradients, also where the values are infinite."""
    tensors = inputs(GRIDS["circular"], 2, 2)
    with torch.no_grad():
        tensors[4][1] = -torch.inf  # the keys of groups 2 and 3
        tensors[2][2] = torch.inf
    y, lse = biased_attention(*tensors, [3, 3], kind, 0.7)
    assert (y[2:] == 0).all()
    assert (lse[2:] == -torch.inf).all()
    assert y[:2].isfinite().all()
    with torch.no_grad():
        tensors[2][2] = 1
    y, lse = biased_attention(*tensors, [3, 3], kind, 0.7)
    gradients = torch.autograd.grad(y.sum() + lse[:2].sum(), tensors)
    for dx in gradients[:3]:
        assert (dx[2:] == 0).all()
        assert dx[:2].abs().sum() > 0
    assert gradients[3].isfinite().all()
    assert (gradients[4][1] == 0).all()


@pytest.mark.parametrize("kind", SimilarityKind)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_inputs_stay_in_their_rows(bad, kind):
    """Of a query, in its row; of a key, in the rows that see it. Columns fill no vector."""
    dims = (Dim(9, 1, 1, 1, CIRCULAR), Dim(13, 1, 1, 1, CIRCULAR))
    torch.manual_seed(0)
    q, k, v, bias, key_bias = inputs(dims, 2, 2, dtype=torch.float32)
    clean, _ = biased_attention(q, k, v, bias, key_bias, [3, 3], kind, 0.7)
    for at in range(3):
        spoiled = [x.detach().clone() for x in (q, k, v)]
        spoiled[at][0, :, 4, 12] = bad
        y, _ = biased_attention(*spoiled, bias, key_bias, [3, 3], kind, 0.7)
        far = torch.ones(9, 13, dtype=torch.bool)
        if at == 0:
            far[4, 12] = False
        else:
            far[3:6, [11, 12, 0]] = False
        assert torch.equal(y[1:], clean[1:])
        assert torch.equal(y[0, :, far], clean[0, :, far])


def test_the_gradient_of_biases_at_scale_zero():
    """The gradient of a score is not that of the similarity divided by the scale."""
    tensors = inputs(GRIDS["circular"])
    settings = [3, 3], SimilarityKind.DOT, 0.0
    found = torch.autograd.grad(biased_attention(*tensors, *settings)[0].sum(), tensors)
    composed = composed_biased_attention(*tensors, *settings)[0].sum()
    for one, other in zip(found, torch.autograd.grad(composed, tensors), strict=True):
        assert_close(one, other, rtol=0, atol=1e-13)
    assert found[3].abs().sum() > 0


def test_the_log_sum_exp_alone_has_gradients():
    tensors = inputs(GRIDS["mixed"], absent=True)
    settings = native(GRIDS["mixed"]), SimilarityKind.DISTANCE, 0.7
    some = [*tensors[:2], *tensors[3:]]

    def loss(attend: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
        lse = attend(*tensors, *settings)[1]
        return lse.masked_fill(lse == -torch.inf, 0).sin().sum()

    expected = torch.autograd.grad(loss(composed_biased_attention), some)
    for create_graph in (False, True):
        found = torch.autograd.grad(loss(biased_attention), some, create_graph=create_graph)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, rtol=0, atol=1e-12)


def test_a_bias_without_gradient_has_none():
    q, k, v, bias, key_bias = inputs(GRIDS["circular"])
    y, _ = biased_attention(q, k, v, bias.detach(), key_bias, [3, 3], 0, 0.7)
    y.sum().backward()
    assert bias.grad is None
    assert key_bias.grad is not None


@pytest.mark.parametrize("kind", SimilarityKind)
def test_complex_features(kind):
    """As with the real and imaginary parts side by side."""
    dims = GRIDS["mixed"]
    real, imag = inputs(dims)[:3], [torch.randn_like(x) for x in inputs(dims)[:3]]
    both = inputs(dims)[3:]
    features = [torch.complex(x, y) for x, y in zip(real, imag, strict=True)]
    window = tuple(native(dims))
    found = dtypes.attention(*features, tuple(window), kind, 0.7, *both)
    joined = [torch.cat([x, y], 1).flatten(2) for x, y in zip(real, imag, strict=True)]
    expected = biases.attention(*joined, *both, dims, kind, 0.7).y
    together = torch.cat([found.real, found.imag], 1).flatten(2)
    assert_close(together, expected, rtol=0, atol=1e-13)


def test_half_precision_takes_biases_of_any_dtype():
    dims = GRIDS["circular"]
    tensors = [x.detach().half() for x in given(inputs(dims))]
    y = dtypes.attention(*tensors[:3], (3, 3), SimilarityKind.DOT, 0.7, *tensors[3:])
    exact = [x.double().flatten(2) for x in tensors[:3]] + [x.double() for x in tensors[3:]]
    expected = biases.attention(*exact, dims, 0, 0.7).y
    assert y.dtype == torch.float16
    # One rounding of numbers of at most 4.
    assert_close(y.double().flatten(2), expected, rtol=0, atol=4 * 2**-11)


def test_flops():
    """As of attention: two products forward, five backward."""
    tensors = inputs(GRIDS["circular"])
    each = 2 * 4 * 20 * 9
    with FlopCounterMode(display=False) as counter:
        y, _ = biased_attention(*tensors, [3, 3], 0, 0.7)
        y.sum().backward()
    assert dict(counter.get_flop_counts()["Global"]) == {
        ops.biased_attention: each * (2 + 3),
        ops.biased_attention_backward: each * (3 * 2 + 2 * 3),
    }


def test_compiled():
    tensors = inputs(GRIDS["circular"])

    def loss(*some: Tensor) -> Tensor:
        y, lse = biased_attention(*some, [3, 3], 1, 0.7)
        return y.square().sum() + lse.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss(*tensors), tensors)
    for one, other in zip(torch.autograd.grad(compiled(*tensors), tensors), expected, strict=True):
        assert_close(one, other, rtol=0, atol=1e-13)
