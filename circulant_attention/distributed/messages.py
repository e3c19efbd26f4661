"""Messages between the ranks of a process group: one per pair of ranks and direction.

Point to point, so that the cost does not grow with the ranks of the group. NCCL ignores tags, and
with two ranks both neighbours are the same one: a second message of a pair could be taken for the
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

_JOINED: set[tuple[str, str]] = set()
"""The groups, and the devices, that have communicated."""


class Sent:
    """The bytes and the messages that this process has sent; for measurements."""

    bytes = 0
    messages = 0


class Pending:
    """Messages under way.

    Args:
        sent: A flat tensor for each rank that receives one; kept until they have left.
        received: A flat tensor to fill for each rank that sends one.
        works: The handles of all.
    """

    def __init__(
        self, sent: dict[int, Tensor], received: dict[int, Tensor], works: list[Any]
    ) -> None:
        self._sent = sent
        self._received = received
        self._works = works

    def wait(self) -> dict[int, Tensor]:
        """What came, by rank."""
        for work in self._works:
            work.wait()
        self._sent.clear()
        return self._received


def start(outgoing: dict[int, Tensor], counts: dict[int, int], like: Tensor, group: str) -> Pending:
    """Sends flat tensors and receives others, without waiting for them.

    Args:
        outgoing: The tensor for each rank of the group.
        counts: The number of elements from each rank; all of the dtype and device of ``like``.
        like: A tensor.
        group: The name of the process group.
    """
    incoming = {rank: like.new_empty(count) for rank, count in counts.items()}
    # Of an empty batch. Both ends know the sizes.
    outgoing = {rank: tensor for rank, tensor in outgoing.items() if tensor.numel()}
    if not outgoing and not any(counts.values()):
        return Pending(outgoing, incoming, [])
    process_group = distributed_c10d._resolve_process_group(group)  # type: ignore[attr-defined, arg-type]
    operations = [
        # As bytes: not every backend knows complex numbers.
        dist.P2POp(kind, tensor.view(torch.uint8), group=process_group, group_peer=rank)
        for kind, tensors in ((dist.irecv, incoming), (dist.isend, outgoing))
        for rank, tensor in tensors.items()
        if tensor.numel()
    ]
    Sent.messages += len(outgoing)
    Sent.bytes += sum(x.numel() * x.element_size() for x in outgoing.values())
    return Pending(outgoing, incoming, dist.batch_isend_irecv(operations))


def join(group: str, device: torch.device) -> None:
    """Lets all ranks of a group communicate once.

    A backend may connect its ranks at their first call, which all of them must make: a rank without
    pixels sends no message. Every rank calls this in the same order.
    """
    if device.type == "cpu" or (group, device.type) in _JOINED:
        return
    process_group = distributed_c10d._resolve_process_group(group)  # type: ignore[attr-defined, arg-type]
    dist.all_reduce(torch.zeros(1, device=device), group=process_group)
    _JOINED.add((group, device.type))


def flat(pieces: Sequence[Tensor]) -> Tensor:
    """The elements of some tensors side by side."""
    return torch.cat([piece.resolve_conj().resolve_neg().reshape(-1) for piece in pieces])
