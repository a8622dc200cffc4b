"""Pictures have the right pixels; the page of a run is whole, safe and never wider than the screen."""

import base64
import functools
import html as entities
import io
import json
import math
import re
import shutil
import subprocess
import sys
import time
import wave
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ppl_vae.errors import DataError, UsageError
from ppl_vae.report import (
    Comparison,
    Contents,
    Finding,
    Labels,
    Row,
    curves,
    html,
    image_grid,
    latents,
    sound,
)
from ppl_vae.report.page import KINDS

EVIL = '<script>alert("x")</script> & $\\frac{ \' "'
LONG = "W" * 400
COMPARED = Comparison(-27.5, 6.25, 0.125, 180, 1437, 64, "Bernoulli")
FOUND = Finding("vae", "test", 180, -21.25, 0.25, 100, 0.479, COMPARED)
DETAILS = {
    "All results": {"evaluation-test-k100": {"elbo_nats": -21.34567891, "iw_nats": math.nan}},
    "Configuration": {"model": {"z_dim": 8, "hidden": (400, 200)}, "lr": 1e-4, "beta": None},
}
HISTORY = [
    {
        "step": step,
        "split": split,
        "loss": -bound,
        "elbo_nats": bound,
        "rate_nats": 2.0 + step,
        "beta": 1.0,
        "lr": 1e-3 / step,
        "perplexity": 31.5,
    }
    for step, split, bound in (
        (10, "train", -100.0),
        (20, "train", -math.inf),
        (30, "train", -80.0),
        (30, "valid", -75.25),
    )
]


