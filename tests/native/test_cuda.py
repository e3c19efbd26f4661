"""Tests that need a GPU: streams, devices, graphs and memory.

Tests that are the same on every device are in the other files, and run on ``cuda`` as well; among
them are those that compare the ops with their definitions.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circulant_attention import circulant_attention
from circulant_attention.ops import primitives as ops

G, C, SIZE, WINDOW = 3, 20, (37, 45), [7, 9]
N, K = SIZE[0] * SIZE[1], WINDOW[0] * WINDOW[1]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> torch.device:
    """A GPU; without one the test is skipped, or fails where one is required."""
    if not torch.cuda.is_available():
        if request.config.getoption("--require-cuda"):
            pytest.fail("there is no CUDA device")
        pytest.skip("there is no CUDA device")
    return torch.device("cuda", 0)


Call = Callable[[Tensor, Tensor, Tensor], Tensor]
SCALE = 0.2


def fused(kind: ops.SimilarityKind) -> Call:
    """y and lse side by side, in the dtype of lse, of queries x and keys y."""

    def call(x: Tensor, y: Tensor, values: Tensor) -> Tensor:
        result, lse = NATIVE.attention(x, y, x, WINDOW, int(kind), SCALE)
        return torch.cat((result.flatten(1).to(lse.dtype), lse), 1)

    return call


def fused_backward(kind: ops.SimilarityKind) -> Call:
    """dq, dk and dv one after the other."""

    def call(x: Tensor, y: Tensor, values: Tensor) -> Tensor:
        result, lse = NATIVE.attention(x, y, x, WINDOW, int(kind), SCALE)
        settings = (WINDOW, int(kind), SCALE)
        return torch.stack(NATIVE.attention_backward(y, x, y, x, result, lse, *settings))

    return call


def biases(heads: int, rows: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the offsets and of the keys, in the dtype of sums; some of each are -inf."""
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    bias = torch.linspace(-1, 1, heads * K, device=x.device, dtype=dtype).sin()
    key_bias = torch.linspace(-1, 1, rows * N, device=x.device, dtype=dtype).cos()
    bias[::10] = key_bias[::7] = -torch.inf
    return bias.view(heads, K), key_bias.view(rows, N)


def biased(kind: ops.SimilarityKind) -> Call:
    """As fused, with three heads and one row of keys."""

    def call(x: Tensor, y: Tensor, values: Tensor) -> Tensor:
        both = biases(3, 1, x)
        result, lse = NATIVE.biased_attention(x, y, x, *both, WINDOW, int(kind), SCALE)
        return torch.cat((result.flatten(1).to(lse.dtype), lse), 1)

    return call


def biased_backward(kind: ops.SimilarityKind) -> Call:
    """dq, dk, dv and the gradients of the biases one after the other, those of lse being 1."""

    def call(x: Tensor, y: Tensor, values: Tensor) -> Tensor:
        both, settings = biases(3, 1, x), (WINDOW, int(kind), SCALE)
        result, lse = NATIVE.biased_attention(x, y, x, *both, *settings)
        gradients = NATIVE.biased_attention_backward(
            y, x, y, x, *both, result, lse, torch.ones_like(lse), *settings
        )
        return torch.cat([dx.flatten().to(lse.dtype) for dx in gradients])

    return call


def adjacency(kind: ops.SimilarityKind) -> Call:
    """The adjacency of queries x and keys y."""
    return lambda x, y, values: NATIVE.adjacency(x, y, WINDOW, int(kind), SCALE)


NATIVE = torch.ops.circulant_attention
PRIMITIVES = [
    "dot",
    "distance",
    "adjacency dot",
    "adjacency distance",
    "apply",
    "apply_transposed",
    "transpose",
]

