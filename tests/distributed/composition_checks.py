"""torch.compile, checkpoints, data parallelism and refusals with sharded grids."""

from __future__ import annotations

import copy
import re
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from attention_checks import R, S, check_equal, mesh_of
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DTensor,
    Partial,
    distribute_module,
    distribute_tensor,
)
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from circulant_attention import (
    Circulant,
    DistanceSimilarity,
    DotSimilarity,
    circulant,
    circulant_attention,
    circulant_attention_,
    circulant_mh_adjacency,
    circulant_mh_attention,
    mh,
)
from circulant_attention.distributed import (
    DistributedCirculant,
    ShardedGrid,
    messages,
    sharded_adjacency,
    sharded_apply,
    sharded_attention,
)
from circulant_attention.nn import CirculantTransformerBlock

W, HEADS = (5, 3), 2


def whole_inputs() -> list[Tensor]:
    """q, k, v whose rows no number of ranks divides."""
    return [torch.randn(1, 4, 4 * max(2, dist.get_world_size()) - 1, 6) for _ in range(3)]


def flat_mesh() -> Any:
    return mesh_of((dist.get_world_size(),))


def cut(xs: list[Tensor]) -> list[Any]:
    return [distribute_tensor(x, flat_mesh(), [S(2)]).requires_grad_() for x in xs]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return circulant_mh_attention(DistanceSimilarity(), q, k, v, W, HEADS)[0]


def value_and_grads(function: Callable[..., Tensor], xs: list[Tensor]) -> list[Tensor]:
    y = function(*xs)
    return [y.detach(), *torch.autograd.grad((y**2).sum(), xs)]


def local_api() -> None:
    """The same values from plain shards, of sizes that are not those of chunks."""
    world = dist.get_world_size()
    group = flat_mesh().get_group()
    sizes = [7] if world == 1 else [7, *[2] * (world - 2), 0]
    q, k, v = (torch.randn(2, 4, sum(sizes), 6) for _ in range(3))
    grid = ShardedGrid((sum(sizes), 6), {0: group}, {0: sizes})
    shards = [x[(..., *grid.slices)].requires_grad_() for x in (q, k, v)]
    full = [x.requires_grad_() for x in (q, k, v)]
    y, _ = circulant_mh_attention(*full, W, HEADS)
    found = sharded_attention(*shards, W, HEADS, grid=grid)
    check_equal(found, y[(..., *grid.slices)])
    B = circulant_mh_adjacency(DotSimilarity(), *full[:2], W, HEADS)
    rows = sharded_adjacency(DotSimilarity(), *shards[:2], W, HEADS, grid=grid)
    expected = B.values.reshape(2, HEADS, *grid.spatial_size, -1)
    check_equal(rows, expected[:, :, grid.slices[0]])
    z = mh(B.mT, mh(B, full[2]))
    own = sharded_apply(rows, shards[2], W, grid=grid)
    own = sharded_apply(rows, own, W, grid=grid, transposed=True)
    check_equal(own, z[(..., *grid.slices)], 64)
    expected_grads = torch.autograd.grad((y**2).sum() + (z**2).sum(), full)
    grads = torch.autograd.grad((found**2).sum() + (own**2).sum(), shards)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        scale = float(theirs.abs().max())
        assert_close(mine, theirs[(..., *grid.slices)], rtol=0, atol=1e-5 * scale)


def compiled() -> None:
    """Without a break in the graph, forward in bits; uneven shards."""
    if dist.get_world_size() != 2:
        return
    warnings.simplefilter("ignore")
    grid = ShardedGrid((7, 6), {0: flat_mesh().get_group()})
    inputs = whole_inputs()
    for function, xs in (
        (attend, cut(inputs)),
        (
            lambda q, k, v: sharded_attention(q, k, v, W, HEADS, grid=grid),
            [x[(..., *grid.slices)].clone().requires_grad_() for x in inputs],
        ),
        (and_matrix, cut(inputs)),
        (masked, cut([*inputs, torch.randn(inputs[0].shape[2:])[None, None]])),
    ):
        torch._dynamo.reset()
        expected = value_and_grads(function, xs)
        found = value_and_grads(torch.compile(function, fullgraph=True, backend="aot_eager"), xs)
        for own, wanted in zip(found, expected, strict=True):
            check_equal(own, getattr(wanted, "full_tensor", lambda w=wanted: w)(), 64)


def and_matrix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    y, A = circulant_mh_attention(q, k, v, W, HEADS)
    return y + mh(A.mT, v)


def masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return circulant_mh_attention(q, k, v, W, HEADS, key_mask=mask)[0]


def checkpointed() -> None:
    xs = cut(whole_inputs())
    expected = value_and_grads(attend, xs)
    found = value_and_grads(lambda *x: checkpoint(attend, *x, use_reentrant=False), xs)
    for own, wanted in zip(found, expected, strict=True):
        assert torch.equal(own.to_local(), wanted.to_local())


