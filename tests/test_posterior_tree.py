"""Posterior draws as a tree: axes, labels, attributes, ArviZ, NetCDF files; the statistics of weights."""

import os
import resource
from dataclasses import replace
from types import SimpleNamespace

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from ppl_vae.diagnostics.importance import pareto_k, resample, statistics
from ppl_vae.diagnostics.posterior import PosteriorDraws, to_arviz, to_netcdf, to_tree
from ppl_vae.errors import ProgramError, RunError, UsageError

S, N = 60, 4
rng = np.random.default_rng(0)


def some(method="guide"):
    log_weight = rng.normal(size=(S, N))
    return PosteriorDraws(
        method=method,
        backend="pyro",
        program="VAE",
        rows="data",
        posterior={"z": rng.normal(size=(S, N, 2)).astype(np.float32), "level": rng.normal(size=(S, 3))},
        log_likelihood={"x": rng.normal(size=(S, N))},
        observed_data={"x": (rng.random((N, 5)) > 0.5).astype(np.float32)},
        plates={"z": ("data",), "x": ("data",), "level": ()},
        log_weight=log_weight,
        log_weight_global=rng.normal(size=S),
        posterior_predictive={"x": (rng.random((S, N, 5)) > 0.5).astype(np.float32)},
        prior={"z": rng.normal(size=(S, N, 2)), "level": rng.normal(size=(S, 3))},
        prior_predictive={"x": rng.random((S, N, 5))},
        row_statistics=statistics(log_weight),
        proposals=S,
    )


def test_groups_axes_and_values():
    draws = some()
    tree = to_tree(draws)
    chain = ("chain", "draw")
    assert {path.lstrip("/"): set(node.data_vars) for path, node in tree.to_dict().items() if node} == {
        "posterior": {"z", "level"},
        "posterior_predictive": {"x"},
        "log_likelihood": {"x"},
        "prior": {"z", "level"},
        "prior_predictive": {"x"},
        "observed_data": {"x"},
        "sample_stats": {"log_weight", "log_weight_global", "pareto_k", "ess", "log_evidence"},
    }
    assert tree["posterior/z"].dims == (*chain, "data", "z_dim_0")
    assert tree["posterior/level"].dims == (*chain, "level_dim_0")
    assert tree["posterior_predictive/x"].dims == (*chain, "data", "x_dim_0")
    assert tree["log_likelihood/x"].dims == (*chain, "data")
    assert tree["observed_data/x"].dims == ("data", "x_dim_0")
    assert tree["sample_stats/log_weight"].dims == (*chain, "data")
    assert tree["sample_stats/log_weight_global"].dims == chain
    assert tree["sample_stats/pareto_k"].dims == ("data",)
    np.testing.assert_array_equal(tree["posterior/z"][0], draws.posterior["z"])
    np.testing.assert_array_equal(tree["sample_stats/log_weight"][0], draws.log_weight)
    np.testing.assert_array_equal(tree["posterior/data"], np.arange(N))


def test_groups_that_were_not_asked_for_are_absent():
    tree = to_tree(replace(some(), posterior_predictive={}, prior={}, prior_predictive={}))
    assert set(tree.children) == {"posterior", "log_likelihood", "observed_data", "sample_stats"}


def test_labels_of_users_and_of_the_data():
    genes = ["a", "b", "c", "d", "e"]
    tree = to_tree(
        some(),
        coords={"data": ["r0", "r1", "r2", "r3"], "factor": ["size", "slant"]},
        dims={"z": ["factor"]},
        columns={"x": genes, "y": ["cat", "dog"]},
    )
    assert tree["posterior/z"].dims == ("chain", "draw", "data", "factor")
    assert list(tree["posterior/factor"].values) == ["size", "slant"]
    for group in ("posterior_predictive", "prior_predictive", "observed_data"):
        assert list(tree[f"{group}/x_dim_0"].values) == genes
    assert list(tree["sample_stats/data"].values) == ["r0", "r1", "r2", "r3"]
    # Two sites may share an axis, and a user's labels come before the data's.
    tree = to_tree(
        replace(
            some(), prior={}, posterior={"w": np.zeros((S, N, 5))}, plates={"w": ("data",), "x": ("data",)}
        ),
        dims={"w": ["gene"], "x": ["gene"]},
        columns={"x": genes},
        coords={"gene": range(5, 10)},
    )
    assert list(tree["posterior/gene"].values) == list(tree["observed_data/gene"].values) == [5, 6, 7, 8, 9]
    # Names of columns that do not fit are those of something else.
    assert list(to_tree(some(), columns={"x": ["a", "b"]})["observed_data/x_dim_0"].values) == [0, 1, 2, 3, 4]


