import numpy as np
import pytest

from ppl_vae import data
from ppl_vae.errors import DataError, UsageError

# ---- arrays


@pytest.mark.parametrize(
    ("array", "kind", "levels", "shape"),
    [
        (np.full((9, 5, 4), 200, np.uint8), "image", 256, (1, 5, 4)),
        (np.full((9, 5, 4, 3), 200, np.uint8), "image", 256, (3, 5, 4)),
        (np.full((9, 3, 5, 4), 200, np.uint8), "image", 256, (3, 5, 4)),
        (np.full((9, 5, 4), 1, np.uint8), "image", 2, (1, 5, 4)),
        (np.full((9, 5, 4), 300, np.uint16), "image", 65536, (1, 5, 4)),
        (np.full((9, 5, 4), 0.5), "image", None, (1, 5, 4)),
        (np.full((9, 1, 400), 0.5), "vector", None, (1, 400)),
        (np.full((9, 5, 4), 1.5), "vector", None, (5, 4)),
        (np.full((9, 6), 0.5), "vector", None, (6,)),
        (np.full((9, 6), 7), "counts", None, (6,)),
        (np.full((9, 6), -7), "vector", None, (6,)),
        (np.full((9, 6), True), "vector", 2, (6,)),
        (np.full(9, 0.5), "vector", None, (1,)),
    ],
)
def test_kind_of_an_array(array, kind, levels, shape):
    made = data.of(array)
    assert (made.kind, made.levels, made.shape("x")) == (kind, levels, shape)
    assert made.raw("train")["x"].dtype == (np.int64 if kind == "counts" else np.float32)


def test_channels_move_to_the_front():
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    made = data.of(x, valid=0, test=0)
    assert np.array_equal(made.splits["train"]["x"], x.transpose(0, 3, 1, 2))


def test_kind_and_levels_can_be_given():
    x = np.arange(17.0).repeat(4).reshape(17, 4)
    made = data.of(x, levels=17, valid=0, test=0)
    assert made.splits["train"]["x"].dtype == np.uint8
    assert np.array_equal(made.raw("train")["x"], (x / 16).astype(np.float32))
    assert data.of(x, kind="counts").raw("train")["x"].dtype == np.int64
    assert data.of(x.astype(int), kind="vector").raw("train")["x"].dtype == np.float32
    with pytest.raises(DataError, match=r"x lies in \[0.0, 16.0\] and is no whole number in \[0, 15\]"):
        data.of(x, levels=16)
    with pytest.raises(DataError, match="row 0 that are no counts"):
        data.of(x + 0.5, kind="counts", valid=0, test=0)
    with pytest.raises(UsageError, match="unknown kind of data 'movie'"):
        data.of(x, kind="movie")
    with pytest.raises(UsageError, match=r"rows of shape \(4,\) are no images"):
        data.of(x, kind="image")


def test_random_split_is_seeded_and_complete():
    x = np.arange(50.0)[:, None]
    made, again, other = (data.of(x, split_seed=seed) for seed in (0, 0, 1))
    parts = np.concatenate([made.raw(split)["x"] for split in ("train", "valid", "test")])
    assert [made.num_rows(split) for split in made.splits] == [40, 5, 5]
    assert np.array_equal(np.sort(parts, 0), x) and made.sha256 == again.sha256 != other.sha256
    assert "default_rng(0)" in made.split_rule
    assert [data.of(x, valid=7, test=0.5).num_rows(split) for split in ("train", "valid", "test")] == [
        18,
        7,
        25,
    ]
    assert list(data.of(x[:1]).splits) == ["train"]


def test_fields_keep_together_and_keep_their_types():
    fields = {
        "x": np.arange(30.0)[:, None],
        "y": np.arange(30, dtype=np.uint8),
        "mask": np.arange(30) % 2 == 0,
    }
    rows = data.of(fields).raw("test")
    assert {name: values.dtype for name, values in rows.items()} == {
        "x": np.float32,
        "y": np.int64,
        "mask": bool,
    }
    assert np.array_equal(rows["x"][:, 0], rows["y"]) and np.array_equal(rows["mask"], rows["y"] % 2 == 0)