def one_rank_looks() -> None:
    """The entries of A are computed without messages, on one rank alone."""
    full = whole_inputs()
    _, expected = circulant_mh_attention(*full, W, HEADS)
    _, A = circulant_mh_attention(*cut(full), W, HEADS)
    before = messages.Sent.messages
    if dist.get_rank() == 0:
        assert "DistributedCirculant(float32, window (5, 3)" in repr(A)
        own = A.rows.to_local()
        wanted = expected.values.reshape(1, HEADS, *full[0].shape[2:], -1)[:, :, : own.shape[2]]
        assert torch.equal(own, wanted)
    assert messages.Sent.messages == before


def strange_strides() -> None:
    """Shards that are channels-last and lazily conjugated, and expanded gradients."""
    full = [x.to(torch.complex64) * (1 + 0.5j) for x in whole_inputs()]
    expected = circulant_mh_attention(*(x.conj() for x in full), W, HEADS)[0]
    xs = []
    for x in full:
        shard = distribute_tensor(x, flat_mesh(), [S(2)]).to_local()
        shard = shard.contiguous(memory_format=torch.channels_last).conj()
        assert shard.is_conj() and not shard.is_contiguous()
        xs.append(
            DTensor.from_local(
                shard, flat_mesh(), [S(2)], run_check=False, shape=x.shape, stride=x.stride()
            ).requires_grad_()
        )
    y = circulant_mh_attention(*xs, W, HEADS)[0]
    check_equal(y, expected)
    torch.autograd.grad(y.real.sum(), xs)


