"""Square: against its NumPy twin and the authors' code, by hand, and on real images."""

import dataclasses
import functools
import importlib
import json

import keras
import numpy as np
import oracles
import oracles_square
import pytest
import tensorflow as tf
import twins
from sklearn.linear_model import LogisticRegression

from experiments import datasets
from pineat_tf.attacks import apgd, square

module = importlib.import_module("pineat_tf.attacks.square")

NUM_CLASSES, SHAPE = twins.NUM_CLASSES, (10, 10, 3)
NUM_QUERIES = 40
EPSILONS = {"linf": 0.05, "l2": 0.7}


oracle, logits_fn, batch = twins.fixtures(16, SHAPE, gain=0.25, offset=0.0)


@pytest.fixture
def drawn(monkeypatch):
    """The limits and the numbers of every draw, in turn, as long as nothing is compiled."""
    draws, draw = [], module._draw

    def recording(place, seed, limits):
        numbers = draw(place, seed, limits)
        draws.append(([int(limit) for limit in limits], numbers.numpy()))
        return numbers

    monkeypatch.setattr(module, "_draw", recording)
    return draws


def changed(x_adv, x):
    return np.abs(x_adv - x).max(axis=(1, 2, 3)) > 0


# ---------------------------------------------------------------- against the twin


@pytest.mark.parametrize(
    "norm, loss, bounds, num_restarts",
    [("linf", "margin", (0.0, 1.0), 1), ("linf", "cross_entropy", None, 2)]
    + [("l2", "cross_entropy", (0.0, 1.0), 2), ("l2", "margin", None, 1)],
)
def test_the_attack_equals_its_numpy_twin(norm, loss, bounds, num_restarts, oracle, logits_fn, batch, drawn):
    (x, y), epsilon = batch, EPSILONS[norm]
    attack = square(
        epsilon=epsilon, num_queries=NUM_QUERIES, norm=norm, loss=loss, num_restarts=num_restarts, bounds=bounds
    )
    x_adv = attack(logits_fn, x, y, seed=1).numpy()
    coming = iter(drawn)

    def draw(limits):
        given, numbers = next(coming)
        assert given == limits
        return numbers

    settings = (epsilon, NUM_QUERIES, norm, loss, 0.8, num_restarts, bounds)
    expected, searches = oracles_square.square(oracle, x, y, draw, *settings)
    np.testing.assert_allclose(x_adv, expected, atol=1e-9)
    assert next(coming, None) is None  # both end at the same query
    assert (changed(x_adv, x) == (np.argmax(oracle.logits(x_adv), axis=1) != y)).all()  # fooled, or as it was
    # The images take different ways: some are fooled, others not, after different numbers of better points.
    assert 4 <= changed(x_adv, x).sum() <= 14
    assert len({len(search.losses) for search in searches}) >= 3


@pytest.mark.parametrize("norm, jit_compile", [("linf", False), ("l2", False), ("l2", True)])
def test_one_graph_gives_the_same_as_eager_execution(norm, jit_compile, logits_fn, batch):
    x, y = map(tf.constant, batch)
    attack = square(epsilon=EPSILONS[norm], num_queries=15, norm=norm, num_restarts=2)
    graph = tf.function(lambda x, y: attack(logits_fn, x, y, seed=3), autograph=False, jit_compile=jit_compile)
    np.testing.assert_allclose(graph(x, y), attack(logits_fn, x, y, seed=3), atol=1e-9)


# ---------------------------------------------------------------- against the authors' code


def as_torch_draws(limits, numbers, channels_first):
    """What `torch.rand` has to give so that the authors' code draws these numbers for one image."""
    uniform = (numbers + 0.5) / np.array(limits)
    return uniform.reshape(-1, SHAPE[2]).T.ravel() if channels_first else uniform


def take(numbers, torch, shape):
    return torch.tensor([next(numbers) for _ in range(np.prod(shape))]).reshape(shape)


