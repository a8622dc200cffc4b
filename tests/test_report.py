"""Pictures have the right pixels; the page of a run is whole, safe and says what is missing."""

import base64
import io
import math
import re
import subprocess
import sys
import wave
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ppl_vae.errors import DataError, UsageError
from ppl_vae.report import curves, html, image_grid, sound
from ppl_vae.report.page import KINDS

EVIL = '<script>alert("x")</script> & $\\frac{ \' "'
SUMMARY = {
    "title": "vae on digits",
    "program": "vae",
    "data": {"name": "digits", "splits": {"test": 500}},
    "numbers": {"elbo_nats": -21.34567891, "elbo_stderr": np.float32(0.125), "k": 100, "iw_nats": math.nan},
    "config": {"model": {"z_dim": 8, "hidden": (400, 200)}, "lr": 1e-4, "beta": None},
}
HISTORY = [
    {
        "step": 10,
        "split": "train",
        "loss": 100.0,
        "elbo_nats": -100.0,
        "rate_nats": 2.0,
        "distortion_nats": 98.0,
        "beta": 0.5,
        "lr": 1e-3,
    },
    {
        "step": 20,
        "split": "train",
        "loss": math.nan,
        "elbo_nats": -math.inf,
        "rate_nats": 3.0,
        "distortion_nats": 67.0,
        "beta": 1.0,
        "lr": 1e-6,
        "perplexity": 31.5,
    },
    {
        "step": 20,
        "split": "valid",
        "loss": 75.0,
        "elbo_nats": -75.25,
        "rate_nats": 4.0,
        "distortion_nats": 71.25,
    },
]