def saved_and_loaded() -> None:
    """Rows saved in one layout and loaded in another are those of the same matrix."""
    if dist.get_world_size() == 1:
        return
    full = whole_inputs()
    _, expected = circulant_mh_attention(*full, W, HEADS)
    _, A = circulant_mh_attention(*cut(full), W, HEADS)
    path = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(path)
    rows = A.rows.detach()
    other = distribute_tensor(torch.zeros(rows.shape), flat_mesh(), [S(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"rows": rows}, checkpoint_id=path[0])
        dcp.load({"rows": other}, checkpoint_id=path[0])
    B = DistributedCirculant(other, W)
    assert torch.equal(B.full().values, expected.values)
    v = full[2]
    check_equal(mh(B, distribute_tensor(v, flat_mesh(), [S(3)])), mh(expected, v), 8, [S(3)])


def refused() -> None:
    """By every rank at once, with what to do."""
    world = dist.get_world_size()
    mesh = flat_mesh()
    (x, *_) = whole_inputs()
    q = distribute_tensor(x, mesh, [S(2)])
    partial = DTensor.from_local(x, mesh, [Partial()], run_check=False)
    square = init_device_mesh("cpu", (world, 1))
    twice = distribute_tensor(x, mesh_of((2, world // 2)), [S(2), S(2)]) if world == 4 else None
    replicated = distribute_tensor(x, mesh, [R])
    _, A = circulant_attention(q, q, q, 3)
    B = circulant_attention(replicated, replicated, replicated, 3)[1]
    n = x.shape[2]
    calls: list[tuple[Callable[[], object], type, str]] = [
        (lambda: circulant_attention(q, x, q, 3), TypeError, "expected k to be a DTensor .*Tensor"),
        (lambda: circulant_attention(x, q, q, 3), TypeError, "expected q to be a DTensor"),
        (lambda: circulant_attention(q, replicated, q, 3), ValueError, r"k.redistribute\(place"),
        (lambda: circulant_attention(*3 * [partial], 3), ValueError, "q is P.* summands"),
        (
            lambda: circulant_attention(q, distribute_tensor(x, square, [S(2), R]), q, 3),
            ValueError,
            "expected k on the device mesh of q",
        ),
        # Against the whole grid, not against a shard.
        (lambda: circulant_attention(q, q, q, n + 2), ValueError, f"got {n + 2} for spatial dim 0"),
        (lambda: circulant_attention(q, q, q, 2), ValueError, "must be odd"),
        (lambda: circulant_mh_attention(q, q, q, 3, 3), ValueError, "divisible by nheads=3"),
        (lambda: circulant_attention(q.int(), q.int(), q, 3), TypeError, "expected q to be one of"),
        (lambda: circulant_attention_(q, A, q), TypeError, "attention_ does not take DTensors"),
        (lambda: circulant(3, q), TypeError, "circulant does not take DTensors"),
        (lambda: circulant_attention(Circulant(3, (1, 1, n, 6)), q), TypeError, "Distributed"),
        (
            lambda: circulant_attention(q, q, q, 3, key_mask=x[:, 0].clone().requires_grad_()),
            TypeError,
            "key_mask that requires a gradient to be a DTensor",
        ),
        (lambda: circulant_attention(q, q, q, 3, key_mask=q), ValueError, "expected key_mask of"),
        (
            lambda: circulant_attention(
                q, q, q, 3, key_mask=distribute_tensor(x[:, 0], square, [S(1), R])
            ),
            ValueError,
            "key_mask on the device mesh of q",
        ),
        (lambda: A @ x, TypeError, "expected x to be a DTensor"),
        (lambda: A @ replicated, ValueError, "x.redistribute"),
        (lambda: A + B, ValueError, "expected a matrix with placements"),
        (lambda: A + A.mT, ValueError, "orientation"),
        (lambda: A.mT.rows, TypeError, r"use A.full\(\).mT"),
        (lambda: A.mT.softmax(), TypeError, r"use A.full\(\).mT"),
        (lambda: A.to_dense(), AttributeError, r"use A.full\(\).to_dense"),
        (lambda: A[0], TypeError, r"use A.full\(\)"),
        (lambda: torch.exp(A), TypeError, "A.with_rows"),
        (lambda: A.sum(0), ValueError, "expected dim to be -1, -2"),
        (lambda: A * torch.ones((), requires_grad=True), TypeError, "replicated DTensor"),
        (lambda: DistributedCirculant(x, 3), TypeError, "expected rows to be a DTensor"),
    ]
    if world > 1:
        channels = distribute_tensor(x, mesh, [S(1)])
        calls += [
            (lambda: circulant_attention(*3 * [channels], 3), ValueError, "nheads to be divisible"),
            (
                lambda: circulant_attention(q, q, q, 3, key_mask=replicated[:, 0]),
                ValueError,
                r"use key_mask.redistribute\(placements=\(Shard\(dim=1\),\)\)",
            ),
        ]
    if twice is not None:
        calls.append((lambda: circulant_attention(*3 * [twice], 3), ValueError, "flatten these"))
    for call, kind, text in calls:
        try:
            call()
        except kind as error:
            assert re.search(text, str(error)), f"{error} does not say {text}"
        else:
            raise AssertionError(f"accepted, expected {kind.__name__} with {text}")


def data_parallel() -> None:
    """FSDP2 and DDP, over another mesh dim and over all ranks: the gradients of one process."""
    if dist.get_world_size() != 4:
        return
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "space"))
    space = mesh["space"]
    data = torch.randn(2, 8, 7, 6)
    reference = CirculantTransformerBlock(8, HEADS, W, mlp_ratio=1)
    reference(data).square().mean().backward()
    expected = {name: p.grad for name, p in reference.named_parameters()}
    largest = max(float(grad.abs().max()) for grad in expected.values())
    mine = data[mesh.get_local_rank("data")][None]

    def check(module: nn.Module) -> None:
        found = 0
        for name, parameter in module.named_parameters():
            grad = parameter.grad
            grad = grad.full_tensor() if isinstance(grad, DTensor) else grad
            wanted = expected[name.removeprefix("module.")]
            # Of the largest gradient: that of the bias of the keys is zero.
            assert_close(grad, wanted, rtol=0, atol=1e-5 * largest)
            found += 1
        assert found == len(expected)

    # Parameters and activations are DTensors over space; FSDP cuts the parameters over data.
    module = distribute_module(copy.deepcopy(reference), space)
    fully_shard(module, mesh=mesh["data"])
    module.zero_grad()
    module(distribute_tensor(mine, space, [S(2)])).square().mean().backward()
    check(module)

    # DDP and FSDP over all ranks, plain parameters: each rank has a summand of the loss.
    grid = ShardedGrid((7, 6), {0: space.get_group()})
    for parallel in (DistributedDataParallel, fully_shard):
        local = Sharded(copy.deepcopy(reference), grid)
        local.zero_grad()
        parallel_module = parallel(local)
        y = parallel_module(mine[(..., *grid.slices)])
        # Both take the mean over the ranks.
        (y.square().sum() * (4 / data.numel())).backward()
        names = {f"block.{name}": grad for name, grad in expected.items()}
        expected, kept = names, expected
        check(parallel_module)
        expected = kept


class Sharded(nn.Module):
    """A transformer block on plain shards: its attention is that of the whole grid."""

    def __init__(self, block: CirculantTransformerBlock, grid: ShardedGrid) -> None:
        super().__init__()
        self.block, self.grid = block, grid

    def forward(self, x: Tensor) -> Tensor:
        block, attention = self.block, self.block.attention
        normed = block.norm1(x)
        q, k, v = attention.to_q(normed), attention.to_k(normed), attention.to_v(normed)
        x = x + attention.to_out(sharded_attention(q, k, v, W, HEADS, grid=self.grid))
        return x + block.mlp(block.norm2(x))