def test_axes_of_global_sites_have_the_names_of_classes_and_columns():
    def coords(*shape, names, dims=None, z=2):
        drawn = {"w": np.zeros((S, *shape)), "z": np.zeros((S, N, z))}
        plates = {"w": (), "z": ("data",), "x": ("data",)}
        tree = to_tree(replace(some(), prior={}, posterior=drawn, plates=plates), columns=names, dims=dims)
        return [tree["posterior"][axis].values.tolist() for axis in tree["posterior/w"].dims[2:]]

    names = {"x": list("abcde"), "y": ["cat", "dog", "owl"]}
    assert coords(3, 5, names=names) == [names["y"], names["x"]]
    assert coords(3, 4, names=names) == [names["y"], [0, 1, 2, 3]]
    # A length that tells nothing: of two axes, of two fields, of a local latent too.
    assert coords(3, 3, names=names) == [[0, 1, 2]] * 2
    assert coords(3, names=names | {"batch": ["n", "s", "w"]}) == [[0, 1, 2]]
    assert coords(3, 5, names=names, z=3) == [[0, 1, 2], names["x"]]
    # An axis that is called like a field has its names.
    assert coords(3, 3, names=names, z=3, dims={"w": ["y", "k"]}) == [names["y"], [0, 1, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coords": {"dat": [1]}}, "coords name dat: the axes are .*data"),
        ({"coords": {"data": [1, 2]}}, "coords of 'data': 2 labels given, the axis has 4"),
        ({"dims": {"w": ["a"]}}, "dims name w: the sites are z, x, level"),
        ({"dims": {"z": ["a", "b"]}}, "dims of 'z': 2 names given, it has 1 axes within a row"),
        (
            {"dims": {"z": ["k"], "level": ["k"]}},
            "axis 'k' has sizes 2 and 3: give the axes of 'level' names",
        ),
        ({"dims": {"z": ["draw"]}}, "axis 'draw' has sizes 60 and 2"),
    ],
)
def test_names_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        to_tree(some(), **options)


@pytest.mark.parametrize(
    ("method", "words"),
    [("guide", "not of the posterior"), ("importance", "resampled by importance weights")],
)
def test_attributes_say_what_the_draws_are(method, words):
    tree = to_tree(some(method))
    for attributes in (tree.attrs, tree["posterior"].attrs):
        assert attributes["method"] == method
        assert words in attributes["draws"]
        assert "R-hat" in attributes["r_hat"]
        assert "not a leave-one-out" in attributes["log_likelihood"]
        assert (attributes["program"], attributes["inference_library"]) == ("VAE", "pyro")
        assert attributes["inference_library_version"].startswith("1.")
        assert attributes["created_at"].endswith("+00:00")
        assert attributes["proposals_per_row"] == S
    assert "not a leave-one-out" in tree["log_likelihood"].attrs["log_likelihood"]
    note = "site 'level' is global: log_weight is given the global draw"
    assert to_tree(replace(some(), note=note, proposals=0)).attrs["use"] == note


# ArviZ 0.23 calls matplotlib 3.11 in a way that 3.13 drops.
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")
def test_arviz_works_on_it(tmp_path):
    path = to_netcdf(to_tree(some("importance")), tmp_path / "p.nc")
    for found in (to_arviz(to_tree(some())), az.from_netcdf(path)):
        assert isinstance(found, az.InferenceData)
        assert found.attrs["program"] == "VAE"
        assert set(found.groups()) >= {"posterior", "prior", "log_likelihood", "sample_stats"}
        table = az.summary(found, var_names=["level"], kind="stats")
        np.testing.assert_allclose(table["mean"], found.posterior["level"].mean(("chain", "draw")), atol=6e-4)
        assert len(az.summary(found)) == N * 2 + 3
        assert az.extract(found)["z"].sizes == {"data": N, "z_dim_0": 2, "sample": S}
        assert az.extract(found, group="prior", num_samples=7)["level"].sizes["sample"] == 7
        assert az.plot_posterior(found, var_names=["z"], coords={"data": [0]}).size == 2
        az.plot_ppc(found, num_pp_samples=5, random_seed=0)
        plt.close("all")


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_a_file_holds_the_tree(tmp_path, engine):
    tree = to_tree(some(), coords={"data": ["a", "b", "c", "d"]})
    path = to_netcdf(tree, tmp_path / "p.nc")
    with xr.open_datatree(path, engine=engine) as found:
        xr.testing.assert_equal(found, tree)
        assert found.attrs == tree.attrs
        assert found["posterior"].attrs == tree["posterior"].attrs
        assert found["posterior/z"].dtype == np.float32
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert list(tmp_path.iterdir()) == [path]


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_site_in_a_scope_has_a_name_that_a_file_can_hold(tmp_path):
    draws = some()
    draws = replace(draws, posterior={"a/z": draws.posterior["z"]}, plates={"a/z": ("data",), **draws.plates})
    path = to_netcdf(to_tree(draws), tmp_path / "p.nc")
    assert az.from_netcdf(path).posterior["a.z"].dims == ("chain", "draw", "data", "a.z_dim_0")


