"""Two GPUs with NCCL: the exchange, and attention where no dim with a window is cut."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing import assert_close

from circulant_attention import Window, circulant_mh_attention
from circulant_attention.distributed import ShardedGrid, extend_halos, gather_halos

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


def check(rank: int, store: str) -> None:
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cuda", (2,))
    torch.manual_seed(0)
    x = torch.randn(2, 4, 13, 6, device="cuda")
    dist.broadcast(x, 0)
    # The last one leaves nothing to one rank, and the first call connects both.
    for sizes in ([7, 6], [13, 0]):
        for dtype in (torch.float32, torch.bfloat16, torch.complex64):
            grid = ShardedGrid((13, 6), {0: mesh.get_group()}, {0: sizes})
            whole, own = x.to(dtype), grid.slices[0]
            (extended,) = extend_halos(whole[:, :, own], W=(5, 3), grid=grid)
            pixels = torch.arange(own.start - 2, own.stop + 2, device="cuda").remainder(13)
            pixels = pixels if sizes[rank] else pixels[:0]
            assert torch.equal(extended, whole.index_select(2, pixels))
            first = gather_halos(extended, W=(5, 3), grid=grid)[0]
            again = gather_halos(extended, W=(5, 3), grid=grid)[0]
            assert torch.equal(first, again)
    truncated = Window(5, boundary="truncated")
    grid = ShardedGrid((13, 6), {0: mesh.get_group()})
    (extended,) = extend_halos(x[:, :, grid.slices[0]], W=truncated, grid=grid)
    assert extended.shape[2] == (9, 8)[rank]
    for placement in (Shard(0), Shard(1)):
        expected = circulant_mh_attention(x, x, x, 3, 2)[0]
        cut = distribute_tensor(x, mesh, [placement])
        y, A = circulant_mh_attention(cut, cut, cut, 3, 2)
        assert_close(y.full_tensor(), expected)
        assert A.full().shape == (2, 2, 78, 78)
    dist.destroy_process_group()


def test_two_gpus(tmp_path):
    os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"
    mp.spawn(check, (str(tmp_path / "store"),), nprocs=2)
