"""Networks that change arrays of their own: codebooks and statistics of batches, on both backends."""

from dataclasses import dataclass

import numpy as np
import pytest
from made import BACKENDS, made

from ppl_vae import Program, bind, data, evaluate, fit, load
from ppl_vae.errors import RunError
from ppl_vae.training import Rows

RNG = np.random.default_rng(0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def codebook(backend, **options):
    book = made(backend, lambda nn: nn.CodebookState(5, 3, decay=0.8, **options))
    w = book.weights()
    w["vectors"] = normal(5, 3)
    if "sums" in w:
        w |= {"placed": np.ones((), "f"), "counts": np.exp(normal(5)), "sums": normal(5, 3)}
    book.load(w)
    return book, w


def chosen(vectors, points):
    return np.array([np.argmin([((point - one) ** 2).sum() for one in vectors]) for point in points])


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_a_point_gets_its_nearest_code(backend, learning):
    book, w = codebook(backend, learning=learning)
    points = normal(4, 2, 6, 3)
    vectors, logits, index = book(points)
    np.testing.assert_array_equal(index, chosen(w["vectors"], points.reshape(-1, 3)).reshape(4, 2, 6))
    np.testing.assert_array_equal(vectors, w["vectors"])
    assert logits.shape == (5,)
    assert [part.shape for part in book()] == [(5, 3), (5,)]
    np.testing.assert_array_equal(book.weights()["vectors"], w["vectors"])


def test_moving_averages_follow_the_points_that_chose_a_code(backend):
    """arXiv:1711.00937, appendix A.1: N_k and m_k move by 1 - decay, e_k = m_k / N_k."""
    book, w = codebook(backend)
    for _ in range(3):
        points = normal(7, 4, 3)
        flat = points.reshape(-1, 3)
        index = chosen(w["vectors"], flat)
        vectors, _, found = book(points, training=True)
        np.testing.assert_array_equal(found.reshape(-1), index)
        np.testing.assert_array_equal(vectors, w["vectors"])  # those that were chosen from, not the new ones
        for k in range(5):
            own = flat[index == k]
            w["counts"][k] = 0.8 * w["counts"][k] + 0.2 * len(own)
            w["sums"][k] = 0.8 * w["sums"][k] + 0.2 * own.sum(0)
            w["vectors"][k] = w["sums"][k] / w["counts"][k]
        now = book.weights()
        for name in ("counts", "sums", "vectors"):
            np.testing.assert_allclose(now[name], w[name], **CLOSE, err_msg=name)
        w = now


def test_a_code_whose_use_falls_below_its_share_begins_anew_on_a_point_of_the_batch(backend):
    book, w = codebook(backend, revive=0.1)
    points = np.tile(w["vectors"][:1], (10, 1)) + 0.001 * normal(10, 3)  # all choose the first code
    used = np.array([10.0, 4.0, 0.6, 5.0, 0.2])
    book.load(w | {"counts": used.astype("f")})
    book(points, training=True)
    counts = 0.8 * used + [2, 0, 0, 0, 0]
    mean, dead = counts.mean(), counts < 0.1 * counts.mean()
    assert dead.tolist() == [False, False, False, False, True]
    now, at = book.weights(), points[[8]]  # five codes lie at even distances along ten points
    np.testing.assert_allclose(now["counts"], np.where(dead, mean, counts), **CLOSE)
    np.testing.assert_allclose(now["vectors"][dead], at, **CLOSE)
    np.testing.assert_allclose(now["sums"][dead], mean * at, **CLOSE)
    sums = 0.8 * w["sums"] + 0.2 * np.outer([1, 0, 0, 0, 0], points.sum(0))
    np.testing.assert_allclose(now["sums"][~dead], sums[~dead], **CLOSE)


def test_a_learned_code_that_is_hardly_used_begins_anew_by_an_offset(backend):
    book, w = codebook(backend, learning="gradient", revive=0.1)
    book.load(w | {"moved": normal(5, 3), "counts": np.array([10.0, 4.0, 0.6, 5.0, 0.2], "f")})
    w = book.weights()
    codes = w["vectors"] + w["moved"]
    points = np.tile(codes[:1], (10, 1)) + 0.001 * normal(10, 3)  # all choose the first code
    vectors, _, index = book(points, training=True)
    np.testing.assert_allclose(vectors, codes, **CLOSE)
    np.testing.assert_array_equal(index, np.zeros(10))
    now, dead = book.weights(), np.arange(5) == 4
    counts = 0.8 * w["counts"] + [2, 0, 0, 0, 0]
    np.testing.assert_allclose(now["counts"], np.where(dead, counts.mean(), counts), **CLOSE)
    np.testing.assert_array_equal(now["vectors"], w["vectors"])
    np.testing.assert_allclose((now["vectors"] + now["moved"])[dead], points[[8]], **CLOSE)
    np.testing.assert_array_equal(now["moved"][~dead], w["moved"][~dead])
    book(points, training=True, frozen=True)
    np.testing.assert_array_equal(book.weights()["counts"], now["counts"])


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_codes_that_a_blank_first_batch_placed_on_one_point_come_to_life(backend, learning):
    book = made(backend, lambda nn: nn.CodebookState(6, 2, learning, decay=0.8, revive=0.2))
    book(np.zeros((12, 2), "f"), training=True)
    for _ in range(40):
        book(normal(12, 2), training=True)
    used = np.bincount(book(normal(2000, 2))[2], minlength=6)
    assert used.min() > 20


def test_a_code_that_no_point_chose_for_long_stays_finite(backend):
    book, w = codebook(backend, revive=0.0)
    book.load(w | {"counts": np.full(5, 1e-30, "f"), "sums": np.full((5, 3), 1e-30, "f")})
    book(np.tile(w["vectors"][:1], (4, 1)), training=True)
    found = book.weights()["vectors"]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], w["vectors"][0], **CLOSE)  # its mean is over its own points