def test_splits_as_given():
    a, b, c = np.full((4, 2), 1.0), np.full((3, 2), 2.0), np.full((2, 2), 3.0)
    made = data.of({"x_train": a, "x_val": b, "x_test": c})
    assert made.split_rule == "as given"
    assert [made.raw(split)["x"][0, 0] for split in made.splits] == [1, 2, 3]
    assert data.of({"train": {"x": a}, "valid": {"x": b}, "test": {"x": c}}).sha256 == made.sha256
    no_valid = data.of({"x_train": a, "x_test": c})
    assert [no_valid.num_rows(split) for split in ("train", "valid", "test")] == [3, 1, 2]
    assert "given" in no_valid.split_rule and "default_rng(0)" in no_valid.split_rule
    assert list(data.of({"x_train": a, "x_test": c}, valid=0).splits) == ["train", "test"]


@pytest.mark.parametrize(
    ("obj", "word"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "x 3, y 4"),
        ({"x": np.zeros((0, 2))}, "empty: it has no rows"),
        ({"x": np.zeros((4, 0))}, r"x has rows without numbers, of shape \(0,\)"),
        ({}, "it has no fields"),
        ({"x": np.array([["a"]])}, "not numeric"),
        ({"x": np.array([None])}, "not numeric"),
        ({"x": [[1, 2], [3]]}, "no array of numbers"),
        ({"x": np.zeros((2, 2)), "n": 3}, "n is a single number"),
        ({"x": np.array([[0.0, 1], [2, np.nan]])}, r"x has 1 values .* \(nan\) in row 1 at \(1,\)"),
        ({"x_train": np.array([[0.0], [np.inf]])}, r"x \(train\) has 1 .* \(inf\) in row 1"),
        ({"x": np.array([[1e300]])}, "beyond float32"),
        ({"x_train": np.zeros((2, 2)), "x_test": np.zeros((2, 3))}, r"\(3,\) in test, but \(2,\) in train"),
        (
            {"x_train": np.zeros((2, 2)), "x_test": np.zeros((2, 2), int)},
            "is int64 in test, but float32 in train",
        ),
        ({"x_train": np.zeros((2, 2)), "y": np.zeros(2)}, "y name no split"),
        ({"x_test": np.zeros((2, 2))}, "no training rows"),
        (
            {"x_train": np.zeros((2, 2)), "x_test": np.zeros((2, 2)), "y_test": np.zeros(2)},
            "y must be in train",
        ),
        ({"train": {"x": np.zeros(2)}, "dev": {"x": np.zeros(2)}}, "'dev' is no split"),
    ],
)
def test_arrays_that_are_refused(obj, word):
    with pytest.raises(DataError, match=word):
        data.of(obj)


def test_dataframe_gives_names_of_columns():
    import pandas

    frame = pandas.DataFrame({"a": np.arange(10.0), "b": np.arange(10)})
    made = data.of(frame, valid=0, test=0)
    assert made.coords == {"x": ["a", "b"]} and np.array_equal(made.raw("train")["x"][:, 1], np.arange(10))
    with pytest.raises(DataError, match="column 'c': 'text' is no number"):
        data.of(frame.assign(c="text"))
    with pytest.raises(DataError, match="row 3, column 'b' has no value"):
        data.of(frame.assign(b=frame["b"].astype("Int64").where(frame["b"] != 3)))


def test_data_is_passed_on():
    digits = data.load("digits")
    assert data.of(digits) is digits
    assert data.of(digits, binarize="dynamic").binarize == "dynamic"
    with pytest.raises(UsageError, match="valid cannot be changed"):
        data.of(digits, valid=3)
    with pytest.raises(UsageError, match="int is no data"):
        data.of(3)
    with pytest.raises(UsageError, match="no field 'z': it has x, y"):
        digits.shape("z")


def test_hash_is_of_the_content():
    x = np.arange(12.0).reshape(6, 2)
    assert data.of(x).sha256 == data.of(np.asfortranarray(x), name="other").sha256
    assert data.of(x).sha256 != data.of(x + 1).sha256 != data.of({"z": x + 1}).sha256


# ---- files


