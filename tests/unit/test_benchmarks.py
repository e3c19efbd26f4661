"""The benchmarks: every peer computes the same attention, limits and refusals are reported."""

import importlib.metadata
import json
from dataclasses import replace

import pytest
import reference
import torch

import circulant_attention
from benchmarks import kernels, peers
from benchmarks.__main__ import entries, parse, run_worker
from benchmarks.cases import CASES, Case
from benchmarks.report import markdown, surroundings
from benchmarks.worker import GaveUp, Task, compare, flops

SMALL = [
    Case("1d", 2, 4, (17,), 7),
    Case("2d", 2, 4, (6, 9), 5, heads=2),
    Case("3d", 1, 3, (4, 5, 7), 3),
]


def dense(case: Case, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention over all pairs of pixels in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    return reference.attention("dot", q, k, v, case.window, case.heads)[0]


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


def test_kernels_are_measured_and_reported(tmp_path, monkeypatch, capsys) -> None:
    """The whole command on small problems: every number is there, and they are sane."""
    small = {name: replace(CASES[name], spatial=(16, 16), window=3) for name in kernels.TABLE}
    monkeypatch.setattr(kernels, "CASES", small)
    monkeypatch.setattr(kernels, "SGEMM_SIZE", 64)
    monkeypatch.setattr(kernels, "TURN_SECONDS", 1e-5)
    monkeypatch.setattr(kernels, "GRIDS", ((16, 16), (32, 32)))
    monkeypatch.setattr(kernels, "WINDOWS", ((3, 3), (5, 7)))
    before = torch.get_num_threads()
    kernels.main(["--seconds", "0.001", "--threads", "1", "--output", str(tmp_path / "kernels")])
    torch.set_num_threads(before)
    assert capsys.readouterr().out.rstrip().endswith((tmp_path / "kernels.md").read_text().rstrip())
    run = json.loads((tmp_path / "kernels.json").read_text())
    for table in ("ratios", "ratios of one thread"):
        measured = [(result["case"], result["kernel"]) for result in run[table]]
        assert measured == [(case, kernel) for case in kernels.TABLE for kernel in kernels.PRODUCTS]
        assert all(0 < result["ratio"]["low"] <= result["ratio"]["high"] for result in run[table])
    assert [result["entries"] for result in run["growth"][::5]] == [
        [12544, 50176],
        [129600, 504000],
    ]
    assert run["machine"]["instruction set"] in ("avx512", "avx2", "plain")
    assert "instruction set | " in (tmp_path / "kernels.md").read_text()


def test_kernels_are_the_five_products() -> None:
    case = replace(CASES["heads"], spatial=(7, 6), window=3)
    results = {name: call() for name, call in kernels.kernels(case).items()}
    assert results.keys() == kernels.PRODUCTS.keys()
    assert results["similarity"].shape == (8, 42, 9)
    for name in ("apply", "transposed apply"):
        assert results[name].shape == case.group_shape
    assert [x.shape for x in results["fused backward"]] == [case.group_shape] * 3
    assert results["fused forward"][0].shape == case.group_shape


def test_a_goal_that_is_missed_is_named() -> None:
    found = {"median": 0.4, "low": 0.3, "high": 0.5}
    results = [
        {
            "case": "readme",
            "kernel": kernel,
            "ratio": {**found, "median": 0.6 if kernel == "similarity" else 0.9},
            "seconds": found,
            "sgemm_flops_per_second": 1e11,
        }
        for kernel in kernels.PRODUCTS
    ]
    lines = kernels.kernel_report.ratios("title", results)
    assert "- readme, similarity: 0.60, 0.10 short" in lines
    assert sum(line.startswith("- ") for line in lines) == 1