@pytest.mark.parametrize("loss, theirs", [("margin", "margin"), ("cross_entropy", "ce")])
@pytest.mark.parametrize("norm, name", [("linf", "Linf"), ("l2", "L2")])
def test_it_equals_the_authors_code(norm, name, loss, theirs, logits_fn, oracle, batch, drawn, torch_in_float64):
    torch, authors, (x, y) = torch_in_float64, pytest.importorskip("pyautoattack.square"), batch
    attack = square(epsilon=EPSILONS[norm], num_queries=NUM_QUERIES, norm=norm, loss=loss)
    x_adv = attack(logits_fn, x, y, seed=2).numpy()

    def twin(images):
        return torch.from_numpy(oracle.logits(images.permute(0, 2, 3, 1).numpy()))

    other = authors.SquareAttack(twin, name, NUM_QUERIES, EPSILONS[norm], loss=theirs, device="cpu")
    for i, image in enumerate(x):
        rows = [
            as_torch_draws(limits, numbers[i], norm == "linf" and not q) for q, (limits, numbers) in enumerate(drawn)
        ]
        coming = iter(np.concatenate(rows))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", functools.partial(take, coming, torch))
            images = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
            other.init_hyperparam(images)
            _, found = other.attack_single_run(images, torch.from_numpy(y[i : i + 1]))
        found = found.permute(0, 2, 3, 1).numpy()
        is_wrong = np.argmax(oracle.logits(found)) != y[i]
        np.testing.assert_allclose(x_adv[i], found[0] if is_wrong else image, atol=1e-9)


@pytest.fixture
def torch_in_float64():
    """PyTorch, whose new tensors are float64, as the authors' code makes some."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def digits():
    """A linear network that has learnt scikit-learn's digits, as an oracle and in TensorFlow, and 300 test images."""
    data = datasets.load("digits")
    fit = LogisticRegression(max_iter=300, C=0.1).fit(data.train.images.reshape(-1, 64), data.train.labels)
    model = oracles.LinearModel(fit.coef_.T, fit.intercept_)
    weights, bias = (tf.constant(each, tf.float32) for each in (model.weights, model.bias))
    x, y = data.test.images[:300], data.test.labels[:300].astype(np.int64)
    return model, lambda images: tf.reshape(images, [-1, 64]) @ weights + bias, x, y


def robust_accuracy(attack, logits_fn, x, y):
    x_adv = tf.function(lambda: attack(logits_fn, x, y), autograph=False)()
    return np.mean(np.argmax(logits_fn(x_adv), axis=1) == y)


@pytest.mark.parametrize("norm, name, epsilon", [("linf", "Linf", 0.12), ("l2", "L2", 0.8)])
def test_as_many_images_fall_as_by_the_authors_code(norm, name, epsilon, digits):
    torch, authors = pytest.importorskip("torch"), pytest.importorskip("pyautoattack.square")
    model, logits_fn, x, y = digits

    def twin(images):
        return torch.from_numpy(model.logits(images.numpy()).astype(np.float32))

    other = authors.SquareAttack(twin, norm=name, n_queries=200, eps=epsilon, device="cpu")
    theirs = other.perturb(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y))
    expected = np.mean(np.argmax(model.logits(theirs.numpy()), axis=1) == y)
    accuracy = robust_accuracy(square(epsilon=epsilon, num_queries=200, norm=norm), logits_fn, x, y)
    assert 0.2 < expected < 0.8
    # Over five seeds either lies within 0.06 of the other: the squares differ, so the images on the edge do.
    assert abs(accuracy - expected) <= 0.07


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("norm", EPSILONS)
def test_one_pixel_by_hand(norm):
    # Logits (v, -v): class 0 is lost below v = 0. On one pixel the L-inf search has x - 0.1 and x + 0.1 only, the L2
    # search x itself as well, where the pyramid cancels the noise. Both end at x - 0.1 where that is misclassified,
    # class 1 at x + 0.1; images from which the edge is further away than 0.1 come back as they were.
    def logits_fn(x):
        return tf.concat([x[:, 0, 0], -x[:, 0, 0]], axis=1)

    x, y = np.float32([0.05, 0.3, -0.3, -0.05]).reshape(4, 1, 1, 1), np.array([0, 0, 1, 1])
    attack = square(epsilon=0.1, num_queries=20, norm=norm, bounds=None)
    for seed in range(3):
        x_adv = np.ravel(attack(logits_fn, x, y, seed=seed))
        np.testing.assert_allclose(x_adv, [-0.05, 0.3, -0.3, 0.05], atol=1e-6)