class Page(HTMLParser):
    """Parses a page, holds its tags balanced, and gathers what a reader meets."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, source):
        super().__init__()
        self.open, self.images, self.sounds, self.cells, self.attributes = [], [], [], {}, []
        self.words, self.row = "", None
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.attributes += [(tag, name, value) for name, value in attrs.items()]
        if tag == "img":
            self.images.append((self.decoded(attrs, "image/png"), attrs))
        if tag == "audio":
            self.sounds.append((self.decoded(attrs, "audio/wav"), attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        if self.open and self.open[-1] == "th":
            self.row = words
        elif self.open and self.open[-1] == "td":
            self.cells[self.row] = words
        if not self.open or self.open[-1] != "style":
            self.words += words

    @staticmethod
    def decoded(attrs, kind):
        head, content = attrs["src"].split(",", 1)
        assert head == f"data:{kind};base64"
        return base64.b64decode(content, validate=True)

    def pictures(self):
        return {attrs["alt"]: Image.open(io.BytesIO(png)) for png, attrs in self.images}


def rows(kind, number=None):
    rng = np.random.default_rng(0)
    number = number or (1 if kind == "sound" else 20)
    return {
        "image": lambda: rng.random((number, 1, 5, 4)),
        "vector": lambda: rng.normal(size=(number, 7)),
        "counts": lambda: rng.poisson(3.0, (number, 7)),
        "sound": lambda: np.sin(np.arange(1, number + 1)[:, None] * np.linspace(0, 60, 900)),
    }[kind]()


def test_a_grid_puts_images_in_reading_order():
    x = np.arange(7)[:, None, None, None] * np.ones((7, 1, 3, 2)) / 10
    image = image_grid(x, columns=3)
    assert image.mode == "L" and image.size == (3 * 3 - 1, 3 * 4 - 1)
    pixels = np.asarray(image)
    for index in range(7):
        top, left = index // 3 * 4, index % 3 * 3
        np.testing.assert_array_equal(pixels[top : top + 3, left : left + 2], round(index / 10 * 255))
    assert (pixels[3] == 128).all() and (pixels[8:, 3:] == 128).all()


def test_grids_of_colour_single_images_and_other_shapes():
    x = np.zeros((2, 3, 4, 4))
    x[1, 0] = 1
    image = image_grid(x)
    assert image.mode == "RGB" and image.size == (9, 4)
    assert image.getpixel((8, 0)) == (255, 0, 0) and image.getpixel((0, 0)) == (0, 0, 0)
    assert image_grid(np.ones((1, 28, 28))).size == (28, 28)
    assert image_grid(np.ones((5, 2, 2)), columns=1).size == (2, 14)
    assert image_grid(np.ones((2, 2, 2)), columns=50).size == (5, 2)
    assert image_grid(np.ones((1, 2, 2), dtype=bool)).getpixel((0, 0)) == 255
    assert np.asarray(image_grid([[[-3.0, 7.0]]])).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("x", "cause"),
    [
        (np.zeros((0, 1, 4, 4)), "no images"),
        (np.zeros((2, 2, 4, 4)), "1 or 3 channels"),
        (np.zeros((4, 4)), "shape"),
        (np.full((1, 2, 2), np.nan), "not finite"),
        (np.full((1, 2, 2), 255, np.uint8), "up to 255"),
        (np.zeros((2, 1, 0, 4)), "no images"),
    ],
)
def test_images_that_cannot_be_shown(x, cause):
    with pytest.raises(DataError, match=cause):
        image_grid(x)


def test_a_grid_has_columns():
    with pytest.raises(UsageError, match="0 columns"):
        image_grid(np.zeros((2, 4, 4)), columns=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_self_contained_and_holds_the_numbers(kind):
    x = rows(kind)
    source = html(SUMMARY, HISTORY, {"x": x}, {"x": x}, {"x": x * 0.9}, kind)
    page = Page(source)
    assert not re.search(r"https?:|<script|<link", source, re.IGNORECASE)
    assert all(value.startswith("data:") for _, name, value in page.attributes if name in ("src", "href"))
    assert ("html", "lang", "en") in page.attributes and ("meta", "name", "viewport") in page.attributes
    assert page.cells["elbo_nats"] == "-21.3457" and page.cells["elbo_stderr"] == "0.125"
    assert page.cells["k"] == "100" and page.cells["iw_nats"] == "nan (not finite)"
    assert page.cells["model.z_dim"] == "8" and page.cells["model.hidden"] == "400, 200"
    assert page.cells["lr"] == "0.0001" and page.cells["beta"] == "none"
    assert page.cells["splits.test"] == "500"
    assert "Not shown" not in page.words and "vae on digits" in page.words
    assert len(page.images) >= 8 and all(attrs["alt"] for _, attrs in page.images)
    for picture in page.pictures().values():
        picture.load()


def test_image_pages_have_the_grids_in_their_size():
    x = rows("image", 100)
    pictures = Page(html(SUMMARY, [], {"x": x}, {"x": x[:10]}, {"x": 1 - x[:10]}, "image")).pictures()
    np.testing.assert_array_equal(
        np.asarray(pictures["Grid of 64 samples, 8 in a row"]), np.asarray(image_grid(x[:64], 8))
    )
    np.testing.assert_array_equal(
        np.asarray(pictures["Grid of 10 originals, 4 in a row"]), np.asarray(image_grid(x[:10], 4))
    )
    np.testing.assert_array_equal(
        np.asarray(pictures["Grid of 10 reconstructions, 4 in a row"]), np.asarray(image_grid(1 - x[:10], 4))
    )


@pytest.mark.parametrize("dims", [1, 2, 3, 41])
def test_vectors_of_any_width(dims):
    data = np.random.default_rng(0).normal(size=(200, dims))
    page = Page(html(SUMMARY, [], data + 1, data, data, "vector"))
    word = {1: "histogram", 2: "scatter plot"}.get(dims, "5 to 95 %")
    assert word in page.words and "explained variance 1" in page.words
    (alt,) = (alt for alt in page.pictures() if "against samples" in alt)
    assert f"mean of samples {data.mean() + 1:.6g}" in alt


def test_counts_state_zeros_and_overdispersion():
    data = np.array([[0, 2], [4, 2], [0, 2], [4, 2]])
    page = Page(html(SUMMARY, [], data, data, np.full((4, 2), 2.0), "counts"))
    assert "zeros in data 0.25" in page.words
    assert "variance over mean (1 for Poisson): data 1; samples 1" in page.words
    assert "explained variance 0" in page.words
    for x in (np.zeros((3, 2)), np.full((1, 1), 5)):
        assert "Not shown" not in Page(html(SUMMARY, [], x, x, x, "counts")).words
    assert "counts are negative" in Page(html(SUMMARY, [], -data, data, None, "counts")).words


def test_sound_can_be_heard_and_is_never_clipped():
    x = 2 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)[None].repeat(2, 0)
    page = Page(html({**SUMMARY, "data": {"sample_rate": 8000}}, [], x, None, None, "sound"))
    assert len(page.sounds) == 2 and page.sounds[1][1]["aria-label"] == "sample 1"
    with wave.open(io.BytesIO(page.sounds[0][0])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, 1, 4000)
        played = np.frombuffer(file.readframes(4000), "<i2") / 32767
    np.testing.assert_allclose(played, x[0] / 2, atol=1e-4)
    assert "assumed" not in page.words
    assert "16000 samples a second are assumed" in Page(html({}, [], x[:, None], None, None, "sound")).words
    level = sound.spectrogram(x[0])
    assert level.max() == 0 and (level.argmax(0) == 1000 * 512 // 8000).all()
    for short in (1, 2, 5):
        assert np.isfinite(sound.spectrogram(np.ones(short))).all()
        assert "Not shown" not in Page(html({}, [], np.zeros((1, short)), None, None, "sound")).words


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_run_has_a_page_that_says_so(kind):
    page = Page(html({}, [], None, None, None, kind))
    for words in (
        "No training steps were recorded",
        "No samples were drawn",
        "No rows were reconstructed",
        "has not been evaluated",
        "No configuration was recorded",
    ):
        assert words in page.words
    assert not page.images


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_drawn_is_named_on_the_page(kind):
    x = rows(kind).astype(float)
    empty = Page(html(SUMMARY, [], {"x": x[:0]}, {"x": x}, {}, kind))
    assert empty.words.count("Not shown: ") == 1 and "No rows were reconstructed" in empty.words
    broken = Page(html(SUMMARY, [], {"x": x * np.nan}, {"x": x}, {"x": x * np.nan}, kind))
    assert "Not shown" in broken.words or kind == "vector"
    only = Page(html(SUMMARY, [], {"x": x}, None, {"x": x}, kind))
    assert "Not shown" not in only.words and only.images
    one = Page(html(SUMMARY, [], {"x": x[:1]}, {"x": x[:1]}, {"x": x[:1]}, kind))
    assert "Not shown" not in one.words


def test_all_text_from_outside_is_escaped():
    summary = {
        "title": EVIL,
        EVIL: EVIL,
        "data": {"name": EVIL},
        "numbers": {EVIL: 1.0, "more": {"a": EVIL}},
        "config": {"list": [EVIL, {"deep": EVIL}], EVIL: {EVIL: EVIL}},
    }
    history = [{"step": step, "split": EVIL, EVIL: 1.0 * step, "日": 2.0} for step in (1, 2)]
    source = html(summary, history, {EVIL: rows("image")}, None, None, "image")
    page = Page(source)
    assert "<script" not in source
    assert not any(tag == "script" or name.startswith("on") for tag, name, _ in page.attributes)
    assert page.cells["list"].count(EVIL) == 2 and page.cells["name"] == EVIL
    assert any(EVIL in alt for alt in page.pictures())


def test_curves_are_gathered_by_quantity_and_split():
    axis, found = curves.gather([*HISTORY, {"event": "saved"}, {"step": 30, "split": "train", "note": "a"}])
    assert axis == "step"
    at, values = found["elbo_nats"]["train"]
    assert at.tolist() == [10, 20] and values[0] == -100 and math.isnan(values[1])
    assert [array.tolist() for array in found["elbo_nats"]["valid"]] == [[20], [-75.25]]
    assert set(found) == {"loss", "elbo_nats", "rate_nats", "distortion_nats", "beta", "lr", "perplexity"}
    page = Page(html({}, HISTORY, None, None, None, "image"))
    assert "elbo_nats (last: train not finite; valid -75.25)" in page.words
    assert len(page.images) == 6, "the loss is drawn only where there is no bound"
    only_loss = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.5}]
    assert "loss (last: train 2.5)" in Page(html({}, only_loss, None, None, None, "image")).words
    assert curves.gather([{"loss": 1.0}, {"loss": 2.0}])[1]["loss"]["train"][0].tolist() == [0, 1]


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="kind of data 'video': choose one of image, vector, counts, sound"):
        html({}, [], kind="video")


def test_the_page_is_the_same_each_time_and_leaves_pyplot_alone():
    x = rows("vector")
    assert html(SUMMARY, HISTORY, x, x, x, "vector") == html(SUMMARY, HISTORY, x, x, x, "vector")
    code = """
import sys
from ppl_vae.report import html
html({}, [{"step": 1, "loss": 1.0}], [[1.0, 2.0]], None, None, "vector")
bad = {"torch", "jax", "pyro", "numpyro", "matplotlib.pyplot"} & set(sys.modules)
assert not bad, bad
"""
    subprocess.run([sys.executable, "-c", code], check=True)
