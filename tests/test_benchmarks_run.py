"""The benchmarks run, take turns, write their numbers, and these become a table and a drawing."""

import importlib
import json
import logging
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from ppl_vae.backends.pyro.capture import Graph

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
ALONE = {"codes": "vector_quantize_pytorch", "epochs": "pythae", "profiles": "pythae"}


@pytest.fixture
def benchmark(monkeypatch):
    """Return a function that imports a file of the benchmarks by its name."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    yield importlib.import_module
    # A benchmark flushes denormal numbers for the rest of its process, which here goes on with other tests.
    torch.set_flush_denormal(False)


def numbers(module, tmp_path):
    out = tmp_path / "numbers.json"
    module.main(["--small", "--rounds", "2", "--out", str(out)])
    content = json.loads(out.read_text())
    assert content["small"] and content["rounds"] == 2 and content["versions"]["torch"] == torch.__version__
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]
    for result in content["results"]:
        for found in result["contenders"].values():
            low, high = found["quartiles"]
            assert math.isfinite(found["median"]) and low <= found["median"] <= high
        for one in result["comparisons"]:
            assert {one["ours"], one["peer"]} <= set(result["contenders"])
            assert one["reached"] == (one["ratio"] <= one["target"])
    return content["results"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "steps",
        "deep",
        "codes",
        "epochs",
        "jax_steps",
        "evaluation",
        "memory",
        "growth",
        "formats",
        "profiles",
    ],
)
def test_a_benchmark_measures_every_contender(benchmark, tmp_path, monkeypatch, name):
    if name in ALONE:
        pytest.importorskip(ALONE[name])
    # As they are captured, but not compiled: that takes minutes.
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    monkeypatch.setattr(Graph, "compiled", lambda graph, *_, **__: graph.module())
    assert numbers(benchmark(name), tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_the_workloads_of_a_gpu_are_those_of_the_cpu_on_a_device(benchmark, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    monkeypatch.setattr(Graph, "compiled", lambda graph, *_, **__: graph.module())
    gpu = benchmark("gpu")
    found = [gpu.measured(where, replace(work, device="cpu"), rounds=2) for where, work in gpu.SMALL]
    assert {work.device for _, work in (*gpu.SMALL, *gpu.WORKLOADS)} == {"cuda"}
    assert [result["settings"]["device"] for result in found] == ["cpu"] * 3
    assert [len(result["contenders"]) for result in found] == [5, 3, 5]


def test_the_benchmark_of_a_gpu_needs_one(benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="^benchmarks/gpu.py needs a CUDA device: torch sees none$"):
        benchmark("gpu").main([])


def test_first_steps_are_taken_anew_and_again(benchmark, monkeypatch, tmp_path):
    first_steps, taken = benchmark("first_steps"), []
    monkeypatch.setattr(first_steps, "process", lambda who, small, cache: taken.append((who, cache)) or 1.0)
    (result,) = numbers(first_steps, tmp_path)
    assert list(result["contenders"]) == [
        f"{who}, {when}" for when in ("anew", "again") for who in first_steps.WHO
    ]
    # Anew means a cache of one's own, again the same one.
    assert taken[::2] == taken[1::2] and len(set(taken)) == 4


@pytest.mark.slow
def test_a_workload_is_measured_compiled(benchmark, monkeypatch):
    steps = benchmark("steps")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    work = steps.Workload("small", (8,), 2, 16, shape=(1, 4, 4), rows=32, steps=2)
    found = steps.measured(work, rounds=2)
    assert set(found["contenders"]) == {
        "declared, compiled",
        "declared",
        "by hand",
        "by hand, compiled",
        "SVI.step",
    }
    assert [one["peer"] for one in found["comparisons"]] == ["by hand", "by hand, compiled", "SVI.step"]


@pytest.mark.slow
def test_processes_train_alike(benchmark, tmp_path):
    process = benchmark("process")
    made = process.commands(process.SMALL, process.data_file(process.SMALL, tmp_path))
    whole, counted = process.trained(made[process.BY_HAND], tmp_path)
    assert 0 < counted <= whole
    words = [*made[process.BY_HAND], "--out", str(tmp_path / "hand")]
    by_hand = json.loads(process.ran(words).stdout)
    ours = json.loads(process.ran([*made[process.OURS], "--out", str(tmp_path / "ours")]).stdout)
    assert by_hand["steps"] == ours["steps"] == 8
    assert by_hand["elbo_nats"] == pytest.approx(ours["elbo_nats"], rel=0.2)
    assert {path.name for path in (tmp_path / "hand").iterdir()} == {
        "metrics.jsonl",
        "state.pt",
        "weights.pt",
    }
    assert process.report_seconds(tmp_path / "ours") > 0
    result = process.starting(rounds=2)
    assert [one["what"] for one in result["limits"]] == ["ppl-vae --help", "import ppl_vae"]


def test_seconds_of_compilation_are_those_that_a_process_tells(benchmark):
    process = benchmark("process")

    def done(out, err):
        return subprocess.CompletedProcess([], 0, out, err)

    assert process.compile_seconds(done("{}", "compiled 88 operations in 4.1 s\n"), ["--compile"]) == 4.1
    assert process.compile_seconds(done('{"compile_seconds": 2.5}', ""), ["--compile"]) == 2.5
    assert process.compile_seconds(done("{}", ""), []) == 0.0
    with pytest.raises(RuntimeError, match="does not say that it compiled"):
        process.compile_seconds(done("{}", "the step runs uncompiled"), ["--compile", "on"])
    with pytest.raises(RuntimeError, match="failed"):
        process.ran([sys.executable, "-c", "raise SystemExit(3)"])


def test_contenders_take_turns_and_the_first_rounds_do_not_count(benchmark):
    timing, order = benchmark("timing"), []
    contenders = {name: lambda name=name: order.append(name) for name in "abc"}
    values = iter(range(100))
    found = timing.turns(contenders, 2, warm_up=2, measure=lambda call: (call(), next(values))[1])
    assert "".join(order) == "abcbcacababc"
    assert found == {"a": [7, 9], "b": [8, 10], "c": [6, 11]}


def test_a_ratio_is_the_median_of_those_within_a_round(benchmark):
    timing = benchmark("timing")
    found = {"ours": [1.0, 6.0, 3.0], "peer": [2.0, 4.0, 8.0]}
    one = timing.compared(timing.Aim("ours", "peer", 0.5), found)
    assert one["ratio"] == 0.5 and one["reached"] and one["ratio_quartiles"] == [0.438, 1.0]
    assert not timing.compared(timing.Aim("ours", "peer", 0.49), found)["reached"]
    assert timing.spread([1.0, 2.0, 3.0]) == {"median": 2.0, "quartiles": [1.5, 2.5]}
    with pytest.raises(SystemExit):
        timing.arguments("doc", argv=["--rounds", "1"])


def test_an_uncompiled_contender_stops_the_benchmark(benchmark):
    timing = benchmark("timing")
    with timing.compiled_for_sure(), pytest.raises(RuntimeError, match="not compiled"):
        logging.getLogger("ppl_vae.backends.pyro.capture").warning("the step runs uncompiled: a reason")
    logging.getLogger("ppl_vae.backends.pyro.capture").warning("the step runs uncompiled: a reason")


RESULT = {
    "workload": "a workload",
    "unit": "ms per step",
    "contenders": {
        "ours": {"median": 1.234, "quartiles": [1.2, 1.3]},
        "peer": {"median": 234.5, "quartiles": [230.0, 240.0]},
    },
    "comparisons": [
        {
            "ours": "ours",
            "peer": "peer",
            "ratio": 0.005,
            "ratio_quartiles": [0.004, 0.006],
            "target": 0.6,
            "reached": True,
        }
    ],
    "limits": [{"what": "command", "median": 0.61, "target": 0.5, "reached": False}],
}


def test_the_table_of_speed_has_a_row_for_every_ratio_and_limit(benchmark, tmp_path):
    (tmp_path / "steps.json").write_text(json.dumps({"results": [RESULT]}))
    head, line, first, second = benchmark("speed_table").table(tmp_path).splitlines()
    assert head.count("|") == line.count("|") == first.count("|") == second.count("|") == 7
    assert first == (
        "| a workload | ours: 1.23 ms per step | peer: 234 ms per step "
        "| **0.01** (0.00 to 0.01) | 0.60 | yes |"
    )
    assert second == "| `command` | 0.61 s |  |  | 0.5 s | no |"


def test_the_drawing_is_the_same_byte_by_byte(benchmark, tmp_path):
    plot = benchmark("plot")
    names = {name: {"median": 2.0, "quartiles": [1.0, 3.0]} for name in plot.STYLES}
    results = [
        {"grows": grows, "value": value, "contenders": names}
        for grows in ("latents", "batch")
        for value in (5, 2)
    ]
    (tmp_path / "growth.json").write_text(json.dumps({"results": results}))
    for name in ("one.svg", "two.svg"):
        plot.main(["--results", str(tmp_path / "growth.json"), "--out", str(tmp_path / name)])
    drawn = (tmp_path / "one.svg").read_bytes()
    assert drawn == (tmp_path / "two.svg").read_bytes()
    assert b"declared, compiled" in drawn and b"<dc:date>" not in drawn
    assert plot.curve(results, "latents", "by hand")["value"] == [2, 5]
