"""Tables as pandas, R and spreadsheets write them, and what their columns are for."""

import logging

import numpy as np
import pandas as pd
import pytest
from command_line import cli, ok, refused
from made import BACKENDS

from ppl_vae import data, open_run, posterior
from ppl_vae.errors import DataError, UsageError

COUNTS = np.random.default_rng(0).poisson(3, (50, 3))
GENES = ["geneA", "geneB", "geneC"]


def frame():
    return pd.DataFrame(COUNTS, columns=GENES)


def labelled():
    return frame().set_axis([f"cell{i}" for i in range(50)])


def loaded(path, text, **options):
    content = text if isinstance(text, bytes) else text.encode()
    path = path / "table.csv"
    path.write_bytes(content)
    return data.load(path, valid=0, test=0, **options)


def of_r(sep=","):
    names = sep.join(f'"{name}"' for name in GENES)
    rows = (sep.join([f'"r{i}"', *map(str, row)]) for i, row in enumerate(COUNTS))
    return "\n".join([names, *rows, ""])


WRITTEN = {
    "pandas": (lambda: frame().to_csv(), True),
    "pandas, no index": (lambda: frame().to_csv(index=False), False),
    "pandas, names of rows": (lambda: labelled().to_csv(), True),
    "pandas, its index read back": (
        lambda: frame().reset_index(names="Unnamed: 0").to_csv(index=False),
        True,
    ),
    "semicolons": (lambda: frame().to_csv(index=False, sep=";"), False),
    "tabs": (lambda: labelled().to_csv(sep="\t"), True),
    "bars": (lambda: frame().to_csv(index=False, sep="|"), False),
    "byte order mark": (lambda: "\ufeff" + frame().to_csv(index=False), False),
    "UTF-16 of a spreadsheet": (lambda: frame().to_csv(index=False, sep="\t").encode("utf-16"), False),
    "quotes": (lambda: frame().to_csv(index=False, quoting=1), False),
    "Windows": (lambda: frame().to_csv(index=False, lineterminator="\r\n"), False),
    "R's write.table": (lambda: of_r(" "), True),
    "R, commas": (of_r, True),
    "a column of ids": (lambda: labelled().reset_index(names="barcode").to_csv(index=False), True),
    "blanks after commas": (lambda: frame().to_csv(index=False).replace(",", ", "), False),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_table_means_the_same_however_it_is_written(tmp_path, written):
    make, has_labels = WRITTEN[written]
    made = loaded(tmp_path, make())
    assert np.array_equal(made.raw("train")["x"], COUNTS)
    assert (made.kind, made.coords) == ("counts", {"x": GENES})
    assert ("train" in made.labels) == has_labels
    if has_labels and "read back" not in written and written != "pandas":
        assert made.labels["train"][-1].endswith("49")


REAL = np.round(np.random.default_rng(1).normal(size=(30, 2)), 3)


@pytest.mark.parametrize("sep", [";", "\t", "|"])
def test_fractions_after_commas(tmp_path, sep):
    made = loaded(tmp_path, pd.DataFrame(REAL, columns=["a", "b"]).to_csv(sep=sep, decimal=",", index=False))
    np.testing.assert_allclose(made.raw("train")["x"], REAL, rtol=1e-6)
    assert any("commas before fractions" in note for note in made.notes)


@pytest.mark.parametrize("names", [["0", "1"], ["1", "2"], ["2001", "2002"]])
def test_names_of_columns_that_are_numbers(tmp_path, names):
    text = pd.DataFrame(REAL, columns=names).to_csv(index=False)
    made = loaded(tmp_path, text)
    assert made.coords == {"x": names} and made.shape("x") == (2,) and len(made.raw("train")["x"]) == 30
    assert any("header=False" in note for note in made.notes)
    as_row = loaded(tmp_path, text, header=False)
    assert as_row.coords == {} and len(as_row.raw("train")["x"]) == 31


def test_a_first_line_of_numbers_like_all_others_is_a_row(tmp_path):
    assert len(loaded(tmp_path, "3,1\n4,1\n5,9\n").raw("train")["x"]) == 3
    assert len(loaded(tmp_path, "0,1\n2,3\n4,5\n").raw("train")["x"]) == 3
    assert len(loaded(tmp_path, "0.5,1\n2,3.5\n").raw("train")["x"]) == 2
    assert loaded(tmp_path, "3,1\n4,1\n", header=True).coords == {"x": ["3", "1"]}


def test_what_was_taken_for_what_is_said_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="ppl_vae"):
        made = loaded(tmp_path, labelled().to_csv(sep=";"))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(made.notes) == 2
    assert "semicolons" in said[0] and "names of rows" in said[1]