def test_npz_of_named_fields(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (20, 6, 5), dtype=np.uint8), np.arange(20)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    loaded = data.load(tmp_path / "a.npz")
    assert (loaded.kind, loaded.fields, loaded.shape("x")) == ("image", ("x", "y"), (1, 6, 5))
    assert loaded.source == str(tmp_path / "a.npz") and loaded.sha256 == data.of({"x": x, "y": y}).sha256
    np.savez(tmp_path / "b.npz", x_train=x[:12], x_valid=x[12:16], x_test=x[16:])
    assert np.array_equal(data.load(str(tmp_path / "b.npz")).splits["test"]["x"][:, 0], x[16:])
    np.savez(tmp_path / "c.npz", x)
    assert data.load(tmp_path / "c.npz").fields == ("x",)


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(20.0).reshape(10, 2))
    loaded = data.load(tmp_path / "a.npy", valid=2, test=0)
    assert (loaded.num_rows("train"), loaded.num_rows("valid"), loaded.kind) == (8, 2, "vector")


def test_pickles_and_broken_files_are_refused(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.savez(tmp_path / "object.npz", x=np.array([{"a": 1}]))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "broken.npy").write_bytes(b"")
    (tmp_path / "garbage.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"object.npz: 'x' holds Python objects, which are not read"):
        data.load(tmp_path / "object.npz")
    for name in ("object.npy", "broken.npz", "broken.npy", "garbage.npy"):
        with pytest.raises(DataError, match=rf"{name} cannot be read as arrays: .*numpy\.save") as refused:
            data.load(tmp_path / name)
        assert "allow_pickle" not in str(refused.value)
    (tmp_path / "a.doc").write_text("1")
    with pytest.raises(DataError, match=r"a\.doc is of no known type"):
        data.load(tmp_path / "a.doc")
    with pytest.raises(DataError, match=r"missing\.npz does not exist"):
        data.load(str(tmp_path / "missing.npz"))


def test_nan_in_a_file_names_file_field_and_row(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), s=np.array([1, 2, np.nan, 4]))
    with pytest.raises(DataError, match=r"a\.npz: s has 1 values that are NaN.*in row 2: remove"):
        data.load(tmp_path / "a.npz")


def load_csv(tmp_path, text, **options):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    return data.load(tmp_path / "a.csv", valid=0, test=0, **options)


def test_csv(tmp_path):
    loaded = load_csv(tmp_path, "\ufeffheight, width\n1.5,2\n\n3,-4e1\n")
    assert loaded.coords == {"x": ["height", "width"]} and loaded.kind == "vector"
    assert np.array_equal(loaded.raw("train")["x"], [[1.5, 2], [3, -40]])
    plain = load_csv(tmp_path, "1,2\n3,4\n")
    assert plain.coords == {} and plain.kind == "counts"
    assert np.array_equal(plain.raw("train")["x"], [[1, 2], [3, 4]])
    assert load_csv(tmp_path, "1,2\n3,4\n", kind="vector").raw("train")["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,b\n1,2\n3,x\n", r"line 3, column 'b': 'x' is no number"),
        ("1,2\n3,\n", r"line 2, column '2' has no value"),
        ("a,b\n1,nan\n", r"line 2, column 'b' has no value"),
        ("a,b\n1,2\n3,inf\n", "infinite"),
        ("a,b\n1,2\n1,2,3\n", r"line 3: 3 cells, but 2 in the first line"),
        ("a,b\n", "a header and no rows"),
        ("", "is empty"),
    ],
)
def test_csv_that_is_refused(tmp_path, text, word):
    with pytest.raises(DataError, match=word):
        load_csv(tmp_path, text)


def save_image(path, size=(4, 3), mode="L", value=7):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_folder_of_images_with_classes(tmp_path):
    for i in range(3):
        save_image(tmp_path / "pictures" / "dog" / f"{i}.png", value=10 + i)
        save_image(tmp_path / "pictures" / "cat" / f"{i}.png", value=20 + i)
    (tmp_path / "pictures" / "readme.txt").write_text("not an image")
    loaded = data.load(tmp_path / "pictures", valid=0, test=0)
    assert (loaded.kind, loaded.levels, loaded.shape("x")) == ("image", 256, (1, 3, 4))
    assert loaded.coords == {"y": ["cat", "dog"]}
    assert loaded.splits["train"]["x"][:, 0, 0, 0].tolist() == [20, 21, 22, 10, 11, 12]
    assert loaded.raw("train")["y"].tolist() == [0, 0, 0, 1, 1, 1]
    assert loaded.labels["train"].tolist() == [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)]


