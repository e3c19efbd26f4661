"""The benchmarks: every peer computes the same attention, limits and refusals are reported."""

import importlib.metadata
import json
import platform
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import reference
import torch

import circulant_attention
from benchmarks import (
    group,
    kernel_calls,
    kernel_report,
    kernel_sweeps,
    kernels,
    limits,
    peers,
    tiled,
    timing,
)
from benchmarks.__main__ import entries, parse, run_worker
from benchmarks.cases import CASES, KERNEL_CASES, Case
from benchmarks.report import markdown, processor, surroundings
from benchmarks.worker import GaveUp, Task, compare, flops

SMALL = [
    Case("1d", 2, 4, (17,), 7),
    Case("2d", 2, 4, (6, 9), 5, heads=2),
    Case("3d", 1, 3, (4, 5, 7), 3),
]
DISTANCE = Case("distance", 2, 4, (9, 16), 5, distance=True)


def dense(case: Case, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention over all pairs of pixels in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    simfun = "distance" if case.distance else "dot"
    return reference.attention(simfun, q, k, v, case.window, case.heads)[0]


def inputs(case: Case) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(case.shape, generator=generator) for _ in range(3)]


def assert_is_attention(case: Case, name: str) -> None:
    q, k, v = inputs(case)
    y = peers.ATTENTIONS[name](case)(q, k, v)
    # Sums of at most 125 products of float32 normal deviates: rounding is below 1e-5 here.
    torch.testing.assert_close(y, dense(case, q, k, v).float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
@pytest.mark.parametrize("name", [name for name in peers.ATTENTIONS if name != "FlexAttention"])
def test_peer_is_the_same_attention(case: Case, name: str) -> None:
    assert_is_attention(case, name)


def test_flex_attention_is_the_same_attention() -> None:
    assert_is_attention(SMALL[1], "FlexAttention")


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_maps_are_one_product_each(case: Case) -> None:
    torch.manual_seed(0)
    q, k, v = inputs(case)
    scores = peers.similarity(case)(q, k, v)
    values = torch.rand(scores.shape)
    y = torch.rand(case.group_shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "random_values", lambda _: values)
        applied = peers.apply(case)(q, k, v)
        transposed = peers.apply_transposed(case)(q, k, y)
    columns = peers.neighbours(case)
    q_g, k_g, v_g = (peers.flat_groups(case, x) for x in (q, k, v))
    expected = torch.einsum("gcn,gcnk->gnk", q_g, k_g[:, :, columns])
    torch.testing.assert_close(scores, expected)
    expected = torch.einsum("gnk,gcnk->gcn", values, v_g[:, :, columns])
    torch.testing.assert_close(applied.flatten(2), expected)
    # <A v, y> = <v, A^T y>
    torch.testing.assert_close((applied * y).sum(), (v_g * transposed.flatten(2)).sum())


def test_operations_counted_for_the_readme_problem() -> None:
    # 2 products * 2 operations * batch * channels * pixels * offsets
    forward = 2 * 2 * 2 * 64 * (128 * 96) * 15**2
    task = small_task(case=CASES["readme"])
    assert flops(task) == forward
    assert flops(replace(task, backward=True)) == 3 * forward
    assert flops(replace(task, entry="apply")) == forward // 2
    assert flops(replace(task, case=CASES["heads"])) == forward


def small_task(**changes: object) -> Task:
    task = Task(
        case=SMALL[1],
        entry="circulant_attention",
        backward=False,
        measure="time",
        call_seconds=60.0,
        memory_bytes=2**32,
        budget_seconds=0.1,
        repetitions=3,
    )
    return replace(task, **changes)


def test_worker_times_gradients_beside_ours_and_sgemm() -> None:
    result = run_worker(small_task(entry="roll", backward=True))
    assert result["status"] == "ok", result
    assert result["repetitions"] == 3
    assert result["seconds"] > 0 and result["times_ours"] > 0
    assert result["sgemm_flops_per_second"] > 0


def test_worker_measures_the_memory_of_a_call() -> None:
    case = Case("wide", 1, 4, (64, 64), 15)
    result = run_worker(small_task(case=case, entry="pad + unfold", measure="memory"))
    assert result["status"] == "ok", result
    # The patches of k or v are copied: channels * pixels * offsets floats, of 4 bytes.
    assert result["peak_bytes"] > 4 * case.channels * case.pixels * case.offsets


def test_limits_are_reported_with_their_numbers() -> None:
    case = Case("wide", 1, 32, (64, 64), 15)
    task = small_task(case=case, entry="pad + unfold", measure="memory", memory_bytes=2**26)
    result = run_worker(task)
    assert result["status"] == "too big"
    # 32 * 64 * 64 * 225 floats
    assert result["reason"] == "asked for another 0.1 GiB, with a limit of 0.1 GiB in all"
    result = run_worker(small_task(measure="memory", call_seconds=1e-9, budget_seconds=60.0))
    assert result["status"] == "too slow"
    assert "one call took" in result["reason"]
    result = run_worker(small_task(measure="memory", call_seconds=0.1))
    assert result == {"status": "too slow", "reason": "no result after 1 s"}


def test_refusal_is_reported_in_its_own_words() -> None:
    result = run_worker(small_task(entry="FlexAttention", backward=True, measure="memory"))
    assert result["status"] == "refused"
    assert "FlexAttention does not support backward on CPU" in result["reason"]


def test_disagreement_is_found_before_timing() -> None:
    ours = torch.ones(4)
    compare((ours + 1e-4,), (ours,))
    for wrong in (ours * 1.01, torch.full((4,), torch.nan)):
        with pytest.raises(GaveUp, match="differs from ours"):
            compare((ours, wrong), (ours, ours))


def test_report_shows_results_and_refusals() -> None:
    measured = {
        "case": "readme",
        "entry": "circulant_attention",
        "backward": False,
        "status": "ok",
        "seconds": 0.025,
        "iqr_seconds": 0.001,
        "repetitions": 9,
        "flops": 10**9,
        "sgemm_flops_per_second": 8e10,
        "times_ours": 1.0,
        "peak_bytes": 3 * 2**20,
        "prepared_bytes": 0,
        "first_seconds": 0.03,
    }
    refused = {
        "case": "readme",
        "entry": "roll",
        "backward": False,
        "status": "too slow",
        "reason": "one call took 40 s",
    }
    run = {**surroundings("benchmarks", ["--quick"]), "results": [measured, refused]}
    assert json.loads(json.dumps(run)) == run
    text = markdown(run)
    row = "| circulant_attention | 25.00 | 1.00 | 40.0 | 0.50 | 1.00 | 3 | 0 | 0.03 |"
    assert row in text.splitlines()
    assert "| roll | too slow | | | | | | | |" in text.splitlines()
    assert "- roll was too slow: `one call took 40 s`" in text.splitlines()
    assert "Made by `python -m benchmarks --quick`; what the columns mean" in text
    for fact in ("processor", "torch", "commit", "date"):
        assert f"| {fact} | " in text


def test_the_version_needs_no_installed_package(monkeypatch) -> None:
    """As after `setup.py build_ext --inplace` alone."""

    def not_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    assert surroundings("")["versions"]["circulant_attention"] == circulant_attention.__version__


def test_every_entry_is_measured_once_per_mode() -> None:
    options = parse(["--quick"])
    assert [case.name for case in options.cases] == ["many_small"]
    measured = entries(options)
    assert len(set(measured)) == len(measured) == 2 * len(peers.ATTENTIONS) + len(peers.OPERATIONS)


def test_unknown_case_is_an_error_of_the_command_line() -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["--cases", "nothing"])
    assert stopped.value.code == 2


