"""Dropout of the entries of a matrix: a mask that does not depend on how the matrix is cut.

Whether an entry is dropped is a hash of its row, its column and a seed. So each process computes
the mask of its own rows, processes with the same rows have the same mask, and another mesh, or
other placements, give the same one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial

from circulant_attention.distributed.grid import Halos
from circulant_attention.distributed.placements import BATCH, CHANNELS, Placed

# As signed numbers: of splitmix64, and of C. Wellons' hash of 32 bits with little bias.
_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
_STEP, _THIRD, _FOURTH = -1640531535, 2146121005, -2073254261


def common_seed(mesh: DeviceMesh, device: torch.device) -> Tensor:
    """A random number that is the same on every rank; every rank draws one, and takes part.

    From the generator of the device, so that a checkpoint, which restores its state, finds the
    number again.
    """
    own = torch.randint(2**62, (), device=device)
    # The largest: where the generators of all ranks have one state, that of one process.
    placements = [Partial("max")] * mesh.ndim
    seed: Tensor = DTensor.from_local(own, mesh, placements, run_check=False).full_tensor()
    return seed


def dropped(values: Tensor, p: float, placed: Placed, halos: Halos, nheads: int) -> Tensor:
    """The values ``(G, n, K)``, each zero with probability p, and the others divided by 1 - p."""
    if p == 0:
        return values
    seed = common_seed(placed.mesh, values.device)
    if p == 1:
        return values * 0
    bits = _hashed(_rows(placed, halos, nheads, values.device), values.shape[-1], seed)
    kept = halos.to_offsets(bits.bitwise_and_(2**31 - 1) >= min(round(p * 2**31), 2**31 - 1))
    return torch.where(kept, values * (1 / (1 - p)), 0)


def _rows(placed: Placed, halos: Halos, nheads: int, device: torch.device) -> Tensor:
    """The numbers ``(G, n)`` of this rank's rows in the whole matrix."""
    samples = torch.arange(placed.batch_size, device=device)
    heads = torch.arange(nheads, device=device)
    rows = placed.own(samples, 0, BATCH, placed.batch_size)[:, None] * nheads
    rows = (rows + placed.own(heads, 0, CHANNELS, nheads)).flatten()[:, None]
    grid = halos.grid
    for size, own in zip(grid.spatial_size, grid.slices, strict=True):
        pixels = torch.arange(own.start, own.stop, device=device)
        rows = (rows[:, :, None] * size + pixels).flatten(1)
    return rows


def _hashed(rows: Tensor, entries: int, seed: Tensor) -> Tensor:
    """32 random bits ``(*rows, entries)`` of each entry."""
    words = (rows + 1) * _GOLDEN + seed
    words = (words ^ _shifted(words, 30, 64)) * _FIRST
    words = (words ^ _shifted(words, 27, 64)) * _SECOND
    words = words ^ _shifted(words, 31, 64)
    low, high = words.to(torch.int32), _shifted(words, 32, 64).to(torch.int32)
    slots = torch.arange(entries, dtype=torch.int32, device=rows.device) * _STEP
    bits = low[..., None] + slots
    bits ^= _shifted(bits, 16, 32)
    bits *= _THIRD
    # The other half of the row's number, so that rows with one half in common differ.
    bits ^= high[..., None]
    bits ^= _shifted(bits, 15, 32)
    bits *= _FOURTH
    bits ^= _shifted(bits, 16, 32)
    return bits


def _shifted(x: Tensor, count: int, width: int) -> Tensor:
    """The bits of signed numbers of ``width`` bits shifted to the right, with zeros in front."""
    return (x >> count) & ((1 << (width - count)) - 1)