def test_the_squares_shrink_as_in_the_authors_schedule():
    shares = square(epsilon=0.1, num_queries=10_000).shares()
    ends = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    np.testing.assert_allclose(shares[ends], 0.8 / 2 ** np.arange(9))
    begins = [0, *[end + 1 for end in ends]]
    np.testing.assert_allclose(shares[begins], 0.8 / 2 ** np.arange(10))
    halved = square(epsilon=0.1, num_queries=5000, share=0.4)
    np.testing.assert_allclose(
        halved.shares()[[0, 5, 6, 25, 26, 100, 101, 4999]], 0.4 / 2.0 ** np.array([0, 0, 1, 1, 2, 2, 3, 9])
    )
    # 32 x 32 pixels: sqrt(0.8 * 1024) = 28.6, then a factor of sqrt(2) each.
    sides = square(epsilon=0.1, num_queries=10_000).sides(32, 32)
    assert sides[begins].tolist() == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    sides = square(epsilon=0.1, num_queries=10_000, norm="l2").sides(32, 32)  # odd, at least 3
    assert sides[begins].tolist() == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    assert square(epsilon=0.1, norm="l2").sides(4, 9).max() == 4  # no larger than the image


@pytest.mark.parametrize("num_queries", [1, 7, 100, 777, 5000])
def test_the_schedule_equals_the_authors_code(num_queries):
    authors = pytest.importorskip("pyautoattack.square")
    other = authors.SquareAttack(None, n_queries=num_queries, p_init=0.8)
    expected = [other.p_selection(query) for query in range(num_queries)]
    np.testing.assert_array_equal(square(epsilon=0.1, num_queries=num_queries).shares(), expected)


def test_pyramids_by_hand():
    # Side 3: one row of steps 1/4, 5/4, 1/4 upwards, then two rows downwards, whose middle is at the lower of them.
    upper, lower = np.array([[1, 5, 1]]) / 4, np.array([[1, 1, 1], [1, 5, 1]]) / 4
    both = np.concatenate([upper / np.sqrt(27 / 16), -lower / np.sqrt(30 / 16)]) / np.sqrt(2)
    np.testing.assert_allclose(module.pyramids(3), both)
    np.testing.assert_allclose(module.pyramids(1), [[-1]])
    for side in range(1, 12):
        np.testing.assert_allclose(module.pyramids(side), oracles_square.eta(side, 0), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 4, 1), (8, 8, 1), (5, 7, 2), (14, 14, 3), (28, 28, 1), (10, 3, 1)])
def test_starts(shape):
    # Both classes are as likely everywhere, so that a search ends only with its queries: what it asks is what it does.
    asked = {norm: [] for norm in EPSILONS}
    x = np.full((6, *shape), 0.5, np.float32)
    for norm, points in asked.items():

        def recording(images, points=points):
            points.append(images.numpy() - 0.5)
            return tf.zeros((len(images), 2))

        square(epsilon=0.2, num_queries=3, norm=norm)(recording, x, np.zeros(6, np.int64))
        assert len(points) == 4
    stripes = asked["linf"][0]
    np.testing.assert_allclose(np.abs(stripes), 0.2, atol=1e-6)
    np.testing.assert_allclose(stripes, np.broadcast_to(stripes[:, :1], stripes.shape))
    for noise in asked["l2"]:  # nothing at all is left where a pixel is the whole image
        lengths = np.linalg.norm(noise.reshape(6, -1), axis=1)
        assert np.all(np.isclose(lengths, 0.2, atol=1e-6) | ((lengths == 0) & (shape == (1, 1, 1))))
    if np.prod(shape) > 15:
        assert all(len(np.unique(points[0], axis=0)) >= 4 for points in asked.values())  # each image has its own


# ---------------------------------------------------------------- what it promises