MIXED = pd.DataFrame(
    {
        "who": ["ann", "bob", "cy", "di"],
        "age": [30, 40, 50, 60],
        "height": [1.5, np.nan, 1.7, 1.8],
        "sex": ["f", "m", "m", "f"],
        "site": [1, 0, 1, 0],
        "comment": ["", "late", "late", ""],
    }
)


def as_frame(tmp_path, **roles):
    return data.of(MIXED, valid=0, test=0, **roles)


def as_file(tmp_path, **roles):
    return loaded(tmp_path, MIXED.to_csv(index=False), **roles)


@pytest.mark.parametrize("made_from", [as_frame, as_file])
def test_roles_of_columns(tmp_path, made_from):
    made = made_from(tmp_path, label="sex", batch="site", ignore="comment", mask="nan")
    rows = made.raw("train")
    assert made.coords == {"x": ["age", "height"], "y": ["f", "m"]}
    assert rows["y"].tolist() == [0, 1, 1, 0] and rows["batch"].tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(rows["x"], [[30, 1.5], [40, 0], [50, 1.7], [60, 1.8]])
    assert rows["mask"].tolist() == [[True, True], [True, False], [True, True], [True, True]]
    assert made.labels["train"].tolist() == ["ann", "bob", "cy", "di"]
    chosen = made_from(tmp_path, x="sex,age")
    assert chosen.raw("train")["x"].tolist() == [[0, 30], [1, 40], [1, 50], [0, 60]]
    assert chosen.coords["x/sex"] == ["f", "m"]


@pytest.mark.parametrize("made_from", [as_frame, as_file])
@pytest.mark.parametrize(
    ("roles", "error", "names"),
    [
        ({"ignore": "comment"}, DataError, ["sex", "label", "batch", "ignore"]),
        ({"x": "age,height"}, DataError, ["height", "mask='nan'"]),
        ({"label": "sexe"}, UsageError, ["label", "sexe", "did you mean 'sex'"]),
        ({"label": "sex", "batch": "sex"}, UsageError, ["sex", "label", "batch"]),
        ({"x": "age", "label": "comment"}, DataError, ["comment", "no value"]),
        ({"x": "age", "mask": "age"}, UsageError, ["age", "mask"]),
        ({"x": "site", "mask": "age"}, DataError, ["age", "0 or 1"]),
    ],
)
def test_roles_that_are_refused(tmp_path, made_from, roles, error, names):
    with pytest.raises(error) as refused:
        made_from(tmp_path, **roles)
    assert all(name in str(refused.value) for name in names), refused.value


def test_arrays_of_a_file_have_roles_too(tmp_path):
    np.savez(tmp_path / "a.npz", counts=COUNTS, kind=np.array(["a", "b"] * 25), note=np.array(["-"] * 50))
    made = data.load(tmp_path / "a.npz", x="counts", label="kind", valid=0, test=0)
    assert made.fields == ("x", "y") and made.coords == {"y": ["a", "b"]}
    assert np.array_equal(made.raw("train")["x"], COUNTS)
    assert any("'note' left out" in note for note in made.notes)


def test_whole_numbers_beyond_64_bits_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="line 3, column 'b'.*beyond"):
        loaded(tmp_path, f"a,b\n1,2\n3,{2**64}\n")


def test_labels_of_rows_go_with_their_rows(tmp_path):
    made = data.of(labelled(), valid=5, test=5, split_seed=3)
    for split, names in made.labels.items():
        places = [int(name.removeprefix("cell")) for name in names]
        assert np.array_equal(made.raw(split)["x"], COUNTS[places])


ROLES = ("--batch", "site", "--label", "kind", "--ignore", "remark")


def written_table(path):
    rng = np.random.default_rng(5)
    table = pd.DataFrame(rng.poisson(4, (60, 3)), columns=GENES)
    table.insert(0, "sample", [f"s{i:02}" for i in range(60)])
    table["site"], table["kind"], table["remark"] = ["north", "south"] * 30, ["a", "b", "c"] * 20, "seen"
    table.to_csv(path, index=False, sep=";")
    return table


