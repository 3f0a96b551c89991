"""Interval bounds: they are right, as tight as interval arithmetic gives, and they say what they cannot pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import NUM_CLASSES, SHAPE, dense_network, linear_network
from hypothesis import given, settings
from hypothesis import strategies as st

import pineat_tf as pt
from pineat_tf.bounds import interval, margins, propagation, rule
from pineat_tf.serialization import network_identity
from pineat_tf.statistics import clopper_pearson
from pineat_tf.verification import verify

layers = keras.layers
NUM_POINTS = 10_000


def with_random_weights(network, seed=0):
    rng = np.random.default_rng(seed)
    for layer in network._flatten_layers(include_self=False):
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [rng.normal(size=gamma.shape), beta + 0.1, mean - 0.2, rng.uniform(0.5, 2, variance.shape)]
            )
    return network


def every_layer():
    """A functional network with branches, of all kinds of layers that have a rule."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Rescaling(-2.0, 1.0)(inputs)
    x = layers.Normalization(mean=[0.1, 0.2], variance=[0.5, 2.0])(x)
    x = layers.Conv2D(4, 3, padding="same", activation="leaky_relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same")(layers.ZeroPadding2D(1)(x))
    y = keras.ops.relu(layers.BatchNormalization()(layers.Cropping2D(1)(y)))
    z = layers.Subtract()([layers.Add()([x, y]), keras.ops.add(y, 0.5)])
    x = layers.Concatenate()([layers.Multiply()([x, y]), layers.Average()([x, z]), layers.Maximum()([y, z])])
    x = layers.AveragePooling2D(2)(layers.MaxPooling2D(2, 1)(layers.ReLU(negative_slope=0.1)(x)))
    x = layers.Reshape((-1, 4))(layers.Dropout(0.5)(layers.Permute((2, 1, 3))(x)))
    x = layers.Conv1D(5, 2, padding="causal", activation="softplus")(x)
    nested = keras.Sequential([keras.Input((5,)), layers.Dense(6, activation="tanh"), layers.ELU()])
    return with_random_weights(keras.Model(inputs, layers.Dense(3)(nested(layers.GlobalAveragePooling1D()(x)))))


