"""Metrics are strict JSON lines that survive a crash; configurations come back as values for JSON."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ppl_vae.errors import RunError, UsageError
from ppl_vae.store import RunFolder, read_config, write_config


@pytest.fixture
def old(tmp_path):
    folder = RunFolder.create(tmp_path / "old")
    folder.write({"config.yaml": b"lr: 1\n"})
    return folder.path


def test_metrics_are_strict_json_and_come_back_as_they_were(old):
    folder = RunFolder.open(old)
    row = {
        "step": 1,
        "loss": math.nan,
        "up": math.inf,
        "down": np.float32(-math.inf),
        "kl": np.float64(0.5),
        "per_site": {"z": np.array([1.0, math.nan])},
        "split": "train",
        "n": np.int64(3),
    }
    folder.append_metrics(row)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    line = (old / "metrics.jsonl").read_text()
    json.loads(line, parse_constant=refuse)
    assert line.count("\n") == 1
    (back,) = RunFolder.open(old).metrics()
    assert math.isnan(back["loss"]) and back["up"] == math.inf and back["down"] == -math.inf
    assert back["kl"] == 0.5 and back["per_site"]["z"][0] == 1.0 and math.isnan(back["per_site"]["z"][1])
    assert back["split"] == "train" and back["n"] == 3


@pytest.mark.parametrize("tail", [b'{"step": 3, "lo', b'{"step": 3}', b"\xff\xfe", b""])
def test_a_torn_last_line_is_dropped_and_the_next_row_starts_a_line(old, tail):
    folder = RunFolder.open(old)
    folder.append_metrics({"step": 1})
    folder.append_metrics({"step": 2})
    with open(old / "metrics.jsonl", "ab") as file:
        file.write(tail)
    whole = [1, 2, 3] if tail == b'{"step": 3}' else [1, 2]
    folder = RunFolder.open(old)
    assert [row["step"] for row in folder.metrics()] == whole
    folder.append_metrics({"step": 4})
    assert [row["step"] for row in folder.metrics()] == [*whole, 4]


def test_a_damaged_line_in_the_middle_is_named(old):
    (old / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2 is damaged"):
        RunFolder.open(old).metrics()


def test_a_configuration_comes_back_as_plain_values(old):
    config = {
        "program": "vae",
        "model": {"x_shape": (1, 28, 28), "z_dim": np.int64(8)},
        "lr": 1e-05,
        "data": Path("a") / "b",
        "compile": "off",
        "valid": None,
        "betas": (0.9, np.float64(0.5)),
        "note": "naïve: yes",
        "big": 1e20,
        "flag": True,
    }
    plain = {
        "program": "vae",
        "model": {"x_shape": [1, 28, 28], "z_dim": 8},
        "lr": 1e-05,
        "data": "a/b",
        "compile": "off",
        "valid": None,
        "betas": [0.9, 0.5],
        "note": "naïve: yes",
        "big": 1e20,
        "flag": True,
    }
    folder = RunFolder.open(old)
    folder.write({"config.yaml": write_config(config)})
    assert RunFolder.open(old).config() == plain
    assert list(RunFolder.open(old).config()) == list(config)
    assert read_config(b"lr: 1e-4\nwarm: 2E3\nname: 1.2e\n") == {"lr": 1e-4, "warm": 2e3, "name": "1.2e"}


def test_configurations_that_are_refused():
    with pytest.raises(UsageError, match=r"config\.model\.net\[1\] is a object"):
        write_config({"model": {"net": [1, object()]}})
    for raw in (b"a: [1", b"- 1\n", b"", b"!!python/object/apply:os.getcwd []", b"a: \x00"):
        with pytest.raises(RunError, match="the configuration is not"):
            read_config(raw)