def test_tiles_have_the_gradients_of_the_reference() -> None:
    for case in (*SMALL, DISTANCE):
        leaves = [x.requires_grad_() for x in inputs(case)]
        doubles = [x.detach().double().requires_grad_() for x in leaves]
        dy = torch.randn(case.shape, generator=torch.Generator().manual_seed(2))
        found = torch.autograd.grad(peers.tiles(case)(*leaves), leaves, dy)
        expected = torch.autograd.grad(dense(case, *doubles), doubles, dy.double())
        for gradient, exact in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, exact.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["circulant_attention", "tiles + bmm"])
def test_distance_is_the_same_attention(name: str) -> None:
    assert_is_attention(DISTANCE, name)


def test_tiles_count_the_windows_of_a_grid() -> None:
    """Of 9 x 16 pixels: 2 x 2 tiles of 5 x 8, in chunks of a row of tiles; window 5."""
    case = Case("grid", 1, 1, (9, 16), 5)
    tiles = tiled.Tiles(case)
    assert tiles.edges == [5, 8] and tiles.halos == [9, 12] and tiles.extra == [1, 0]
    pixels = torch.arange(144.0).view(1, 1, 9, 16)
    halos = [tiles.matrices(chunk) for chunk in tiles.keys(pixels)]
    assert [halo.shape for halo in halos] == [(2, 1, 9 * 12)] * 2
    # Repeated for each query of a tile, the band has the neighbours of each pixel.
    windows = [tiles.take(halo.expand(2, 5 * 8, 9 * 12)) for halo in halos]
    found = tiles.grid([window.mT for window in windows]).flatten(2)[0].T.long()
    # By offset, not ascending.
    assert torch.equal(found.sort(1).values, peers.neighbours(case))