@pytest.mark.parametrize("norm", EPSILONS)
def test_each_query_changes_squares_and_the_loss_never_falls(norm, logits_fn, oracle, batch):
    (x, y), epsilon, asked = batch, EPSILONS[norm] / 3, []

    def recording(images):
        asked.append(images.numpy())
        return logits_fn(images)

    attack = square(epsilon=epsilon, num_queries=40, norm=norm)
    x_adv = attack(recording, x, y, seed=4).numpy()
    best, loss, corners = asked[0], oracles.margin(y, oracle.logits(asked[0])), set()
    for candidate, side in zip(asked[1:], attack.sides(*SHAPE[:2])):
        if norm == "linf":
            for is_changed in np.any(np.abs(candidate - best) > 1e-9, axis=3)[loss <= 0]:
                rows, columns = np.nonzero(is_changed)
                if not len(rows):  # the square was at that side of the ball already
                    continue
                assert np.ptp(rows) < side and np.ptp(columns) < side
                corners.add((side, rows.min(), columns.min()))
        noise = (candidate - x).reshape(len(x), -1)
        assert np.linalg.norm(noise, ord={"linf": np.inf, "l2": 2}[norm], axis=1).max() <= epsilon + 1e-9
        assert candidate.min() >= 0 and candidate.max() <= 1
        value = oracles.margin(y, oracle.logits(candidate))
        better = (value > loss) & (loss <= 0)
        best, loss = np.where(better[:, None, None, None], candidate, best), np.where(better, value, loss)
    assert norm == "l2" or len(corners) > 40  # each image has places of its own
    np.testing.assert_allclose(x_adv, np.where((loss > 0)[:, None, None, None], best, x), atol=1e-9)


@pytest.mark.parametrize("norm", EPSILONS)
def test_no_image_falls_that_cannot(norm, digits):
    # Of a linear network the distance to class c is (z_y - z_c) / ||w_y - w_c||, in the dual norm.
    model, logits_fn, x, y = digits
    epsilon = {"linf": 0.12, "l2": 0.8}[norm]
    x_adv = tf.function(square(epsilon=epsilon, num_queries=500, norm=norm, bounds=None), autograph=False)(
        logits_fn, x, y
    )
    lead = np.take_along_axis(model.logits(x), y[:, None], axis=1) - model.logits(x)
    apart = model.weights.T[y][:, None] - model.weights.T[None]
    lengths = np.linalg.norm(apart, ord={"linf": 1, "l2": 2}[norm], axis=2)
    distance = np.where(lengths > 0, lead / np.maximum(lengths, 1e-9), np.inf).min(axis=1)
    falls = np.argmax(logits_fn(x_adv), axis=1) != y
    assert not falls[distance > epsilon + 1e-5].any()
    assert falls[distance <= 0].all() and falls[distance <= epsilon].mean() > 0.5


def test_a_later_start_adds_to_the_earlier_ones(logits_fn, batch):
    x, y = batch
    added = 0
    for seed in range(4):
        one, three = (
            square(epsilon=0.04, num_queries=4, num_restarts=num)(logits_fn, x, y, seed=seed).numpy() for num in (1, 3)
        )
        by_one, by_three = changed(one, x), changed(three, x)
        np.testing.assert_array_equal(three[by_one], one[by_one])
        added += np.sum(by_three & ~by_one)
    assert added > 0


@pytest.mark.parametrize("norm", EPSILONS)
def test_examples_of_a_batch_do_not_influence_each_other(norm, logits_fn, batch):
    x, y = batch
    attack = square(epsilon=EPSILONS[norm], num_queries=20, norm=norm)
    whole = attack(logits_fn, x, y).numpy()
    np.testing.assert_allclose(attack(logits_fn, x[:5], y[:5]), whole[:5], atol=1e-12)
    other = np.concatenate([x[:5], x[:3]]), np.concatenate([y[:5], y[:3]])
    np.testing.assert_allclose(attack(logits_fn, *other)[:5], whole[:5], atol=1e-12)


@pytest.mark.parametrize("num_restarts", [1, 2])
def test_what_it_costs(num_restarts, logits_fn, batch):
    x, y = batch
    calls = []

    def counting(images):
        calls.append(1)
        return logits_fn(images)

    attack = square(epsilon=0.001, num_queries=7, num_restarts=num_restarts)
    attack(counting, x, y)
    assert len(calls) == num_restarts * (7 + 1)
    calls.clear()
    attack(counting, x[:2], y[:2])  # both are fooled by the start
    assert len(calls) == 1
    calls.clear()
    tf.function(lambda: attack(counting, x, y), autograph=False)()
    assert len(calls) == 1  # one trace


def test_one_hot_labels_give_the_same_example(logits_fn, batch):
    x, y = batch
    for loss in ("margin", "cross_entropy"):
        attack = square(epsilon=0.05, num_queries=15, loss=loss)
        np.testing.assert_allclose(attack(logits_fn, x, np.eye(NUM_CLASSES)[y]), attack(logits_fn, x, y), atol=1e-12)


