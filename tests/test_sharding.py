"""Training on several devices with NumPyro: the same numbers as on one, from work that is shared out."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import completed

from ppl_vae import fit, load
from ppl_vae.backends.numpyro.devices import Devices
from ppl_vae.errors import UsageError

SCRIPT = Path(__file__).parent / "two_devices.py"
LOADERS = ("loader", "iwae", "stock")  # without rows for validation
# A sum over 32 rows is rounded otherwise when it is two sums of 16: by some 1e-7 of its size in float32. Six
# steps of Adam, whose eps of 1e-2 bounds how an error of a gradient grows, leave little more than that, where
# a wrong share of the rows would show in the second digit.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def on_two_devices(folder, *cases):
    """Run the script where JAX sees two devices of the host."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = completed([sys.executable, "-W", "error", SCRIPT, folder, *cases], env=environment)
    assert done.returncode == 0, done.stderr[-4000:]


def weights(folder, name):
    with np.load(folder / f"{name}.npz") as found:
        return dict(found)


def history(folder, name):
    rows = json.loads((folder / f"{name}.json").read_text())
    return [(row.pop("split"), row) for row in rows]


def assert_two_equal_one(folder, name):
    one, two = (weights(folder, f"{name} on {count}") for count in (1, 2))
    assert set(one) == set(two)
    for key in one:
        np.testing.assert_allclose(two[key], one[key], **CLOSE, err_msg=f"{name}: {key}")
    rows = [history(folder, f"{name} on {count}") for count in (1, 2)]
    assert rows[0][-1][1]["step"] == 6
    for (split, left), (other, right) in zip(*rows, strict=True):
        assert split == other
        assert left == pytest.approx(right, rel=1e-5, abs=1e-6), name
    return one, rows[0]


SHORT = ("counts", "vqvae", "dynamic bits", "loader")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What one process made, which loads JAX once."""
    folder = tmp_path_factory.mktemp("two_devices")
    on_two_devices(folder, *SHORT, "interrupted", "placed")
    return folder


def assert_made_on_two_as_on_one(folder, name):
    found, rows = assert_two_equal_one(folder, name)
    assert sum(split == "valid" for split, _ in rows) == (0 if name in LOADERS else 2)
    return found


@pytest.mark.parametrize("name", SHORT)
def test_two_devices_equal_one_for_every_kind_of_data(made, name):
    found = assert_made_on_two_as_on_one(made, name)
    if name == "vqvae":
        assert {"codebook.vectors", "codebook.sums", "codebook.counts"} <= set(found)
        assert np.abs(found["codebook.counts"] - 1).max() > 0.1  # the statistics moved


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("vae", "hvae", "linear_gaussian", "reviving"), ("iwae", "stock", "plain")], ids=" ".join
)
def test_two_devices_equal_one_for_every_program_and_objective(tmp_path, names):
    on_two_devices(tmp_path, *names)
    for name in names:
        found = assert_made_on_two_as_on_one(tmp_path, name)
        if name == "reviving":
            assert (found["codebook.moved"] != 0).any(1).sum() > 1


def test_a_run_on_two_devices_resumes_to_the_same_bits_and_goes_on_on_one(made):
    whole = weights(made, "vqvae on 2")
    two, one = (weights(made, f"resumed on {count}") for count in (2, 1))
    assert all(np.array_equal(two[name], value) for name, value in whole.items())
    states = [(made / folder / "state.safetensors").read_bytes() for folder in ("run of vqvae on 2", "on 2")]
    assert states[0] == states[1]
    for name, value in whole.items():
        np.testing.assert_allclose(one[name], value, **CLOSE)


def test_each_device_works_on_half_of_the_rows(made):
    one, two = (json.loads((made / "placed.json").read_text())[count] for count in "12")
    # How many rows the compiled step takes out of the data, and whether it adds up over devices.
    gathered = [set(re.findall(r"= f32\[(\d+),[^\]]*\]\S* gather\(", found["text"])) for found in (one, two)]
    assert gathered == [{"32"}, {"16"}]
    assert ["all-reduce(" in found["text"] for found in (one, two)] == [False, True]
    assert set(one["weights"]) == {1} and set(two["weights"]) == {2}
    assert len(two["shown"]) == 1 and two["shown"] == one["shown"]
    assert two["batches"] == {"32": [[0, 16], [1, 16]], "5": [[0, 5], [1, 5]]}


def test_devices_that_are_not_there_are_refused():
    import jax

    there = len(jax.devices("cpu"))
    remedy = rf"set XLA_FLAGS=--xla_force_host_platform_device_count={there + 1} before Python starts"
    with pytest.raises(
        UsageError, match=rf"devices={there + 1}: from 'cpu' on JAX sees {there} here.*{remedy}"
    ):
        Devices("cpu", there + 1)
    with pytest.raises(UsageError, match="devices=0: give a whole number"):
        fit(load("vae"), np.zeros((9, 4, 4), "f"), backend="numpyro", devices=0)


def test_batches_that_cannot_be_shared_out_are_refused():
    found = Devices("cpu")
    found.check_fits(33)
    found.count = 2
    found.check_fits(32)
    with pytest.raises(UsageError, match="batch_size=33 cannot be shared out over devices=2"):
        found.check_fits(33)