# Of features x, y and of values.
CALLS: dict[str, Call] = {
    "dot": lambda x, y, values: ops.similarity(x, y, WINDOW, int(ops.SimilarityKind.DOT)),
    "distance": lambda x, y, values: ops.similarity(x, y, WINDOW, int(ops.SimilarityKind.DISTANCE)),
    "adjacency dot": adjacency(ops.SimilarityKind.DOT),
    "adjacency distance": adjacency(ops.SimilarityKind.DISTANCE),
    "apply": lambda x, y, values: ops.apply(values, x, WINDOW),
    "apply_transposed": lambda x, y, values: ops.apply_transposed(values, x, WINDOW),
    "transpose": lambda x, y, values: ops.transpose(values, list(SIZE), WINDOW),
    "attention dot": fused(ops.SimilarityKind.DOT),
    "attention distance": fused(ops.SimilarityKind.DISTANCE),
    "gradients dot": fused_backward(ops.SimilarityKind.DOT),
    "gradients distance": fused_backward(ops.SimilarityKind.DISTANCE),
    "biased dot": biased(ops.SimilarityKind.DOT),
    "biased distance": biased(ops.SimilarityKind.DISTANCE),
    "biased gradients dot": biased_backward(ops.SimilarityKind.DOT),
    "biased gradients distance": biased_backward(ops.SimilarityKind.DISTANCE),
}
calls = pytest.mark.parametrize("name", CALLS)
primitives = pytest.mark.parametrize("name", PRIMITIVES)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Features x and y, and values, on the CPU: the same for every device."""
    features = (torch.randn(G, C, *SIZE).to(dtype) for _ in range(2))
    return (*features, torch.randn(G, N, K).to(dtype))


@calls
def test_results_are_bitwise_repeatable(name: str, cuda: torch.device):
    given = [x.to(cuda) for x in inputs()]
    first = CALLS[name](*given)
    for _ in range(20):
        assert torch.equal(CALLS[name](*given), first)


def test_gradients_are_bitwise_repeatable(cuda: torch.device):
    q, k, v = (torch.randn(2, 16, 24, 40).to(cuda).requires_grad_() for _ in range(3))
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (
            torch.autograd.grad(circulant_attention(q, k, v, 9)[0].square().sum(), (q, k, v))
            for _ in range(5)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(map(torch.equal, first, other))


@calls
def test_the_current_stream_is_used(name: str, cuda: torch.device):
    """Inputs are written on that stream after a long wait: another stream would not wait."""
    given = [x.to(cuda) for x in inputs()]
    expected = CALLS[name](*given)
    late = [torch.zeros_like(x) for x in given]
    torch.cuda.synchronize(cuda)
    stream = torch.cuda.Stream(cuda)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        for to, x in zip(late, given, strict=True):
            to.copy_(x)
        result = CALLS[name](*late)
    stream.synchronize()
    assert torch.equal(result, expected)


@calls
def test_the_device_of_the_inputs_is_used(name: str, cuda: torch.device):
    """With two GPUs, whether it is the current one or not."""
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device")
    given = inputs()
    expected = CALLS[name](*(x.to(cuda) for x in given))
    with torch.cuda.device(0):
        result = CALLS[name](*(x.to("cuda:1") for x in given))
        assert torch.cuda.current_device() == 0
    assert result.device == torch.device("cuda", 1)
    assert torch.equal(result.to(cuda), expected)


@pytest.mark.parametrize("name", ["dot", "apply", "apply_transposed", "attention dot"])
def test_tensors_on_different_devices_are_refused(name: str, cuda: torch.device):
    x, y, values = inputs()
    with pytest.raises(RuntimeError, match="device"):
        CALLS[name](x.to(cuda), y, values)


@calls
def test_a_graph_replays_it(name: str, cuda: torch.device):
    given = [x.to(cuda) for x in inputs()]
    CALLS[name](*given)
    torch.cuda.synchronize(cuda)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = CALLS[name](*given)
    for x in given:
        x.copy_(torch.randn_like(x))
    graph.replay()
    torch.cuda.synchronize(cuda)
    assert torch.equal(result, CALLS[name](*given))


def allocated(call: Callable[[], object], device: torch.device) -> int:
    """The peak memory of a call beyond what was allocated before."""
    call()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    assert result is not None
    return torch.cuda.max_memory_allocated(device) - before


def rounded_up(*tensors: Tensor) -> int:
    """The bytes that the allocator takes for them: multiples of 512 each."""
    return sum(-(-x.numel() * x.element_size() // 512) * 512 for x in tensors)


@primitives
def test_only_the_result_is_allocated(name: str, cuda: torch.device):
    given = [x.to(cuda) for x in inputs()]
    size = rounded_up(CALLS[name](*given))
    assert allocated(lambda: CALLS[name](*given), cuda) == size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fused_ops_allocate_their_results_and_delta(dtype: torch.dtype, cuda: torch.device):
    """delta, in the gradients, has the size of lse."""
    x, y, _ = (x.to(cuda) for x in inputs(dtype))
    settings = (WINDOW, int(ops.SimilarityKind.DOT), SCALE)
    result, lse = NATIVE.attention(x, y, x, *settings)
    size = rounded_up(result, lse)
    assert allocated(lambda: NATIVE.attention(x, y, x, *settings), cuda) == size
    given = (y, x, y, x, result, lse, *settings)
    size = rounded_up(x, y, x, lse)
    assert allocated(lambda: NATIVE.attention_backward(*given), cuda) == size


@pytest.mark.parametrize("has_bias", [False, True])
def test_attention_is_fused(has_bias: bool, cuda: torch.device):
    """Far below the memory of its matrix, with gradients as well."""
    q, k, v = (torch.randn(1, 8, 64, 64).to(cuda).requires_grad_() for _ in range(3))
    bias = torch.zeros(1, 15, 15, device=cuda).requires_grad_() if has_bias else None
    mask = torch.zeros(1, 64, 64, device=cuda).requires_grad_() if has_bias else None
    inputs = [x for x in (q, k, v, bias, mask) if x is not None]
    matrix = 4 * 64**2 * 15**2

    def call() -> tuple[Tensor, ...]:
        y = circulant_attention(q, k, v, 15, bias=bias, key_mask=mask)[0]
        return torch.autograd.grad(y.sum(), inputs)

    assert allocated(call, cuda) < matrix / 2


def test_biases_have_kernels(cuda: torch.device):
    given = [x.to(cuda) for x in inputs()]
    call = CALLS["biased gradients dot"]
    call(*given)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call(*given)
        torch.cuda.synchronize(cuda)
    names = " ".join(event.name for event in profile.events())
    for kernel in ("attention_kernel", "attention_backward_kernel", "sum_rows_kernel"):
        assert kernel in names


def test_biases_on_another_device_are_refused(cuda: torch.device):
    x, y, _ = (x.to(cuda) for x in inputs())
    bias, key_bias = biases(3, 1, x)
    settings = (WINDOW, 0, SCALE)
    for both in ((bias.cpu(), key_bias), (bias, key_bias.cpu())):
        with pytest.raises(RuntimeError, match="device"):
            NATIVE.biased_attention(x, y, x, *both, *settings)


@calls
def test_inputs_need_no_alignment(name: str, cuda: torch.device):
    """Views with a storage offset of one element."""
    given = [x.to(cuda) for x in inputs(torch.float16)]
    shifted = []
    for x in given:
        memory = torch.empty(x.numel() + 1, dtype=x.dtype, device=cuda)
        shifted.append(memory[1:].view(x.shape).copy_(x))
    assert torch.equal(CALLS[name](*shifted), CALLS[name](*given))


def test_float32_is_not_rounded_to_tf32(cuda: torch.device):
    """One bit more than TF32 keeps: the products must be exact."""
    x = torch.full((1, 1, 64, 64), 1 + 2.0**-11, device=cuda)
    values = ops.similarity(x, torch.ones_like(x), [3, 3], int(ops.SimilarityKind.DOT))
    assert torch.equal(values, torch.full_like(values, 1 + 2.0**-11))
    assert torch.equal(ops.apply(torch.ones_like(values) / 8, x, [3, 3]), x * 9 / 8)