@pytest.mark.parametrize("backend", ["pyro", pytest.param("numpyro", marks=pytest.mark.slow)])
def test_from_a_file_to_tables_with_the_names_of_its_rows(tmp_path, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    table = written_table(tmp_path / "cells.csv")
    understood = ok("data", "info", "cells.csv", *ROLES)
    assert understood["coords"] == {"x": GENES, "batch": ["north", "south"], "y": ["a", "b", "c"]}
    assert understood["row_labels"] and any("semicolons" in note for note in understood["notes"])
    words = (*ROLES, "--max-steps", "3", "--batch-size", "16", "--out", "run")
    options = ("--model.z_dim", "2", "--model.hidden", "[8]", "--progress", "false", "--backend", backend)
    assert ok("train", "counts", "--data", "cells.csv", *words, *options)["report"]
    encoded = ok("encode", "run", "--split", "test")
    written = pd.read_csv(encoded["table"], index_col="row")
    with np.load(encoded["out"]) as file:
        latents = dict(file)
    assert list(written.columns)[:2] == ["z_0", "z_1"]
    assert written.index.tolist() == latents["row_names"].tolist()
    np.testing.assert_allclose(written[["z_0", "z_1"]], latents["z"], rtol=1e-5)
    assert written["batch"].tolist() == table.set_index("sample").loc[written.index, "site"].tolist()
    # The same rows in another file, in another order, alone: the same codes, the same latents.
    few = table[table["sample"].isin(written.index) & (table["site"] == "south")][::-1]
    few[["site", *reversed(GENES), "sample"]].to_csv("few.csv", index=False)
    again = ok("encode", "run", "--data", "few.csv", "--out", "z.npz")
    again = pd.read_csv(again["table"], index_col="row")
    assert again.index.tolist() == few["sample"].tolist()
    np.testing.assert_allclose(again[["z_0", "z_1"]], written.loc[again.index, ["z_0", "z_1"]], rtol=1e-4)
    assert ok("decode", "run", "--latents", "z.npz", "--out", "made.npz")["n"] == len(few)
    table[["site", "kind", "sample"]][:2].to_csv("given.csv", index=False)
    for given, codes in (("site=south", [1, 1]), ("batch=north", [0, 0]), ("given.csv", [0, 1])):
        drawn = ok("sample", "run", "-n", 2, "--covariates", given)
        with np.load(drawn["out"]) as file:
            assert file["batch"].tolist() == codes
    east = refused(1, "sample", "run", "-n", 2, "--covariates", "site=east")
    assert "'east' is none of those trained on: 'north', 'south'" in east
    bounds = pd.read_csv(ok("log_prob", "run", "--importance-samples", "5")["table"], index_col="row")
    assert set(bounds.index) == set(written.index)


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("5,3\n5.1,3.5\n4.9,3.1\n", [[5, 3], [5.1, 3.5], [4.9, 3.1]]),
        ("5\n5.1\n4.9\n", [[5], [5.1], [4.9]]),
        ("a\n1\n\n3\n", [[1], [3]]),
        ("a,b\n1,True\n2,False\n", [[1, 1], [2, 0]]),
        (",Unnamed: 0,a,b\n0,0,1.5,2\n1,1,2.5,3\n", [[1.5, 2], [2.5, 3]]),
    ],
)
def test_no_row_and_no_column_is_taken_for_something_else(tmp_path, text, x):
    np.testing.assert_allclose(loaded(tmp_path, text).raw("train")["x"], x)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('a\n1\n""\n3\n', ["line 3", "'a'"]),  # as pandas writes a missing number of an only column
        (",1.5,2.5\n3,4,5\n6,7,8\n", ["line 1", "'1'"]),
        ("a\n1,5\n2,5\n", ["delimiter", "decimal"]),
        ('a,b\n"1,000",1\n"1,001",2\n', ["'1,000' is no number as it is written", "'a'"]),
        ("a,b\n3%,1\n4%,2\n", ["'3%' is no number as it is written"]),
    ],
)
def test_what_has_two_meanings_or_none_is_refused(tmp_path, text, names):
    with pytest.raises(DataError) as refused:
        loaded(tmp_path, text)
    assert all(name in str(refused.value) for name in names), refused.value


def test_numbers_of_rows_give_way_to_names(tmp_path):
    made = loaded(tmp_path, ",cell_id,a,b\n0,x7,1.5,2\n1,x3,2.5,3\n")
    assert made.labels["train"].tolist() == ["x7", "x3"] and made.coords == {"x": ["a", "b"]}
    kept = loaded(tmp_path, ",cell_id,a\nr1,7,1.5\nr2,3,2.5\n")
    assert kept.labels["train"].tolist() == ["r1", "r2"] and kept.coords == {"x": ["cell_id", "a"]}


def test_names_keep_their_zeros_and_numbers_their_order(tmp_path):
    text = "id,kind,a\n007,01,1.5\n7,1,2.5\n010,02,3\n"
    made = loaded(tmp_path, text, label="kind")
    assert made.labels["train"].tolist() == ["007", "7", "010"]
    assert made.coords["y"] == ["01", "02", "1"]
    number = pd.Categorical(np.arange(24) % 12)
    rows = data.of(pd.DataFrame({"a": np.arange(24.0), "g": number}), batch="g", valid=0, test=0).raw("train")
    assert np.array_equal(rows["batch"], np.arange(24) % 12)