def test_multiply_adds_are_counted_by_their_sum() -> None:
    """Every lane of every sum grows by one, so the loop itself says how much it did."""
    sums = 24 if platform.machine() == "aarch64" else 12
    for bits in (128, 256, 512):
        for threads in (1, 3):
            seconds, count = limits.multiply_adds(threads, bits, 1000)
            assert seconds > 0
            assert count == threads * 1000 * sums * bits // 32
    assert limits.widest_vector() in (128, 256, 512)
    assert limits.fma_peak(1) > 0


def test_multiply_adds_are_independent_instructions(tmp_path) -> None:
    """Sums that the compiler takes for equal would become one, and the peak too high."""
    if " fma " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("counts the FMA instructions of x86-64, which this processor lacks")
    flags = [flag for flag in limits.FLAGS if flag != "-shared"]
    target = tmp_path / "limits.s"
    command = [limits.compiler(), *flags, "-S", str(limits.SOURCE), "-o", str(target)]
    subprocess.run(command, check=True)
    for register in ("xmm", "ymm"):
        line = rf"vfmadd\w+ps\s+%{register}\d+, %{register}\d+, %({register}\d+)"
        assert len(set(re.findall(line, target.read_text()))) >= 12


def test_a_copy_into_new_memory_is_a_copy() -> None:
    for size in (1, 2**19, 2**20 + 3):
        assert limits.copy_into_new_memory(torch.rand(size), 3) > 0


def test_a_missing_compiler_is_named(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RuntimeError, match="expected a C\\+\\+ compiler in PATH"):
        limits.compiler()


def test_the_compilers_of_a_library_are_found(tmp_path) -> None:
    library = tmp_path / "library.so"
    library.write_bytes(b"\0GCC: (Debian 12.2.0-14) 12.2.0\0GCC: (Debian 12.2.0-14) 12.2.0\0")
    assert limits.compiler_of(library) == "GCC: (Debian 12.2.0-14) 12.2.0"
    library.write_bytes(b"\0stripped")
    assert limits.compiler_of(library) == "unknown"


def test_processors_of_one_name_are_told_apart(tmp_path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
        "model name\t: AMD EPYC\nstepping\t: 1\n\nprocessor\t: 1\n"
    )
    found = processor(cpuinfo)
    assert found == "AMD EPYC (AuthenticAMD, family 25, model 17, stepping 1)"
    cpuinfo.write_text("processor\t: 0\n")
    assert processor(cpuinfo) == platform.processor()


BIASES = ("no bias", "a bias of the offsets", "a bias of the keys", "both")