def points_of(x, epsilon, bounds, num=NUM_POINTS, seed=0):
    """Random points of the ball of one image, half of them corners."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-1, 1, size=(num, *x.shape))
    noise[::2] = np.sign(noise[::2])
    moved = x + epsilon * noise
    return (moved if bounds is None else np.clip(moved, *bounds)).astype(np.float32)


def test_two_weights_by_hand():
    # z = (2 a - 3 b + 1, 0): at (.5, .5) within .1 it is 2 (.5 -+ .1) - 3 (.5 +- .1) + 1 = 0 .. 1
    lower, upper = interval(linear_network([[2, 0], [-3, 0]], [1, 0]), tf.constant([[0.5, 0.5]]), 0.1)
    np.testing.assert_allclose([lower[0], upper[0]], [[0.0, 0.0], [1.0, 0.0]], atol=1e-6)
    # with pixels kept in [.45, .55] half of it is left: .25 .. .75
    network = linear_network([[2, 0], [-3, 0]], [1, 0])
    lower, upper = interval(network, tf.constant([[0.5, 0.5]]), 0.1, bounds=(0.45, 0.55))
    np.testing.assert_allclose([lower[0, 0], upper[0, 0]], [0.25, 0.75], atol=1e-6)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
@pytest.mark.parametrize("make, shape", [(every_layer, (8, 8, 2)), (dense_network, SHAPE)])
def test_no_point_of_the_ball_is_outside(make, shape, bounds):
    keras.utils.set_random_seed(0)
    network = make()
    images = np.random.default_rng(1).uniform(size=(3, *shape)).astype(np.float32)
    for epsilon in (0.01, 0.1):
        lower, upper = (np.asarray(end) for end in interval(network, images, epsilon, bounds=bounds))
        labels = network(images).numpy().argmax(axis=-1)
        least = margins(network, images, labels, epsilon, bounds=bounds).numpy()
        for index, image in enumerate(images):
            logits = network(points_of(image, epsilon, bounds)).numpy()
            assert (logits >= lower[index] - 1e-4).all() and (logits <= upper[index] + 1e-4).all()
            assert (logits[:, [labels[index]]] - logits >= least[index] - 1e-4).all()


def test_bounds_are_the_same_inside_a_graph():
    # training calls every rule with symbolic tensors, which have no values to look at
    network, x = every_layer(), tf.random.stateless_uniform((2, 8, 8, 2), seed=(0, 0))
    traced = tf.function(lambda x: interval(network, x, 0.05))(x)
    for inside, outside in zip(traced, interval(network, x, 0.05)):
        np.testing.assert_allclose(inside, outside, atol=1e-5)


def test_a_radius_of_0_gives_the_logits():
    network = every_layer()
    images = np.random.default_rng(1).uniform(size=(3, 8, 8, 2)).astype(np.float32)
    for end in interval(network, images, 0.0):
        np.testing.assert_allclose(end, network(images), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), epsilon=st.floats(0.01, 0.5), sides=st.tuples(st.integers(1, 6), st.integers(2, 5)))
def test_affine_layers_are_exact(seed, epsilon, sides):
    """Of one affine layer the bounds are attained, at corners that its signs tell: an independent calculation."""
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=sides), rng.normal(size=sides[1])
    x = rng.uniform(size=(2, sides[0])).astype(np.float32)
    lower, upper = interval(linear_network(weights, bias), x, epsilon, bounds=None)
    for k in range(sides[1]):
        corner = epsilon * np.sign(weights[:, k])
        np.testing.assert_allclose(lower[:, k], (x - corner) @ weights[:, k] + bias[k], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(upper[:, k], (x + corner) @ weights[:, k] + bias[k], rtol=1e-4, atol=1e-4)


def test_two_layers_equal_interval_arithmetic(network, oracle_network, images):
    """The twin: sums over positive and negative weights of the two ends, which is how interval arithmetic is taught."""

    def through(low, high, weights, bias):
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        return low @ positive + high @ negative + bias, high @ positive + low @ negative + bias

    o, flat = oracle_network, images.reshape(8, -1).astype(np.float64)
    low, high = through(np.clip(flat - 0.1, 0, 1), np.clip(flat + 0.1, 0, 1), o.w1, o.b1)
    low, high = through(np.tanh(low), np.tanh(high), o.w2, o.b2)
    lower, upper = interval(network, images, 0.1)
    np.testing.assert_allclose(lower, low, atol=1e-5)
    np.testing.assert_allclose(upper, high, atol=1e-5)


@pytest.mark.parametrize("labels", [np.arange(8) % 3, np.eye(3, dtype=np.float32)[np.arange(8) % 3]])
@pytest.mark.parametrize("most", [propagation._MOST, 0], ids=["table", "one by one"])
def test_margins_are_tighter_than_the_difference_of_bounds(network, images, labels, most, monkeypatch):
    monkeypatch.setattr(propagation, "_MOST", most)
    found = margins(network, images, labels, 0.05).numpy()
    lower, upper = (np.asarray(end) for end in interval(network, images, 0.05))
    rows, classes = np.arange(8), np.arange(8) % 3
    loose = lower[rows, classes][:, None] - upper
    loose[rows, classes] = 0.0
    assert (found >= loose - 1e-5).all() and found.mean() > loose.mean() + 1e-3
    assert (found[rows, classes] == 0).all()


def test_networks_written_otherwise_have_the_same_bounds(images):
    network = dense_network()
    functional = keras.Model(network.inputs, network.outputs)
    nested = keras.Sequential([keras.Input(SHAPE), functional])
    for other in (functional, nested):
        for one, same in zip(interval(network, images, 0.1), interval(other, images, 0.1)):
            np.testing.assert_allclose(one, same, atol=1e-5)


def test_one_logit_is_two_classes(images):
    network = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(1)])
    lower, upper = interval(network, images, 0.1)
    found = margins(network, images, np.arange(8) % 2, 0.1).numpy()
    for index, (low, high) in enumerate(zip(lower[:, 0].numpy(), upper[:, 0].numpy())):
        np.testing.assert_allclose(found[index], [0.0, -high] if index % 2 == 0 else [low, 0.0], atol=1e-5)


def test_half_precision_is_bounded_in_single(images):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = dense_network()
    finally:
        keras.config.set_dtype_policy("float32")
    lower, upper = interval(network, images, 0.1)
    assert lower.dtype == upper.dtype == tf.float32


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x * -2 + 1,
        lambda x: 2 * x,
        lambda x: (x - np.float32([0.1, 0.2, 0.3])) / np.float32([0.5, -0.5, 2.0]),
        lambda x: keras.ops.divide(1 - x, 4.0),
        lambda x: x[:, 1:],
        lambda x: keras.ops.multiply(x, x[:, ::-1]),
    ],
)
def test_arithmetic_in_place_of_layers_is_bounded_by_its_ends(operation):
    inputs, x = keras.Input((3,)), np.array([[0.2, 0.5, 0.95]], np.float32)
    network = keras.Model(inputs, operation(inputs))
    lower, upper = interval(network, x, 0.1)
    found = network(points_of(x[0], 0.1, (0.0, 1.0))).numpy()  # corners among them, where each output has its ends
    np.testing.assert_allclose(found.min(axis=0), lower[0], atol=1e-6)
    np.testing.assert_allclose(found.max(axis=0), upper[0], atol=1e-6)


@pytest.mark.parametrize(
    "stand_in",
    [pt.accelerate.compute_twin, lambda n: pt.AdversarialTraining(n, attack=pt.attacks.fgsm_rs(epsilon=0.1))],
)
def test_what_stands_for_a_network_is_it_to_bounds_labels_and_identities(stand_in, network, images, labels):
    other = stand_in(network)
    assert pt.companions.ScaledNoise(labels=other).labels is network
    assert network_identity(other) == network_identity(network)
    for one, same in zip(interval(network, images, 0.01), interval(other, images, 0.01)):
        np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(margins(network, images, labels, 0.01), margins(other, images, labels, 0.01))
    np.testing.assert_array_equal(
        verify(network, (images, labels), 0.01).verified, verify(other, (images, labels), 0.01).verified
    )


class Swish(layers.Layer):
    def call(self, x):
        return x * keras.ops.sigmoid(x)


@pytest.mark.parametrize(
    "layer, message",
    [
        (layers.Dense(4, activation="gelu", name="first"), "gelu.*in the layer 'first'.*rule"),
        (layers.Softmax(name="last"), "no rule for the layer 'last'.*Softmax"),
        (Swish(name="own"), "no rule for the layer 'own'.*@pineat_tf.bounds.rule"),
        (layers.ELU(alpha=-0.1, name="falls"), "alpha=-0.1 in the layer 'falls'"),
    ],
)
def test_what_has_no_rule_is_named(layer, message):
    network = keras.Sequential([keras.Input((3,)), layer])
    with pytest.raises(ValueError, match=message):
        interval(network, np.zeros((2, 3), np.float32), 0.1)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda x: layers.Dropout(0.5, name="stays")(x, training=True), "training=True, fixed for the layer 'stays'"),
        (lambda x: layers.BatchNormalization(name="stays")(x, training=True), "training=True, fixed for the layer"),
        (lambda x: keras.ops.leaky_relu(x, negative_slope=-0.1), "negative_slope=-0.1"),
        (lambda x: keras.ops.elu(x, alpha=-1.0), "alpha=-1.0"),
        (lambda x: 1 / x, "divisions by constants. Received: the operation 'true_divide"),
    ],
)
def test_what_would_make_bounds_untrue_is_refused(make, message):
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match=message):
        interval(keras.Model(inputs, make(inputs)), np.zeros((2, 3), np.float32), 0.1)


def sigmoid_heads():
    inputs = keras.Input((3,))
    hidden = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="relu")])
    one = layers.Dense(1)
    as_vector = keras.ops.squeeze(one(hidden(inputs)), -1)
    return {
        "logit": keras.Model(inputs, one(hidden(inputs))),
        "vector": keras.Model(inputs, as_vector),
        "activation": keras.Model(inputs, layers.Activation("sigmoid")(one(hidden(inputs)))),
        "operation": keras.Model(inputs, keras.ops.reshape(keras.ops.sigmoid(as_vector), (-1, 1))),
        "reshaped": keras.Sequential([hidden, one, layers.Activation("sigmoid"), layers.Flatten()]),
    }


def test_a_sigmoid_is_judged_by_its_logit():
    x, heads = np.random.default_rng(0).uniform(size=(64, 3)).astype(np.float32), sigmoid_heads()
    by_logit = heads.pop("logit")
    rng, (hidden, last) = np.random.default_rng(1), by_logit.layers[-2:]
    hidden.set_weights([rng.normal(size=(3, 4)), np.ones(4)])
    last.set_weights([10 * rng.normal(size=(4, 1)), np.zeros(1)])
    last.bias.assign([-np.median(by_logit(x))])
    y = (by_logit(x).numpy()[:, 0] > 0).astype(int)
    assert y.sum() == 32
    for name, network in heads.items():
        found, expected = (margins(judged, x, y, 0.01) for judged in (network, by_logit))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)
        assert verify(network, (x, y), 1e-9).accuracy == 1.0 and verify(network, (x, 1 - y), 1e-9).accuracy == 0.0


class Squared(layers.Dense):
    def call(self, x):
        return super().call(x) ** 2


class Negated(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return -super().call(x, training=training)


def quantised():
    network = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="first"), layers.Dense(2)])
    network.quantize("int8")
    return network


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: keras.Sequential([keras.Input((3,)), Squared(2, name="mine")]), "'mine', a Squared with a `call`"),
        (lambda: Negated([keras.Input((3,)), layers.Dense(2)]), "cannot look into the model.*Negated"),
        (lambda: keras.Sequential([keras.Input((3,)), Negated([layers.Dense(2)])]), "cannot look into the model"),
        (quantised, "'first', quantised to 'int8'"),
    ],
)
def test_no_rule_is_taken_for_what_computes_otherwise(make, message):
    for bound in (lambda *args: interval(*args, 0.1), lambda *args: margins(*args, np.zeros(2, int), 0.1)):
        with pytest.raises(ValueError, match=message):
            bound(make(), np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": np.full((2, 3), 7.0, np.float32)}, r"bounds \[0, 1\].*[Rr]eceived"),
        ({"x": np.full((2, 3), np.nan, np.float32), "bounds": None}, "be finite"),
        ({"x": np.zeros((2, 4), np.float32)}, r"shape that the network takes, \(None, 3\). Received: \(2, 4\)"),
        ({"x": np.zeros(3, np.float32)}, "A single image becomes a batch"),
        ({"x": np.zeros((2, 3), np.uint8)}, "Images must be floating point"),
        ({"network": np.zeros((2, 3))}, "`network` must be a Keras model"),
        ({"epsilon": "0.1"}, "`epsilon` must be a number.*'0.1'"),
        ({"epsilon": None}, "`epsilon` must be a number"),
        ({"epsilon": np.float32(-0.1)}, "`epsilon` must be >= 0"),
        ({"epsilon": tf.constant(float("nan"))}, "`epsilon` must be >= 0"),
        ({"epsilon": np.full(2, 0.1)}, r"ndarray of shape \(2,\) for images of shape \(2, 3\)"),
        ({"y": [0, 1, 1]}, "2 images, 3 labels"),
        ({"y": [0, 2]}, r"class numbers must lie in 0 .. 1.*\[0 2\]"),
        ({"y": [[0, 1, 0]] * 2}, "num_classes=2"),
    ],
)
def test_bad_input_to_bounds(change, message):
    given = {"network": keras.Sequential([keras.Input((3,)), layers.Dense(2)]), "x": np.zeros((2, 3), np.float32)}
    given |= {"epsilon": 0.1, "y": [0, 1]} | change
    with pytest.raises(ValueError, match=message):
        margins(**given)
    if "y" not in change:
        del given["y"]
        with pytest.raises(ValueError, match=message):
            interval(**given)


def test_a_rule_of_ones_own():
    class Doubled(layers.Layer):
        def call(self, x):
            return 2 * x

    rule(Doubled)(lambda layer, box: box.map(layer))
    lower, upper = interval(keras.Sequential([keras.Input((1,)), Doubled()]), np.full((1, 1), 0.5, np.float32), 0.1)
    np.testing.assert_allclose([lower[0, 0], upper[0, 0]], [0.8, 1.2], rtol=1e-6)


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6), epsilon=st.floats(0.005, 0.2))
def test_no_attack_finds_what_is_proved_not_to_be(seed, epsilon):
    keras.utils.set_random_seed(seed)
    network = dense_network()
    images = np.random.default_rng(seed).uniform(size=(16, *SHAPE)).astype(np.float32)
    labels = network(images).numpy().argmax(axis=-1)
    verified = verify(network, (images, labels), epsilon).verified
    attacks = [pt.attacks.apgd(epsilon=epsilon, num_steps=5), pt.attacks.square(epsilon=epsilon, num_queries=20)]
    result = pt.robustness(network, (images, labels), attacks)
    assert not (verified & result.success(epsilon)).any()
    assert result.accuracies[-1] >= verified.mean()


def test_verified_accuracy_counts_and_has_an_interval():
    network = linear_network([[1, 0]], [0, 0])  # class 0 where the pixel is above 0
    images, labels = np.array([[0.05], [0.15], [0.5], [0.5]], np.float32), np.array([0, 0, 0, 1])
    result = verify(network, (images, labels), 0.1, bounds=None, batch_size=3)
    assert result.verified.tolist() == [False, True, True, False]
    assert result.accuracy == 0.5 and result.interval() == clopper_pearson(2, 4)
    assert result.to_dict()["num_examples"] == 4


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epsilon": -0.1}, "epsilon"),
        ({"epsilon": np.float32(-0.1)}, "`epsilon` must be positive or 0"),
        ({"epsilon": False}, "`epsilon` must be positive or 0, a plain number"),
        ({"epsilon": np.full((2, 1), 0.1)}, "one number for all images"),
        ({"bounds": (1, 0)}, "bounds"),
        ({"data": (np.zeros((0, *SHAPE)), [])}, "0 images"),
    ],
)
def test_bad_input_to_verify(change, message):
    options = {"data": (np.full((2, *SHAPE), 0.5, np.float32), np.array([0, 1])), "epsilon": 0.1} | change
    with pytest.raises(ValueError, match=message):
        verify(dense_network(num_classes=NUM_CLASSES), **options)


class Logits:
    """`types.TrainingLogits` of a network, by hand."""

    def __init__(self, network, updates):
        self.network, self.updates, self.state = network, tf.constant(updates, tf.int64), {}

    def __call__(self, images):
        return self.network(images, training=True)


def softmax_loss(logits, classes):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(len(classes)), classes]


@pytest.mark.parametrize("mixture", pt.objectives.MIXTURES)
@pytest.mark.parametrize("updates", [0, 100, 250, 400, 1000])
def test_the_objective_equals_its_formula(network, images, labels, mixture, updates):
    """Weights and radius go from (1, 0) at update 100 to (.4, .2) at 400; the worst case is that of `margins`."""
    share, rows = 0.3, np.arange(8)
    objective = pt.objectives.IntervalBounds(
        epsilon=0.2, natural_weight=0.4, ramp=(100, 400), mixture=mixture, share=share
    )
    x = np.clip(images + 0.05 * np.sign(images - 0.5), 0, 1).astype(np.float32)
    loss, logits = objective(Logits(network, updates), tf.constant(images), tf.constant(x), tf.constant(labels))

    progress = {0: 0.0, 100: 0.0, 250: 0.5, 400: 1.0, 1000: 1.0}[updates]
    weight, epsilon = 1 - 0.6 * progress, 0.2 * progress
    seen = network(x).numpy()
    if mixture == "small_box":
        inner = (1 - share) * epsilon
        worst = -margins(network, np.clip(x, images - inner, images + inner), labels, share * epsilon).numpy()
    else:
        worst = -margins(network, images, labels, epsilon).numpy()
    if mixture == "logits":
        worst = share * worst + (1 - share) * (seen - seen[rows, labels][:, None])
    robust = softmax_loss(worst, labels)
    if mixture == "loss":
        robust = share * robust + (1 - share) * softmax_loss(seen, labels)
    expected = weight * softmax_loss(network(images), labels) + (1 - weight) * robust
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(logits, seen, atol=1e-5)


def test_without_a_ramp_the_whole_radius_holds_from_the_first_update(network, images, labels):
    objective = pt.objectives.IntervalBounds(epsilon=0.2, natural_weight=0.0)
    loss, _ = objective(Logits(network, 0), tf.constant(images), tf.constant(images), tf.constant(labels))
    np.testing.assert_allclose(loss, softmax_loss(-margins(network, images, labels, 0.2).numpy(), labels), rtol=1e-4)


@pytest.mark.parametrize("mixture", pt.objectives.MIXTURES)
def test_a_trainer_with_bounds_comes_back_from_its_file(tmp_path, images, labels, mixture):
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=1)
    options = {"attack": attack, "ratio": "1/0"} if mixture != "none" else {
        "attack": None, "ratio": "0/1", "companions": pt.companions.NaturalCompanions(),
    }  # fmt: skip
    radius = {} if mixture != "none" else {"epsilon": 0.1}
    objective = pt.objectives.IntervalBounds(**radius, ramp=(2, 4), mixture=mixture, share=0.5)
    model = pt.AdversarialTraining(dense_network(), objective=objective, seed=0, **options)
    assert model.objective.epsilon == 0.1
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    model.fit(images, labels, batch_size=4, epochs=3, verbose=0)
    model.save(tmp_path / "trainer.keras")
    again = keras.models.load_model(tmp_path / "trainer.keras")
    assert again.objective == model.objective
    for trainer in (model, again):
        trainer.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
    for one, other in zip(model.network.get_weights(), again.network.get_weights()):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_training_by_bounds_proves_what_training_by_pgd_does_not():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(120, *SHAPE)).astype(np.float32)
    labels = (images[:, 0, 0, 0] > 0.5).astype(int)
    images[:, 0, 0, 0] = 0.1 + 0.8 * labels  # what tells the classes apart is far from the middle

    def verified(**options):
        keras.utils.set_random_seed(0)
        network = dense_network(num_classes=2)
        model = pt.AdversarialTraining(network, seed=0, **options)
        model.compile(optimizer=keras.optimizers.Adam(0.02))
        model.fit(images, labels, batch_size=40, epochs=20, verbose=0)
        return verify(network, (images, labels), 0.2).accuracy

    bounds = pt.objectives.IntervalBounds(epsilon=0.2, ramp=(6, 30))
    assert verified(attack=None, ratio="0/1", companions=pt.companions.NaturalCompanions(), objective=bounds) > 0.9
    pgd = pt.attacks.pgd(epsilon=0.2, step_size=0.1, num_steps=2)
    assert verified(attack=pgd) < 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epsilon": 0.1, "norm": "l2"}, "norm='l2'"),
        ({"epsilon": 0.1, "ramp": (5, 2)}, r"ramp=\(5, 2\)"),
        ({"epsilon": 0.1, "ramp": 5}, "ramp=5"),
        ({"epsilon": 0.1, "ramp": (0, 0.5)}, "whole ones"),
        ({"epsilon": 0.1, "share": "half"}, "share='half'"),
        ({"epsilon": 0.1, "share": 0.0}, "share=0.0"),
        ({"epsilon": 0.1, "natural_weight": 1.5}, "natural_weight"),
        ({"epsilon": 0.1, "mixture": "both"}, "mixture"),
        ({"epsilon": -0.1}, "epsilon"),
    ],
)
def test_bad_options_of_the_objective(options, message):
    with pytest.raises(ValueError, match=message):
        pt.objectives.IntervalBounds(**options)


def test_images_outside_the_range_are_refused_without_an_attack(labels):
    model = pt.AdversarialTraining(
        dense_network(num_classes=NUM_CLASSES), attack=None, objective=pt.objectives.IntervalBounds(epsilon=8.0)
    )
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"bounds \[0, 1\]"):
        model.fit(np.full((8, *SHAPE), 200.0, np.float32), labels, verbose=0)


def test_bounds_need_a_radius_and_a_network(network, images, labels):
    with pytest.raises(ValueError, match="takes its radius from the attack, which has none"):
        pt.AdversarialTraining(
            network,
            attack=None,
            ratio="0/1",
            companions=pt.companions.NaturalCompanions(),
            objective=pt.objectives.IntervalBounds(),
        )
    with pytest.raises(ValueError, match="looks into the layers"):
        pt.objectives.IntervalBounds(epsilon=0.1)(network, images, images, labels)