@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_precision_keeps_its_dtype_and_the_ball(dtype, norm, logits_fn, batch):
    x, y = tf.cast(batch[0], dtype), batch[1]
    attack = square(epsilon=0.5, num_queries=10, norm=norm)
    x_adv = attack(lambda images: logits_fn(tf.cast(images, tf.float64)), x, y)
    noise = tf.reshape(tf.cast(x_adv, tf.float64) - tf.cast(x, tf.float64), [len(x), -1])
    assert x_adv.dtype == dtype and changed(tf.cast(x_adv, tf.float64), tf.cast(x, tf.float64)).any()
    longest = np.linalg.norm(noise, ord={"linf": np.inf, "l2": 2}[norm], axis=1).max()
    assert longest <= 0.5 * {"float16": 1.002, "bfloat16": 1.02}[dtype]


def test_it_comes_back_equal_from_json():
    attack = square(
        epsilon=0.1, num_queries=7, norm="l2", loss="cross_entropy", share=0.3, num_restarts=2, bounds=(-1.0, 1.0)
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(attack)))
    assert keras.saving.deserialize_keras_object(config) == attack
    assert dataclasses.replace(attack, bounds=None) != attack


# ---------------------------------------------------------------- black boxes


def test_it_needs_no_gradient(digits):
    model, logits_fn, x, y = digits

    def rounding(images):
        return logits_fn(tf.round(images * 16) / 16)

    def in_numpy(images):
        logits = tf.numpy_function(lambda pixels: model.logits(pixels).astype(np.float32), [images], tf.float32)
        return tf.ensure_shape(logits, [None, 10])

    with pytest.raises(ValueError, match="nothing to ascend"):
        apgd(epsilon=0.12, num_steps=1)(in_numpy, x, y)
    attack = square(epsilon=0.12, num_queries=100)
    plain = robust_accuracy(attack, logits_fn, x, y)
    natural = np.mean(np.argmax(logits_fn(x), axis=1) == y)
    assert plain < natural - 0.15
    assert abs(robust_accuracy(attack, rounding, x, y) - plain) < 0.05
    assert abs(robust_accuracy(attack, in_numpy, x, y) - plain) < 0.01  # but for rounding


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"epsilon": 0.0}, "`epsilon` must be positive"),
        ({"num_queries": 0}, "`num_queries` must be a whole number >= 1"),
        ({"num_restarts": 0}, "`num_restarts` must be a whole number >= 1"),
        ({"norm": "l1"}, "`norm` must be one of.*'l1'"),
        ({"loss": "ce"}, "`loss` must be one of.*'ce'"),
        ({"share": 0.0}, "`share` must be positive"),
        ({"share": 1.5}, "`share` must be at most 1. Received: share=1.5"),
        ({"bounds": (1.0, 0.0)}, "`bounds` must be a pair"),
    ],
)
def test_bad_hyper_parameters_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        square(**{"epsilon": 0.1, **settings})


@pytest.mark.parametrize(
    "x, match",
    [
        (np.zeros((2, 8, 8), np.float32), r"\(batch, height, width, channels\).*Received: shape \(2, 8, 8\)"),
        (np.zeros((2, 64), np.float32), r"Received: shape \(2, 64\)"),
        (np.full((2, 8, 8, 1), 1.5, np.float32), "every pixel must lie in the bounds"),
    ],
)
def test_bad_images_are_refused(x, match, digits):
    with pytest.raises(ValueError, match=match):
        square(epsilon=0.1)(digits[1], x, [0, 1])


def test_unknown_sizes_are_refused(digits):
    spec = [tf.TensorSpec([None, None, None, 1]), tf.TensorSpec([None], tf.int64)]
    graph = tf.function(lambda x, y: square(epsilon=0.1)(digits[1], x, y), autograph=False)
    with pytest.raises(ValueError, match="only the batch may be unknown"):
        graph.get_concrete_function(*spec)
    with pytest.raises(ValueError, match="tf.ensure_shape.*num_classes"):
        unshaped = lambda x: tf.numpy_function(lambda pixels: digits[0].logits(pixels), [x], tf.float64)  # noqa: E731
        tf.function(lambda x, y: square(epsilon=0.1)(unshaped, x, y), autograph=False)(digits[2], digits[3])