class Page(HTMLParser):
    """Parses a page, holds its tags balanced, and gathers what a reader meets."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, source):
        super().__init__()
        self.open, self.images, self.drawings, self.sounds = [], [], [], []
        self.cells, self.attributes, self.headings, self.lead = {}, [], [], ""
        self.words, self.row, self.kind = "", None, None
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.attributes += [(tag, name, value) for name, value in attrs.items()]
        if tag == "img":
            self.images.append((self.decoded(attrs, "image/png"), attrs))
        if tag == "svg":
            self.drawings.append(attrs)
        if tag == "audio":
            self.sounds.append((self.decoded(attrs, "audio/wav"), attrs))
        if tag not in self.VOID:
            self.open.append(tag)
        self.kind = attrs.get("class")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        last = self.open[-1] if self.open else None
        if last == "th":
            self.row = words
        elif last == "td":
            self.cells[self.row] = words
        elif last in ("h2", "summary"):
            self.headings.append(words)
        elif last == "p" and self.kind == "lead":
            self.lead += words
        if last != "style":
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
    number = number or (3 if kind == "sound" else 20)
    return {
        "image": lambda: rng.random((number, 1, 5, 4)),
        "vector": lambda: rng.normal(size=(number, 7)),
        "counts": lambda: rng.poisson(3.0, (number, 7)),
        "sound": lambda: np.sin(np.arange(1, number + 1)[:, None] * np.linspace(0, 60, 900)),
    }[kind]()


def full(kind, name="group", number=None):
    """Return a page of everything."""
    x = rows(kind, number)
    made = x * 0.9
    labels = Labels(name, np.arange(len(x)) % 3, [f"{name} {i}" for i in range(3)])
    worst = [Row(i, -50.0 - i, f"{name}-{i}", f"{name} 0", x[i], made[i]) for i in (2, 0)]
    return Contents(
        title=f"vae on {name}",
        kind=kind,
        finding=FOUND,
        samples=x,
        originals=x,
        reconstructions=made,
        columns=[f"{name} {i}" for i in range(7)],
        latents={
            "z": np.random.default_rng(1).normal(size=(len(x), 5)),
            "z_codes": np.arange(len(x))[:, None] % 4,
        },
        labels=labels,
        worst=worst,
        judged=len(x),
        history=HISTORY,
        details=DETAILS,
    )


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


@functools.cache
def page_of(kind):
    """Return the page of everything, drawn once."""
    return html(full(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_self_contained_and_goes_from_the_finding_to_the_configuration(kind):
    source = page_of(kind)
    page = Page(source)
    assert page.headings == [
        "Samples",
        "Rows and their reconstructions",
        "Where the latents lie",
        "The rows that the run finds least likely",
        "Training",
        "All results",
        "Configuration",
    ]
    assert not re.search(r"https?:|<script|<link|url\((?!#)|@import", source, re.IGNORECASE)
    outer = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert outer and all(value.startswith(("data:", "#")) for value in outer)
    assert ("html", "lang", "en") in page.attributes and ("meta", "name", "viewport") in page.attributes
    assert page.cells["evaluation-test-k100.elbo_nats"] == "-21.3457"
    assert page.cells["evaluation-test-k100.iw_nats"] == "nan (not finite)"
    assert page.cells["model.z_dim"] == "8" and page.cells["model.hidden"] == "400, 200"
    assert page.cells["lr"] == "0.0001" and page.cells["beta"] == "none"
    assert "Not shown" not in page.words and "vae on group" in page.words
    assert all(attrs["alt"] for _, attrs in page.images) and all(one["aria-label"] for one in page.drawings)
    assert all(one["role"] == "img" and "width" not in one for one in page.drawings)
    for picture in page.pictures().values():
        picture.load()


def test_the_finding_is_one_sentence_with_its_error_and_what_it_is_compared_to():
    page = Page(html(Contents(finding=FOUND)))
    assert page.lead == (
        "The importance weighted bound (k = 100) of vae, a lower bound on log p(x), is −21.25 ± 0.25 nats "
        "per row (0.479 bits per dimension), over 180 test rows, which training never saw: 6.25 ± 0.12 nats "
        "better than independent columns without latents, which give −27.50."
    )
    assert "Bernoulli, fitted in closed form to 1,437 training rows and scored on the same rows" in page.words


@pytest.mark.parametrize(
    ("changes", "compared", "words"),
    [
        ({}, {"better": -6.25}, "6.25 ± 0.12 nats worse than"),
        ({}, {"better": -0.2}, "no clear difference (−0.20 ± 0.12 nats) from"),
        ({}, {"better": 3.0, "stderr": None}, ": 3.00 nats better than"),
        ({"k": None}, {}, "The ELBO of vae"),
        ({"split": "train", "n": 12}, {}, "over 12 training rows, which the run has seen"),
        ({"n": 1, "stderr": None}, {}, "−21.25 nats per row (0.479 bits per dimension), over 1 test row"),
        ({"nats": -12345.6, "stderr": 123.0}, {}, "−12,346 ± 123 nats"),
        ({"nats": -math.inf, "stderr": math.nan}, {}, "-inf (not finite) nats"),
        ({"bits_per_dim": None}, {}, "± 0.25 nats per row, over 180"),
    ],
)
def test_what_the_sentence_says(changes, compared, words):
    found = replace(FOUND, comparison=replace(COMPARED, **compared), **changes)
    assert words in Page(html(Contents(finding=found))).lead


def test_a_bound_without_a_comparison_says_why():
    page = Page(html(Contents(finding=replace(FOUND, comparison="the rows are not at hand"))))
    assert page.lead.endswith("which training never saw.")
    assert "There is nothing to compare with: the rows are not at hand." in page.words
    part = replace(FOUND, comparison=replace(COMPARED, n=50))
    assert "over the first 50 of the rows" in Page(html(Contents(finding=part))).words


def test_image_pages_have_the_grids_in_their_size():
    x = rows("image", 100)
    about = Contents(samples=x, originals=x[:10], reconstructions=1 - x[:10])
    pictures = Page(html(about)).pictures()
    np.testing.assert_array_equal(
        np.asarray(pictures["Grid of 64 samples, 8 in a row"]), np.asarray(image_grid(x[:64], 8))
    )
    pairs = np.asarray(pictures["Grid of 10 originals, each above its reconstruction, 8 in a row"])
    top, below = (np.asarray(image_grid(part, 8)) for part in (x[:10], 1 - x[:10]))
    np.testing.assert_array_equal(pairs[:5], top[:5])
    np.testing.assert_array_equal(pairs[6:11], below[:5])
    np.testing.assert_array_equal(pairs[14:19], top[6:11])
    assert len(pairs) == 25 and (pairs[5] == 128).all()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((3, 4, 6, 6), 0.5), "without their alpha channel"),
        (np.full((3, 2, 6, 6), 0.5), "the mean of 2 channels"),
        (np.linspace(-2, 6, 108).reshape(3, 1, 6, 6), "-2 is black and 6 white"),
        (np.full((2, 1, 300, 200), 0.5), "one pixel in 3 along each side"),
        (np.where(np.arange(36) % 2, np.nan, 0.5).reshape(1, 1, 6, 6), "1 sample."),
    ],
)
def test_images_of_other_kinds_are_shown_and_say_how(x, words):
    page = Page(html(Contents(samples=np.nan_to_num(x), originals=x, reconstructions=np.nan_to_num(x))))
    assert words in page.words and "Not shown" not in page.words


@pytest.mark.parametrize("dims", [1, 2, 3, 41, 700])
def test_vectors_of_any_width(dims):
    data = np.random.default_rng(0).normal(size=(200, dims))
    about = Contents(kind="vector", samples=data + 1, originals=data, reconstructions=data)
    page = Page(html(about))
    word = {1: "Histogram", 2: "Scatter plot"}.get(dims, "5 to 95 %")
    assert word in page.words and "explained variance 1" in page.words
    (alt,) = (one["aria-label"] for one in page.drawings if "against samples" in one["aria-label"])
    if dims < 300:
        assert f"mean of samples {data.mean() + 1:.6g}" in alt
    assert (page.words.count("Sample ") == 8) == (dims > 2)


def test_sequences_are_lines_over_their_steps():
    data = np.random.default_rng(0).normal(size=(30, 7, 5))
    gaps = np.where(np.arange(7)[:, None] < 4, data, np.nan)
    page = html(Contents(kind="vector", samples=data, originals=gaps, reconstructions=data))
    assert "explained variance 1" in page and "Not shown" not in page
    assert "channels 0, 2, 4 of 5" in page and "range of channel 2 at each step" in page
    drawn = re.findall(r'aria-label="Row 0 and its reconstruction,.*?</svg>', page)
    lengths = [[len(line.split()) for line in re.findall('polyline points="([^"]*)"', one)] for one in drawn]
    assert lengths == [[4, 7]] * 3, "a picture a channel; a line ends where a sequence does"
    first = re.findall(r"cy=\"([\d.]+)\"[^>]*orange", drawn[1])
    assert np.corrcoef([float(y) for y in first], data[0, :, 2])[0, 1] == pytest.approx(-1, abs=1e-3)


def test_masked_numbers_are_gaps():
    data = np.random.default_rng(0).normal(size=(50, 6))
    gaps = np.where(np.random.default_rng(1).random(data.shape) < 0.3, np.nan, data)
    gaps[:, 5] = np.nan
    gaps[0] = np.where(np.arange(6) % 3 == 2, np.nan, data[0])
    page = html(Contents(kind="vector", samples=data, originals=gaps, reconstructions=data))
    assert "explained variance 1" in page and "Not shown" not in page
    first = re.search(r'aria-label="Row 0 and its reconstruction".*?</svg>', page)[0]
    original = re.findall(r'<polyline points="([^"]*)"[^>]*blue', first)
    assert [len(part.split()) for part in original] == [2, 2], "a line ends at what is masked"
    counts = np.where(np.isnan(gaps), np.nan, np.abs(np.round(gaps)))
    about = Contents(
        kind="counts", samples=rows("counts", 50), originals=counts, reconstructions=np.abs(data)
    )
    assert "Not shown" not in html(about)


def test_counts_state_zeros_and_overdispersion():
    data = np.array([[0, 2], [4, 2], [0, 2], [4, 2]])
    about = Contents(kind="counts", samples=data, originals=data, reconstructions=np.full((4, 2), 2.0))
    page = Page(html(about))
    assert "zeros in data 0.25" in page.words
    assert "Variance over mean (1 for Poisson, the grey line): data 1; samples 1" in page.words
    assert "explained variance 0" in page.words
    for x in (np.zeros((3, 2)), np.full((1, 1), 5)):
        assert "Not shown" not in html(Contents(kind="counts", samples=x, originals=x, reconstructions=x))
    assert "counts are negative" in html(Contents(kind="counts", samples=-data, originals=data))


def test_sound_can_be_heard_and_is_never_clipped():
    x = 2 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 16000)[None].repeat(2, 0)
    page = Page(html(Contents(kind="sound", samples=x)))
    assert len(page.sounds) == 2 and page.sounds[1][1]["aria-label"] == "Sample 1"
    with wave.open(io.BytesIO(page.sounds[0][0])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16000, 1, 4000)
        played = np.frombuffer(file.readframes(4000), "<i2") / 32767
    np.testing.assert_allclose(played, x[0] / 2, atol=1e-4)
    assert "16,000 samples a second are assumed" in page.words
    level = sound.spectrogram(x[0])
    assert level.max() == 0 and (level.argmax(0) == 1000 * 512 // 16000).all()
    for short in (1, 2, 5):
        assert np.isfinite(sound.spectrogram(np.ones(short))).all()
        assert "Not shown" not in html(Contents(kind="sound", samples=np.zeros((1, short))))


def test_latents_are_shown_as_they_are_or_by_their_principal_components():
    at = np.random.default_rng(0).normal(size=(30, 2)) * [5, 1]
    found, names = latents.flat_map(at)
    np.testing.assert_array_equal(found, at)
    assert names == ["latent 0", "latent 1"]
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    found, names = latents.flat_map((at - at.mean(0)) @ turn[:2])
    spread = np.linalg.svd(at - at.mean(0), compute_uv=False)
    np.testing.assert_allclose(np.square(found).sum(0), spread**2)
    assert names[0] == f"component 1 ({spread[0] ** 2 / (spread**2).sum():.0%} of the variance)"


@pytest.mark.parametrize("shape", [(40, 1), (40, 2), (40, 3, 4), (3, 5), (1, 2), (2, 9), (40, 3)])
def test_a_map_names_its_classes(shape):
    labels = Labels("species", np.arange(shape[0]) % 3, ["setosa", "virginica", LONG])
    z = np.random.default_rng(0).normal(size=shape)
    page = Page(html(Contents(latents={"z": z}, labels=labels)))
    assert ("setosa" in page.words) and "by species" in page.words
    assert LONG not in page.words
    plain = Page(html(Contents(latents={f"z{i}": z for i in range(6)})))
    assert len(plain.drawings) == 4 and "2 more latent sites are not shown" in plain.words
    assert "species" not in plain.words


def test_of_a_thousand_classes_the_largest_are_named():
    values = np.r_[np.arange(1000), np.full(30, 7), np.full(20, 900)]
    groups = latents.grouped(Labels("y", values), len(values))
    assert len(groups) == 13 and list(groups)[-1] == "988 other classes"
    assert len(groups["7"][1]) == 31 and len(groups["900"][1]) == 21
    assert len({colour for colour, _ in groups.values()}) == 13
    assert sum(len(rows) for _, rows in groups.values()) == len(values)
    same = latents.grouped(Labels("y", np.array([0, 1]), ["a", "a"]), 2)
    assert list(same) == ["a", "a (1)"]


def test_the_worst_rows_have_their_numbers_names_and_bounds():
    page = Page(page_of("vector"))
    assert "The lowest bounds of 20 rows" in page.words
    assert "Row 2, group-2, group 0: −52.00 nats" in page.words
    for wide in (1, 2):
        row = Row(3, -math.inf, original=np.arange(wide), reconstruction=np.ones(wide))
        bare = Page(html(Contents(kind="vector", worst=[row], judged=9)))
        assert "Row 3: -inf nats" in bare.words and "original 0" in bare.words


def test_only_curves_that_move_are_shown():
    axis, found = curves.gather([*HISTORY, {"event": "saved"}, {"step": 30, "split": "train", "note": "a"}])
    assert axis == "step"
    at, values = found["elbo_nats"]["train"]
    assert at.tolist() == [10, 20, 30] and values[0] == -100 and math.isnan(values[1])
    assert [array.tolist() for array in found["elbo_nats"]["valid"]] == [[30], [-75.25]]
    assert curves.moving(found) == ["elbo_nats", "rate_nats", "lr"]
    page = Page(html(Contents(history=HISTORY)))
    assert "bound, nats per row (last: train -80; valid -75.25)" in page.words
    assert len(page.drawings) == 3
    only_loss = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.5}]
    assert "loss (last: train 2.5)" in html(Contents(history=only_loss))
    assert curves.gather([{"loss": 1.0}, {"loss": 2.0}])[1]["loss"]["train"][0].tolist() == [0, 1]
    assert Page(html(Contents(history=HISTORY[:1]))).headings == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_without_anything_has_a_page(kind):
    page = Page(html(Contents(kind=kind, missing=["the run has no data"])))
    assert page.lead == "No bound on validation or test rows was recorded for this run."
    assert page.headings == [] and not page.images and "Not shown: the run has no data." in page.words


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_drawn_is_named_on_the_page(kind):
    x = rows(kind).astype(float)
    assert html(Contents(kind=kind, samples=x[:0])).count("Not shown: ") == 1
    infinite = html(
        Contents(kind=kind, samples=np.full(x.shape, np.inf), originals=x, reconstructions=x * np.nan)
    )
    assert "Not shown" in infinite or kind == "vector"
    one = html(Contents(kind=kind, samples=x[:1], originals=x[:1], reconstructions=x[:1]))
    assert "Not shown" not in one


@pytest.mark.parametrize("kind", KINDS)
def test_all_text_from_outside_is_escaped(kind):
    about = replace(
        full(kind, EVIL, 3),
        finding=replace(FOUND, program=EVIL, split=EVIL, comparison=EVIL),
        latents={EVIL: rows("vector", 3), f"{EVIL}_codes": np.arange(3)},
        history=[{"step": step, "split": EVIL, EVIL: 1.0 * step} for step in (1, 2)],
        details={EVIL: {EVIL: EVIL, "list": [EVIL, {"deep": EVIL}], "日": {EVIL: EVIL}}},
        missing=[EVIL],
    )
    source = html(about)
    page = Page(source)
    assert "<script" not in source
    assert not any(tag == "script" or name.startswith("on") for tag, name, _ in page.attributes)
    assert page.cells["list"].count(EVIL) == 2 and page.cells[EVIL] == EVIL
    assert entities.escape(EVIL) in source


def test_a_million_columns_take_seconds():
    x = np.random.default_rng(0).normal(size=(4, 1_000_000)).astype(np.float32)
    about = Contents(
        kind="vector",
        samples=x,
        originals=x,
        reconstructions=x,
        columns=[f"column {i}" for i in range(x.shape[1])],
        worst=[Row(0, -1.0, original=x[0], reconstruction=x[1])],
        judged=4,
        details={"Data": {"columns": list(range(1_000_000))}},
    )
    started = time.process_time()
    source = html(about)
    assert time.process_time() - started < 5 and len(source) < 2**20
    assert "(1,000,000 in all)" in source


def test_nothing_can_be_wider_than_the_screen():
    style = page_of("vector").split("<style>")[1].split("</style>")[0]
    assert "overflow-x: auto" not in style and "white-space: nowrap" not in style
    assert "overflow-wrap: anywhere" in style and "table-layout: fixed" in style
    assert re.search(r"img, svg, audio {[^}]*max-width: 100%", style)
    assert all("min(100%" in found for found in re.findall(r"grid-template-columns: ([^;]*);", style))
    assert not re.search(r"[^-]\bwidth: (?!100%|40%|0\.7em)", style)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_chromium_scrolls_nothing_sideways(tmp_path):
    pages = [html(full(kind, LONG)).replace("<details>", "<details open>") for kind in KINDS]
    frames = "".join(
        f'<iframe style="width: {width}px; height: 800px" srcdoc="{entities.escape(page)}"></iframe>'
        for page in pages
        for width in (320, 390, 800, 1280)
    )
    measure = """<script>onload = () => { document.body.innerHTML = "<pre>" + JSON.stringify(
        [...document.querySelectorAll("iframe")].map(f => { const d = f.contentDocument.documentElement;
        return [d.scrollWidth, d.clientWidth]; })) + "</pre>"; };</script>"""
    (tmp_path / "outer.html").write_text(f"<!doctype html>{measure}<body>{frames}", encoding="utf-8")
    words = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [*words, "--virtual-time-budget=10000", "--dump-dom", (tmp_path / "outer.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    sizes = json.loads(re.search(r"<pre>(.*?)</pre>", done.stdout)[1])
    assert len(sizes) == 4 * len(KINDS) and all(wide == screen for wide, screen in sizes), sizes


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="kind of data 'video': choose one of image, vector, counts, sound"):
        html(Contents(kind="video"))


def test_the_page_is_the_same_each_time_and_leaves_pyplot_alone():
    assert html(full("vector")) == page_of("vector")
    code = """
import sys
from ppl_vae.report import Contents, html
history = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]
html(Contents(history=history, samples=[[1.0, 2.0]], kind="vector"))
bad = {"torch", "jax", "pyro", "numpyro", "matplotlib.pyplot"} & set(sys.modules)
assert not bad, bad
"""
    subprocess.run([sys.executable, "-c", code], check=True)