def test_a_frame_means_what_its_file_means(tmp_path):
    REAL_FRAME = pd.DataFrame(REAL, columns=["a", "b"])
    REAL_FRAME.to_csv(tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv")
    made, of_file = data.of(read, valid=0, test=0), data.load(tmp_path / "t.csv", valid=0, test=0)
    assert np.array_equal(made.raw("train")["x"], of_file.raw("train")["x"]) and made.coords == of_file.coords
    objects = data.of(REAL_FRAME.astype(object), valid=0, test=0)
    np.testing.assert_allclose(objects.raw("train")["x"], REAL, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"label": ["a"]},
        {"label": True},
        {"mask": np.ones(30, bool)},
        {"x": 3},
        {"header": "no"},
        {"delimiter": "dot"},
        {"decimal": ";"},
    ],
)
def test_options_of_another_kind_are_refused(tmp_path, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        loaded(tmp_path, "a,b\n1,2\n3,4\n", **options)


def test_columns_that_are_left_out_are_not_judged(tmp_path):
    table = pd.DataFrame({"a": REAL[:, 0], "when": pd.date_range("2020", periods=30), "big": [2**80] * 30})
    made = data.of(table, ignore=["when", "big"])
    assert made.shape("x") == (1,)
    with pytest.raises(DataError, match="'when': .* is no number"):
        data.of(table, ignore="big")
    table.to_csv(tmp_path / "table.csv", index=False)
    assert data.load(tmp_path / "table.csv", ignore="when,big").shape("x") == (1,)


def test_a_role_that_is_given_twice_is_refused(tmp_path):
    MIXED.to_csv(tmp_path / "a.csv", index=False)
    words = ("--ignore", "comment", "--ignore=sex")
    assert "--ignore is given twice" in refused(2, "data", "info", tmp_path / "a.csv", *words)


@pytest.mark.parametrize("backend", BACKENDS)
def test_from_a_file_with_missing_numbers_to_a_report_in_one_command(backend, tmp_path, caplog):
    rows = np.random.default_rng(0).normal(size=(30, 3))
    rows[::2, 1] = np.nan
    table, out = tmp_path / "t.csv", tmp_path / "run"
    frame = pd.DataFrame(rows, columns=list("abc"), index=[f"r{i}" for i in range(30)])
    frame.assign(kind=["B", "T"] * 15, site=["n", "s", "n"] * 10).to_csv(table, index_label="id")
    roles = ("--index", "id", "--mask", "nan", "--label", "kind", "--batch", "site")
    model = ("--model.likelihood", "normal", "--model.hidden", "4", "--model.z_dim", 1)
    ok("train", "vae", "--data", table, *roles, *model, "--valid", 0, "--test", 10, "--epochs", 1,
       "--backend", backend, "--out", out, "--progress", "false")  # fmt: skip
    page = (out / "report.html").read_text()
    assert "Not shown" not in page
    assert [
        words for words in ("by kind", ">B</li>", ">T</li>", "independent columns") if words not in page
    ] == []
    assert any("15 missing numbers, masked" in line for line in caplog.messages)
    caplog.clear()
    told = ok("reconstruct", out)
    named = pd.read_csv(told["table"], index_col="row")
    assert list(named) == ["a", "b", "c", "a_mean", "b_mean", "c_mean"]
    with np.load(told["out"]) as made:
        np.testing.assert_allclose(named[["a", "b", "c"]], made["x"], rtol=1e-6)
        np.testing.assert_allclose(named[["a_mean", "b_mean", "c_mean"]], made["x_mean"], rtol=1e-5)
        np.testing.assert_allclose(named["a"], rows[[int(name[1:]) for name in named.index], 0], rtol=1e-5)
        missing = np.isnan(made["x"])
        assert missing[:, 1].any() and not missing[:, ::2].any() and np.isfinite(made["x_mean"]).all()
    tree = posterior(open_run(out), open_run(out).data.rows("test"), num_samples=3)
    np.testing.assert_array_equal(np.isnan(tree["observed_data/x"].values), missing)
    assert not any("missing numbers" in line for line in caplog.messages)  # said once, by train


def test_info_shows_the_columns_before_it_asks_what_text_is_for(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("cell,kind,size,dose\nc1,B,1,0.5\nc2,T,3,\nc3,T,4,2.5\n")
    found = cli("data", "info", table)
    assert found.code == 1 and not found.out and "'kind'" in found.err[-1]
    assert found.err[1:-1] == [
        "  cell: text, 3 different (c1, c2, c3)",
        "  kind: text, 2 different (B, T)",
        "  size: whole numbers",
        "  dose: numbers, 1 missing",
    ]
    told = ok("data", "info", table, "--label", "kind", "--mask", "nan")
    assert told["coords"]["y"] == ["B", "T"] and "1 missing numbers, masked" in told["notes"]