def test_the_first_batch_places_the_codes_on_points_at_even_distances(backend):
    book = made(backend, lambda nn: nn.CodebookState(3, 2))
    points = normal(4, 3, 2)
    vectors, _, index = book(points, training=True)
    flat = points.reshape(-1, 2)
    np.testing.assert_array_equal(vectors, flat[[0, 4, 8]])
    np.testing.assert_array_equal(index.reshape(-1), chosen(flat[[0, 4, 8]], flat))
    w = book.weights()
    assert w["placed"] == 1
    # From there they go on as if each had been chosen once.
    own = [flat[index.reshape(-1) == k] for k in range(3)]
    np.testing.assert_allclose(w["counts"], [0.99 + 0.01 * len(points) for points in own], **CLOSE)
    sums = [0.99 * code + 0.01 * points.sum(0) for code, points in zip(vectors, own, strict=True)]
    np.testing.assert_allclose(w["sums"], sums, **CLOSE)


@dataclass(frozen=True)
class CodesOnly(Program):
    """Points go to the codebook as they are."""

    def networks(self, nn):
        return {"book": nn.CodebookState(4, 3), "shift": nn.Parameter(3)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))
            ppl.sample("x", ppl.dist.Normal(z[..., None] + net.shift(), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(ppl.F.to_float(net.book(x).index), 1.0))


@dataclass(frozen=True)
class Learned(CodesOnly):
    """The same with codes that are parameters."""

    def networks(self, nn):
        return {"book": nn.CodebookState(4, 3, "gradient", decay=0.5), "shift": nn.Parameter(3)}

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            book = net.book(x)
            ppl.sample("z", ppl.dist.Normal(ppl.F.to_float(book.index), 1.0))
            ppl.factor("error", ppl.F.square(x - ppl.F.take(book.vectors, book.index)).sum(-1))


def test_a_code_that_begins_anew_goes_on_in_steps_of_the_optimizers_usual_size(backend):
    """Adam's step is at most lr (1 - b1) / sqrt(1 - b2), also where nothing moved for long before."""
    x = normal(40, 3) + 5  # the first code that is nearest gets all points
    seen = []

    def keep(event, state):
        if event == "log":
            w = state["run"].bound.weights()
            seen.append((w["book.vectors"], w["book.moved"], w["book.counts"]))

    fit(
        Learned(),
        data.of({"train": {"x": x}}, valid=0),
        backend=backend,
        callbacks=[keep],
        max_steps=30,
        batch_size=20,
        log_every=1,
        lr=0.01,
        keep="last",
    )
    vectors, moved, counts = map(np.array, zip(*seen, strict=True))
    began = (moved != 0).any((0, 2))
    assert began.sum() >= 2 and (counts[-1] > 0.01 * counts[-1].mean()).all()
    steps = np.abs(np.diff(vectors, axis=0))
    assert steps[:, began].max() > 0.001  # they learn
    assert steps.max() <= 0.01 * 0.1 / np.sqrt(0.001) * 1.01
    assert np.abs(vectors + moved)[-1].min() > 2  # all lie among the points, the first weights lie about 0


def test_weights_of_earlier_versions_lack_the_offsets_of_learned_codes(backend):
    bound = bind(Learned(), backend)
    weights = bound.weights()
    earlier = {name: value + 1 for name, value in weights.items()}
    del earlier["book.moved"], earlier["book.counts"]
    bound.load_weights(earlier)
    now = bound.weights()
    for name, value in weights.items():
        np.testing.assert_array_equal(now[name], earlier.get(name, value))
    with pytest.raises(RunError, match="weights"):
        bound.load_weights({name: value for name, value in earlier.items() if name != "book.vectors"})


@pytest.mark.slow
@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_no_code_stays_dead_after_a_blank_first_batch_of_digits(backend, learning):
    rows = data.load("digits").raw("train")["x"][:640].copy()
    rows[next(iter(Rows(len(rows), 32, 0).epoch(0, 0)))] = 0
    program = load("vqvae", codes=16, code_dim=4, hidden=8, learning=learning)
    given, options = data.of({"train": {"x": rows}}, valid=0), {"epochs": 60, "batch_size": 32}
    assert evaluate(fit(program, given, backend=backend, **options), "train")["usage"] == 1


def test_a_codebook_stays_in_single_precision_where_networks_do_not(backend):
    rows = data.of({"train": {"x": normal(30, 3)}}, valid=0)
    options = {"backend": backend, "max_steps": 4, "batch_size": 15, "keep": "last"}
    half, single = (
        fit(CodesOnly(), rows, precision=precision, **options).bound.weights()
        for precision in ("bf16-mixed", "32")
    )
    for name in ("vectors", "sums", "counts"):
        np.testing.assert_array_equal(half[f"book.{name}"], single[f"book.{name}"])


@pytest.mark.parametrize(
    "mode", [{"training": False}, {"training": True, "frozen": True}], ids=["eval", "model"]
)
def test_without_learning_nothing_moves(backend, mode):
    for declare, x in (
        (lambda nn: nn.CodebookState(3, 2), normal(4, 3, 2)),
        (lambda nn: nn.BatchNorm(2), normal(4, 3, 2)),
    ):
        network = made(backend, declare)
        before = network.weights()
        network(x, **mode)
        for name, value in network.weights().items():
            np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(("spatial", "axes"), [(0, (0, 1)), (2, (0, 2, 3))])
def test_batch_norm(backend, spatial, axes):
    network = made(backend, lambda nn: nn.BatchNorm(3, spatial, momentum=0.3))
    w = network.weights()
    # Of variances as small as epsilon (1e-5), so that it counts.
    x = 3e-3 * normal(*((4, 5, 3) if spatial == 0 else (4, 3, 5, 6))) + 0.1
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    shape = mean.shape

    def expected(mean, var):
        return (x - mean) / np.sqrt(var + 1e-5) * w["weight"].reshape(shape) + w["bias"].reshape(shape)

    np.testing.assert_allclose(network(x, training=True)[0], expected(mean, var), rtol=1e-4, atol=1e-4)
    running = {"mean": 0.3 * mean.reshape(3), "var": 0.7 + 0.3 * var.reshape(3)}
    for name, value in running.items():
        np.testing.assert_allclose(network.weights()[name], value, **CLOSE)
    running = {name: value.reshape(shape) for name, value in running.items()}
    np.testing.assert_allclose(network(x)[0], expected(**running), rtol=1e-4, atol=1e-4)


def normalized(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def test_layer_norm(backend):
    network = made(backend, lambda nn: nn.LayerNorm(6))
    w, x = network.weights(), 3e-3 * normal(2, 4, 6)
    np.testing.assert_allclose(
        network(x)[0], normalized(x, -1) * w["weight"] + w["bias"], rtol=1e-4, atol=1e-5
    )


def test_group_norm(backend):
    network = made(backend, lambda nn: nn.GroupNorm(2, 6))
    w, x = network.weights(), 3e-3 * normal(2, 3, 6, 4, 5)
    whole = normalized(x.reshape(2, 3, 2, 3, 4, 5), (-3, -2, -1)).reshape(x.shape)
    expected = whole * w["weight"][:, None, None] + w["bias"][:, None, None]
    np.testing.assert_allclose(network(x)[0], expected, rtol=1e-4, atol=1e-5)
