"""What a person sees on a terminal: tables of results and progress bars; and what programs read elsewhere."""

import json
import re
import sys
import time

import numpy as np
import pytest
from command_line import SMALL, cli, ok
from on_backend import BACKENDS
from on_terminal import plain, screen, terminal

from ppl_vae import bars, bind, load, open_run
from ppl_vae.backends import backend as backend_named
from ppl_vae.cli import main, tables
from ppl_vae.diagnostics.measures import measures
from ppl_vae.progress import heard_by, told
from ppl_vae.summaries import aligned, number, with_error

MODEL = SMALL[:4]
TRAIN = ("train", "vae", *MODEL, "--epochs", "2", "--log-every", "5")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run on the embedded data."""
    path = tmp_path_factory.mktemp("runs") / "first"
    ok(*TRAIN, "--out", path)
    return path


def on_terminal(monkeypatch, *words, columns=80, kind="xterm-256color"):
    """Run a command on a terminal; returns what was written."""
    with terminal(monkeypatch, columns, kind) as written:
        assert main([str(word) for word in words]) == 0
    return written()


# tables


def test_training_ends_with_a_table_that_says_what_its_json_says(tmp_path, monkeypatch):
    lines = screen(on_terminal(monkeypatch, *TRAIN, "--out", tmp_path / "run"))
    history = open_run(tmp_path / "run").history
    row = [one for one in history if one["split"] == "valid"][-1]
    bar = next(line for line in lines if line.startswith("step "))
    assert bar.startswith("step 24/24 ") and re.search(r" [\d,.]+/s ", bar)
    train = [one for one in history if one["split"] == "train"][-1]
    assert f"train {train['elbo_nats']:.2f} nats" in bar and f"valid {row['elbo_nats']:.2f} nats" in bar
    table = lines[lines.index("vae on digits (pyro), 180 valid rows") :]
    elbo = with_error(row["elbo_nats"], row["elbo_stderr"])
    assert " ".join(table[1].split()) == f"ELBO {elbo} nats per row"
    assert any(line.split() == ["report", str(tmp_path / "run" / "report.html")] for line in table)
    assert not any(line.startswith("{") for line in lines)


@pytest.fixture(scope="module")
def result(run):
    """What `evaluate` tells."""
    return ok("evaluate", run, "--importance-samples", 5)


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_a_table_fits_its_terminal_and_cuts_no_number(run, result, monkeypatch, columns):
    with terminal(monkeypatch, columns) as written:
        tables.show(result)
    lines = screen(written())
    shown = [line for line in lines if str(run) not in line]  # a path is the terminal's to break
    assert max(map(len, shown)) <= columns
    for name, words in (("elbo", "ELBO"), ("iw", "IW bound (k = 5)"), ("rate", "rate")):
        value, error = (result[f"{name}_{part}"] for part in ("nats", "stderr"))
        line = next(line for line in shown if line.strip().startswith(words.split()[0]))
        assert (
            with_error(value, error).split()
            == re.findall(r"-?[\d.]+\d|±", line.partition(words)[2] or line)[:3]
        )
    points = [line.index(".") for line in shown if re.match(r"  (ELBO|rate|distortion)", line)]
    assert len(set(points)) == 1


def test_json_where_it_is_asked_for_or_nobody_reads(run, monkeypatch):
    written = on_terminal(monkeypatch, "log_prob", run, "--rows", 7, "--json")
    assert json.loads(written.splitlines()[-1]) == ok("log_prob", run, "--rows", 7)
    monkeypatch.setenv("FORCE_COLOR", "1")  # of text: no terminal all the same
    assert cli("log_prob", run, "--rows", 7).result["n"] == 7


def test_dumb_terminals_and_no_color(result, monkeypatch):
    def both():
        with bars.training(24, 0) as tell:
            tell(24, {"split": "train", "loss": 1.0})
        tables.show(result)

    with terminal(monkeypatch, kind="dumb") as dumb:
        both()
    assert "\x1b" not in dumb() and "\r" not in dumb() and "step 24" not in dumb() and "± " in dumb()
    for colour in (True, False):
        with terminal(monkeypatch) as written:
            if not colour:
                monkeypatch.setenv("NO_COLOR", "1")
            both()
        assert "step 24/24" in plain(written()) and "train loss 1.00" in plain(written())
        assert bool(re.search(r"\x1b\[[\d;]*[34][\d;]*m", written())) == colour


def test_lists_and_checks_are_text(monkeypatch):
    assert "Variational autoencoder" in on_terminal(monkeypatch, "list")
    assert cli("list").result["models"] and "text" not in cli("list").result
    assert "digits         image" in on_terminal(monkeypatch, "data", "list")


def test_results_of_any_script_are_shown(monkeypatch):
    odd = {"hello": "you", "none": None, "deep": {"a": 1, "b": []}, "many": [1, 2], "each": [{"c": 0.25}]}
    with terminal(monkeypatch) as written:
        tables.show(odd, sys.stdout)
    rows = [line.split() for line in screen(written())]
    assert rows == [["hello", "you"], ["deep.a", "1"], ["many", "1,", "2"], ["each.0.c", "0.2500"]]


def test_numbers_have_the_digits_that_their_error_allows():
    assert with_error(-91.23456, 0.5432) == "-91.23 ± 0.54"
    assert with_error(-1234.5678, 123.4) == "-1235 ± 123"
    assert with_error(0.0312345, 0.00012) == "0.03123 ± 0.00012"
    assert [number(value) for value in (3, 12345, 0.123456, 12.3456, 1e-6, 0.0)] == [
        "3", "12,345", "0.1235", "12.35", "1e-06", "0.00"
    ]  # fmt: skip
    assert aligned(["-1.25", "10.5", "3", ""]) == ["-1.25", "10.5 ", " 3   ", "     "]
    rows = measures({"elbo_nats": -2.5, "elbo_stderr": None, "iw_nats": None, "k": None, "bits_per_dim": 1.0})
    assert [row[0] for row in rows] == ["ELBO", "bound per dimension"]
    assert measures({"elbo_nats": float("nan"), "elbo_stderr": float("nan")})[0][1].strip() == "nan"


# bars


def test_a_pass_that_takes_a_while_has_a_bar_that_goes_away(run, monkeypatch):
    monkeypatch.setattr(bars, "PATIENCE", 0)
    words = ("evaluate", run, "--split", "train", "--importance-samples", 256)
    written = on_terminal(monkeypatch, *words)
    drawn = re.findall(r"evaluate ([\d,]+)/1,437", plain(written))
    assert drawn and drawn == sorted(drawn, key=lambda text: int(text.replace(",", "")))
    assert not any(line.startswith("evaluate") for line in screen(written))
    quick = on_terminal(monkeypatch, "encode", run)  # one chunk: nothing to wait for
    assert "/180" not in quick


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_pass_tells_how_far_it_is(backend):
    verbs = backend_named(backend)
    x = (np.random.default_rng(0).random((10, 1, 4, 4)) < 0.3).astype(np.float32)
    bound = bind(load("vae", z_dim=2, hidden=(8,), x_shape=(1, 4, 4)), backend)
    heard = []
    with heard_by(lambda done, total: heard.append((done, total))):
        verbs.score(bound, {"x": x}, 3, budget=16 * 4 * 3)
        assert heard[:4] == [(3, 10), (6, 10), (9, 10), (10, 10)] and heard[-1] == (10, 10)
        heard.clear()
        verbs.encode(bound, {"x": x})
        verbs.sample(bound, 7)
        assert heard == [(10, 10), (7, 7)]
        heard.clear()
        options = {"method": "importance", "predictive": False, "budget": 100, "oversampling": 2}
        verbs.draws(bound, {"x": x}, 6, **options)
        assert heard == sorted(heard) and len(heard) > 2 and heard[-1] == (120, 120)
        heard.clear()
        with heard_by(None):
            verbs.encode(bound, {"x": x})
        assert heard == []
    assert list(told([slice(0, 2), slice(2, 3)], 3)) == [slice(0, 2), slice(2, 3)]


def test_in_a_notebook_the_bar_is_one_output_as_text(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    monkeypatch.setattr(display, "display", lambda data, raw, display_id: Handle())
    monkeypatch.setattr(bars, "in_notebook", lambda: True)
    monkeypatch.setattr(bars, "PERIOD", 0)
    with bars.training(10, 4) as tell:
        tell(7, {"split": "train", "elbo_nats": -3.25})
        tell(10, {"split": "valid", "elbo_nats": -2.5})
    assert [re.match(r"step \d+/10", text)[0] for text in shown[-3:]] == [
        "step 7/10",
        "step 10/10",
        "step 10/10",
    ]
    assert "train -3.25 nats" in shown[-1] and "valid -2.50 nats" in shown[-1]
    assert not any("\n" in text or "\x1b" in text for text in shown)


def test_a_bar_is_drawn_now_and_then_and_by_nobody_beside_the_steps(monkeypatch):
    with terminal(monkeypatch, 120) as written, bars.training(10_000, 0) as tell:
        import threading

        before = threading.active_count()
        started = time.perf_counter()
        for step in range(10_000):
            tell(step + 1, {})
        seconds = time.perf_counter() - started
        assert threading.active_count() == before
    assert written().count("\r") < 5 + 2 * (1 + seconds / bars.PERIOD)
    assert screen(written())[-1].startswith("step 10,000/10,000")
    with terminal(monkeypatch, 120) as written, bars.training(10, 0, asked=False) as tell:
        tell(3, {})
    assert written() == ""