def test_kernels_are_measured_and_reported(tmp_path, monkeypatch, capsys) -> None:
    """The whole command on small problems: every number is there, and they are sane."""
    small = {name: replace(case, spatial=(16, 16), window=3) for name, case in KERNEL_CASES.items()}
    monkeypatch.setattr(kernels, "KERNEL_CASES", small)
    monkeypatch.setattr(kernels, "GROUP", small["group"])
    monkeypatch.setattr(kernel_calls, "SGEMM_SIZE", 64)
    monkeypatch.setattr(limits, "ITERATIONS", 1000)
    monkeypatch.setattr(timing, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(kernel_sweeps, "GRIDS", ((16, 16), (32, 32)))
    monkeypatch.setattr(kernel_sweeps, "WINDOWS", ((3, 3), (5, 7)))
    monkeypatch.setattr(kernel_sweeps, "DTYPES_CASE", small["many_small"])
    monkeypatch.setattr(kernel_sweeps, "CASES", small)
    output = tmp_path / "kernels"
    kernels.main(["--seconds", "0.001", "--threads", "1", "2", "--output", str(output)])
    text = output.with_suffix(".md").read_text()
    assert capsys.readouterr().out.rstrip().endswith(text.rstrip())
    run = json.loads(output.with_suffix(".json").read_text())
    measured = [(result["case"], result["threads"]) for result in run["table"]]
    assert measured == [(case, count) for case in KERNEL_CASES for count in (1, 2)]
    for result in run["table"]:
        assert list(result["kernels"]) == list(kernel_calls.PRODUCTS)
        assert result["turns"] == timing.TURNS
        assert result["fma_flops_per_second"]["best"] > 0 and result["sgemm"]["flops"] == 2**19
        for name, found in result["kernels"].items():
            products = kernel_calls.PRODUCTS[name]
            assert found["flops"] == products * small[result["case"]].product_flops
            assert found["fraction"]["best"] > 0 and found["speedup"]["median"] > 0
    assert run["group"]["bytes"] == 4 * 16 * 16 * 3 * 3
    assert all(run["group"][name]["best"] > 0 for name in ("copy", "blend", "group", "plain group"))
    assert [result["instruction set"] for result in run["widths"]] == kernels.instruction_sets()
    assert [result["biases"] for result in run["biases"][:4]] == list(BIASES)
    assert len(run["biases"]) == 2 * 2 * 4
    assert all(result["ratio"]["median"] > 0 for result in run["biases"])
    products = len(kernel_calls.PRODUCTS)
    assert [result["entries"] for result in run["growth"][::products]] == [
        [12544, 50176],
        [129600, 504000],
    ]
    assert run["machine"]["instruction set"] in ("avx512", "avx2", "plain")
    for title in (
        "## Fractions of the FMA peak, two threads",
        "## Fractions of the FMA peak, one thread",
        "## Two threads against one",
        "## The matrix as a value",
        "## Widths of the vector units",
        "## A bias of the offsets and of the keys",
    ):
        assert title in text.splitlines()
    assert "of 30 goals, those of a Zen 4, are reached." in text


def test_the_group_is_the_same_in_plain_pytorch() -> None:
    ours, blend, values = group.ours(DISTANCE)
    q, k, last_q, last_k, v = (x.double() for x in group.inputs(DISTANCE))
    new, last = (
        reference.adjacency("distance", x, y, DISTANCE.window)
        for x, y in ((q, k), (last_q, last_k))
    )
    mixed = 0.3 * new + 0.7 * last
    y = v
    for _ in range(5):
        y = reference.apply(mixed, y)
    expected = y.float()
    torch.testing.assert_close(ours(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(group.plain(DISTANCE)(), expected, rtol=0, atol=1e-5)
    columns = peers.neighbours(DISTANCE).expand(DISTANCE.batch, -1, -1)
    stored = mixed.gather(-1, columns).float()
    torch.testing.assert_close(blend().view(stored.shape), stored, rtol=0, atol=1e-6)
    assert values.numel() == stored.numel()


def test_kernels_are_the_products() -> None:
    case = replace(CASES["heads"], spatial=(7, 6), window=3)
    results = {name: call() for name, call in kernel_calls.kernels(case).items()}
    assert results.keys() == kernel_calls.PRODUCTS.keys()
    assert results["similarity"].shape == (8, 42, 9)
    for name in ("apply", "transposed apply"):
        assert results[name].shape == case.group_shape
    assert [x.shape for x in results["fused backward"]] == [case.group_shape] * 3
    assert results["fused forward"][0].shape == case.group_shape
    # The adjacency is the softmax of the scaled similarity, in the same order.
    weights = (case.scale * results["similarity"]).softmax(-1)
    torch.testing.assert_close(results["adjacency"].view(weights.shape), weights)


def test_biases_are_compared_with_the_same_call_without() -> None:
    case = replace(CASES["heads"], spatial=(7, 6), window=3)
    calls = kernel_sweeps.biased(case)
    assert tuple(calls) == BIASES
    shape = case.group_shape
    sizes = {"a bias of the offsets": ((4, 9), (0,)), "a bias of the keys": ((0,), (2, 42))}
    sizes["both"] = (4, 9), (2, 42)
    for name, (forward, backward) in calls.items():
        assert forward()[0].shape == shape
        gradients = backward()
        assert [x.shape for x in gradients] == [shape] * 3 + [*sizes.get(name, ())]


def test_a_fraction_is_of_the_peak_of_its_turn() -> None:
    case = Case("case", 1, 2, (5, 5), 3)  # a product is 2 * 2 * 25 * 9 = 900 operations
    seconds = dict.fromkeys(["sgemm", *kernel_calls.PRODUCTS], 1.0)
    turns = [
        {**seconds, "peak": 1800.0, "fused forward": 2.0},
        {**seconds, "peak": 3600.0, "fused forward": 1.0},
        {**seconds, "peak": 2000.0, "fused forward": 3.0},
    ]
    found = kernel_calls.fractions(case, 1, turns)
    assert found["kernels"]["fused forward"]["fraction"] == {"best": 0.5, "median": 0.5}
    assert found["kernels"]["apply"]["fraction"] == {"best": 0.25, "median": 0.45}
    assert found["fma_flops_per_second"] == {"best": 3600.0, "median": 2000.0}


def test_reached_and_missed_goals_are_marked() -> None:
    def found(fraction: float) -> dict:
        pair = {"best": fraction, "median": fraction - 0.1}
        return {"fraction": pair, "seconds": {"best": 0.001, "median": 0.002}, "speedup": pair}

    result = {
        "case": "readme",
        "threads": 2,
        "fma_flops_per_second": {"best": 2e11, "median": 2e11},
        "sgemm": found(0.62),
        "kernels": {name: found(0.58) for name in kernel_calls.PRODUCTS},
    }
    lines = kernel_report.fractions(2, [result])
    goals = "0.70, 0.12 short | 0.65, 0.07 short | 0.58, reached | 0.55, reached"
    assert any(line.startswith(f"| goal | {goals}") for line in lines)
    assert "4 of 6 goals, those of a Zen 4, are reached." in lines
    assert not any("goal" in line for line in kernel_report.fractions(1, [result]))
    result["kernels"]["apply"] = found(1.85)
    one = {**result, "threads": 1, "fma_flops_per_second": {"best": 1e11, "median": 1e11}}
    row = kernel_report.speedups(2, [one, result])[-1]
    assert "| 0.58 (0.48), 1.22 short | 1.85 (1.75) |" in row and row.endswith(" | 2.00 |")
    seconds = {"copy": 0.01, "blend": 0.014, "group": 0.1, "plain group": 0.29}
    lines = kernel_report.group(
        {
            "case": "group",
            "threads": 2,
            "bytes": 60_000_000,
            **{name: {"best": time, "median": time} for name, time in seconds.items()},
        }
    )
    assert lines[-3].endswith("1.40 copies; goal: at most 1.5, reached |")
    assert lines[-2].endswith("at most 90 ms, 10 ms over |")
    assert lines[-1].endswith("2.9 times ours; goal: at least 3, 0.1 short |")
