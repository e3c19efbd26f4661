"""Train a denoiser on one photograph that is split over processes, 2 x 2 for four.

    torchrun --nproc-per-node 4 examples/distributed.py --compare

Every process holds a part of the photograph and of all features. ``--compare`` also trains on the
whole photograph in one process, and checks that the losses agree.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from skimage import data
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Shard,
    distribute_module,
    distribute_tensor,
)

from circulant_attention import DistanceSimilarity
from circulant_attention.distributed import ShardedGrid, extend_halos
from circulant_attention.nn import CirculantTransformerBlock

SIGMA = 25 / 255
CUT = [Shard(2), Shard(3)]  # of (B, C, H, W), over the two dims of the mesh


class Near(nn.Conv2d):
    """A convolution of 3 x 3 pixels whose borders wrap.

    Torch does not cut it along two dims, so it gets its halos from this package.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, DTensor):
            return super().forward(x)
        mesh = x.device_mesh
        groups = {dim: mesh.get_group(dim) for dim in (0, 1)}
        (extended,) = extend_halos(x.to_local(), W=3, grid=ShardedGrid(x.shape[2:], groups))
        # A dim over one process has no halo: there the borders wrap here.
        wraps = [int(mesh.size(dim) == 1) for dim in (1, 1, 0, 0)]
        extended = F.pad(extended, wraps, mode="circular")
        # Each process has a summand of the gradients.
        weight, bias = (
            p.to_local(grad_placements=[Partial()] * 2) for p in (self.weight, self.bias)
        )
        y = F.conv2d(extended, weight, bias)
        shape = torch.Size((x.shape[0], self.out_channels, *x.shape[2:]))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(y, mesh, CUT, run_check=False, shape=shape, stride=stride)


class Denoiser(nn.Module):
    """Subtracts its estimate of the noise."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Near(1, channels),
            nn.ReLU(),
            CirculantTransformerBlock(
                channels,
                heads=4,
                window=7,
                mlp_ratio=2,
                similarity=DistanceSimilarity(),
                learn_bandwidth=True,
            ),
            Near(channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x - self.layers(x)


def train(clean: Tensor, steps: int, mesh: DeviceMesh | None) -> list[float]:
    """The losses; the same weights and the same noise for any mesh, None being one process."""
    torch.manual_seed(0)
    net = Denoiser()
    noises = SIGMA * torch.randn(steps, *clean.shape)
    if mesh is not None:
        net = distribute_module(net, mesh)
        clean = distribute_tensor(clean, mesh, CUT)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for noise in noises:
        cut = noise if mesh is None else distribute_tensor(noise, mesh, CUT)
        loss = (net(clean + cut) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append((loss if mesh is None else loss.full_tensor()).item())
    return losses


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels a side, at most 512")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--compare", action="store_true", help="with one process")
    options = parser.parse_args(arguments)
    clean = torch.tensor(data.camera()[: options.size, : options.size]) / 255.0
    clean = clean[None, None]
    alone = "RANK" not in os.environ and not dist.is_initialized()
    if alone:
        print("one process:", *(f"{loss:.6f}" for loss in train(clean, options.steps, None)))
        return
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    world = dist.get_world_size()
    rows = max(rows for rows in range(1, int(world**0.5) + 1) if world % rows == 0)
    mesh = init_device_mesh("cpu", (rows, world // rows))
    losses = train(clean, options.steps, mesh)
    if dist.get_rank() == 0:
        print(f"{rows} x {world // rows} processes:", *(f"{loss:.6f}" for loss in losses))
    if options.compare:
        # On every process: none waits long for another.
        expected = train(clean, options.steps, None)
        if dist.get_rank() == 0:
            print("one process:     ", *(f"{loss:.6f}" for loss in expected))
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=0)


if __name__ == "__main__":
    main()
    if dist.is_initialized():
        dist.destroy_process_group()