def test_a_file_is_replaced_on_request_only(tmp_path):
    path = tmp_path / "p.nc"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        to_netcdf(to_tree(some()), path)
    assert path.read_text() == "mine"
    to_netcdf(to_tree(some()), path, overwrite=True)
    assert az.from_netcdf(path).posterior["z"].shape == (1, S, N, 2)
    with pytest.raises(UsageError, match="is a folder"):
        to_netcdf(to_tree(some()), tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="there is no folder"):
        to_netcdf(to_tree(some()), tmp_path / "no" / "p.nc")


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "p.nc"
    write = xr.DataTree.to_netcdf
    monkeypatch.setattr(xr.DataTree, "to_netcdf", lambda *a, **k: (write(*a, **k), path.write_text("other")))
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        to_netcdf(to_tree(some()), path)
    assert path.read_text() == "other"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_what_there_was(tmp_path):
    path = tmp_path / "p.nc"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))  # as on a disk that is nearly full
    try:
        with pytest.raises(RunError, match=r"cannot write .*p\.nc \(File too large\): check the disk"):
            to_netcdf(to_tree(some()), path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_of_pareto_weights(k):
    # Quantiles of a Pareto distribution with tail index k: w = (1 - u)^-k.
    u = (np.arange(20_000) + 0.5) / 20_000
    shape = pareto_k(-k * np.log1p(-u)[:, None] + np.array([0.0, 500.0]))
    np.testing.assert_allclose(shape, k, atol=0.05)
    assert (pareto_k(k * np.log1p(-u)[:, None]) < 0).all()


def test_statistics_of_weights():
    log_weights = np.log(np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [1.0, 2.0]])) - 2000
    found = statistics(log_weights)
    np.testing.assert_allclose(found["ess"], [4.0, 64 / 18])
    np.testing.assert_allclose(found["log_evidence"], [-2000, np.log(2) - 2000])
    assert np.isnan(found["pareto_k"]).all()  # four draws have no tail


def test_a_draw_without_weight_is_never_picked():
    log_weights = np.array([[-np.inf], [0.0], [-np.inf]])
    for edge in (0.0, np.nextafter(1.0, 0.0)):
        rng = SimpleNamespace(random=lambda shape, edge=edge: np.full(shape, edge))
        assert resample(log_weights, 3, rng).tolist() == [[1], [1], [1]]


def test_resampling_follows_the_weights():
    share = np.array([0.5, 0.3, 0.0, 0.2])
    with np.errstate(divide="ignore"):
        log_weights = np.stack([np.log(share) - 900, np.log(share[::-1])], 1)
    picked = resample(log_weights, 20_000, np.random.default_rng(0))
    assert picked.shape == (20_000, 2)
    counts = np.stack([np.bincount(picked[:, n], minlength=4) for n in range(2)], 1) / 20_000
    expected = np.stack([share, share[::-1]], 1)
    assert (np.abs(counts - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / 20_000)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_weights_name_their_row(bad):
    log_weights = np.zeros((30, 3))
    log_weights[4, 1] = bad
    with pytest.raises(ProgramError, match="row 1: its importance weights are not finite"):
        resample(log_weights, 5, np.random.default_rng(0))
    log_weights[:, 2], log_weights[4, 1] = -np.inf, 0.0
    with pytest.raises(ProgramError, match="row 2"):
        statistics(log_weights)
