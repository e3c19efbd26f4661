"""Processes with gloo that run checks together: a failure on any of them fails, and none hangs."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# A rank that waits for one that failed gives up after this, and the whole run after the other.
MESSAGE_SECONDS, RUN_SECONDS = 30, 240

Check = Callable[[], object]


def _work(rank: int, world: int, store: str, checks: Sequence[Check], results: Any) -> None:
    # No name of this machine needs to resolve.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    seconds = datetime.timedelta(seconds=MESSAGE_SECONDS)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=seconds
    )
    for check in checks:
        torch.manual_seed(0)
        started = time.process_time()
        try:
            check()
        except BaseException:
            results.put((rank, check.__name__, traceback.format_exc()))
            results.close()
            results.join_thread()
            # The others may be waiting for this rank: nothing after this can be trusted.
            os._exit(1)
        if os.environ.get("SHOW_SECONDS") and rank == 0:
            print(f"{check.__name__}: {time.process_time() - started:.2f} s", file=sys.stderr)
    # No rank leaves while another one needs it.
    dist.barrier()
    results.put((rank, "", ""))
    results.close()
    results.join_thread()
    os._exit(0)


def run(world: int, checks: Sequence[Check], directory: Path) -> None:
    """Runs the checks in ``world`` processes; raises AssertionError with the first failures."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["circulant_attention.distributed", "circulant_attention.nn"])
    checks = [check for check in checks if os.environ.get("ONLY", "") in check.__name__]
    results = context.Queue()
    store = str(directory / "store")
    processes = [
        context.Process(target=_work, args=(rank, world, store, checks, results), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + RUN_SECONDS
    finished, failures = 0, []
    try:
        while finished < world and not failures:
            try:
                rank, name, text = results.get(timeout=1)
            except Exception:
                codes = [process.exitcode for process in processes]
                assert time.monotonic() < end, f"no end after {RUN_SECONDS} s, exit codes {codes}"
                assert not any(codes) and not all(c == 0 for c in codes), f"exit codes {codes}"
                continue
            finished += 1
            if text:
                failures.append(f"rank {rank} of {world}, {name}:\n{text}")
    finally:
        for process in processes:
            if finished < world:
                process.kill()
            process.join()
    assert not failures, "\n".join(failures)