def test_folder_of_colour_images_with_splits(tmp_path):
    save_image(tmp_path / "train" / "a.png", mode="RGB", value=(1, 2, 3))
    save_image(tmp_path / "train" / "b.png", value=9)
    save_image(tmp_path / "test" / "c.png", mode="RGBA", value=(4, 5, 6, 255))
    loaded = data.load(tmp_path, valid=0)
    assert loaded.splits["train"]["x"][:, :, 0, 0].tolist() == [[1, 2, 3], [9, 9, 9]]
    assert loaded.splits["test"]["x"][:, :, 0, 0].tolist() == [[4, 5, 6]]
    assert loaded.labels["test"].tolist() == ["test/c.png"]


def test_images_that_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        data.load(tmp_path)
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "b.png", size=(5, 3))
    with pytest.raises(DataError, match=r"b\.png is 5x3 pixels, but a\.png is 4x3"):
        data.load(tmp_path)
    save_image(tmp_path / "b.png", mode="I;16", value=300)
    with pytest.raises(DataError, match="some images have 16 bits per pixel and some 8"):
        data.load(tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    with pytest.raises(DataError, match=r"b\.png (is damaged|cannot be read)"):
        data.load(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png cannot be read as an image"):
        data.load(tmp_path)
    save_image(tmp_path / "b.png", mode="LA", value=(7, 0))
    with pytest.raises(DataError, match=r"b\.png is transparent in places"):
        data.load(tmp_path)
    (tmp_path / "b.png").unlink()
    save_image(tmp_path / "class" / "c.png")
    with pytest.raises(DataError, match="some images lie in subfolders"):
        data.load(tmp_path)


def test_an_unknown_option_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match=r"no option 'binarise': did you mean binarize\? It takes batch,"):
        data.load("digits", binarise="none")
    with pytest.raises(UsageError, match=r"data\.of has no option 'split': .* [Ii]t takes batch, binarize,"):
        data.of(np.ones((3, 2)), split=1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "webp", "tif", "pgm"])
def test_images_of_every_format(tmp_path, suffix):
    from PIL import Image

    pixels = np.arange(96, dtype=np.uint8).reshape(4, 6, 4)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{i}.{suffix}", lossless=True)
    loaded = data.load(tmp_path, valid=0, test=0)
    found = loaded.splits["train"]["x"]
    assert loaded.levels == 256 and found.dtype == np.uint8
    assert np.array_equal(found[:, 0], pixels)  # WebP is of three channels, all alike


def test_images_of_16_bits_keep_them(tmp_path):
    from PIL import Image

    pixels = np.array([[[0, 300], [65535, 7]], [[1, 2], [3, 40000]]], np.uint16)
    for i, (one, suffix) in enumerate(zip(pixels, ("png", "tif"), strict=True)):
        Image.fromarray(one).save(tmp_path / f"{i}.{suffix}")
    loaded = data.load(tmp_path, valid=0, test=0)
    assert loaded.levels == 65536 and np.array_equal(loaded.splits["train"]["x"][:, 0], pixels)
    assert np.array_equal(loaded.raw("train")["x"], (pixels / 65535).astype(np.float32)[:, None])


def test_arrays_of_objects_are_left_out_with_a_line(tmp_path):
    names = np.array(["a", "b", "c"], dtype=object)
    np.savez(tmp_path / "mixed.npz", x=np.eye(3), names=names, note=np.array("text"))
    loaded = data.load(tmp_path / "mixed.npz", valid=0, test=0)
    assert loaded.fields == ("x",) and all(
        any(name in note and "left out" in note for note in loaded.notes) for name in ("names", "note")
    )
    with pytest.raises(DataError, match=r"'names' holds Python objects, .*astype\(str\)"):
        data.load(tmp_path / "mixed.npz", index="names")
    np.savez(tmp_path / "text.npz", x=np.eye(3), names=names.astype(str))
    assert data.load(tmp_path / "text.npz", index="names", valid=0, test=0).labels["train"].tolist() == [
        "a",
        "b",
        "c",
    ]


def test_levels_that_single_precision_does_not_tell_apart_are_refused():
    with pytest.raises(UsageError, match="levels=262145: single precision tells at most 262144"):
        data.of(np.arange(40).reshape(10, 2, 2), kind="image", levels=2**18 + 1)
