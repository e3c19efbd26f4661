"""Who owns which pixels: the arithmetic of all ranks at once, without processes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circulant_attention.distributed.shards import chunk_sizes, make_plan


@given(st.integers(0, 40), st.integers(1, 12))
def test_chunks_are_those_of_torch(pixels, ranks):
    expected = [len(chunk) for chunk in torch.arange(pixels).chunk(ranks)] if pixels else []
    assert chunk_sizes(pixels, ranks) == (*expected, *[0] * (ranks - len(expected)))


@given(st.data())
def test_plans_of_all_ranks_make_the_extended_shards(data):
    sizes = tuple(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=7).filter(sum)))
    n, circular = sum(sizes), data.draw(st.booleans())
    most = n if circular else n + 3
    before, after = data.draw(st.integers(0, most)), data.draw(st.integers(0, most))
    plans = [make_plan(rank, sizes, before, after, circular) for rank in range(len(sizes))]
    starts = [sum(sizes[:rank]) for rank in range(len(sizes))]
    for rank, plan in enumerate(plans):
        pixels = list(range(starts[rank] - before, starts[rank] + sizes[rank] + after))
        if not circular:
            pixels = [pixel for pixel in pixels if 0 <= pixel < n]
        pixels = pixels if sizes[rank] else []
        assert plan.extended == len(pixels)
        found = {plan.before + i: starts[rank] + i for i in range(sizes[rank])}
        for owner, parts in ((rank, plan.own), *plan.takes):
            assert (owner == rank) == (parts is plan.own)
            # Both ends of a message have the same parts in the same order.
            assert parts is plan.own or dict(plans[owner].gives)[rank] == parts
            for part in parts:
                assert part.source + part.length <= sizes[owner]
                for i in range(part.length):
                    assert found.setdefault(part.position + i, starts[owner] + part.source + i) >= 0
        assert [found[i] for i in range(len(pixels))] == [pixel % n for pixel in pixels]
        assert len(found) == len(pixels)
        for other, _ in plan.gives:
            assert rank in dict(plans[other].takes)


def test_a_halo_longer_than_the_circle_is_refused():
    with pytest.raises(ValueError, match="at most the 5 pixels"):
        make_plan(0, (3, 2), 6, 0, True)


def test_plans_of_many_ranks_are_cheap():
    """The parts of other ranks are looked at only nearby."""
    plan = make_plan(2048, chunk_sizes(4096 * 3, 4096), 4, 4, True)
    assert [rank for rank, _ in plan.takes] == [2046, 2047, 2049, 2050]
    assert [rank for rank, _ in plan.gives] == [2046, 2047, 2049, 2050]
