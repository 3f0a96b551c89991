"""MART, SCORE and IKL: values by NumPy twins, gradients by differences of the twins, and what IKL keeps."""

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from conftest import dense_network

import pineat_tf as pt
from pineat_tf.objectives import IKL, MART, SCORE

STEPS = {"epsilon": 0.1, "step_size": 0.05, "num_steps": 2}


def mart(natural, logits, rows, beta=6.0):
    probs, classes = oracles.softmax(logits), rows.argmax(axis=1)
    wrong = np.where(np.eye(rows.shape[1])[classes] == 1, -1.0, probs).max(axis=1)
    boosted = -(rows * oracles.log_softmax(logits)).sum(axis=1) - np.log(1.0001 - wrong + 1e-12)
    missing = 1.0000001 - (rows * oracles.softmax(natural)).sum(axis=1)
    return boosted + beta * oracles.kl_divergence(natural, logits) * missing


def score(natural, logits, rows, beta=4.0, smoothing=0.1):
    p, q, others = oracles.softmax(natural), oracles.softmax(logits), rows.shape[1] - 1
    target = (1 - smoothing) * rows + smoothing * (1 - rows) / others
    return ((p - target) ** 2).sum(axis=1) + beta * ((q - p) ** 2).sum(axis=1)


def ikl(natural, logits, rows, fixed=None, means=None, alpha=4.0, beta=20.0):
    """The sum over all pairs of classes, as the authors write it; `fixed` is the natural prediction held still."""
    num = rows.shape[1]
    s = rows @ (np.full((num, num), 1 / num) if means is None else means)
    apart = natural - logits
    pairs = (apart[:, :, None] - apart[:, None, :]) ** 2
    squared = (s[:, :, None] * s[:, None, :] * pairs).sum(axis=(1, 2))
    cross_entropy = -(rows * oracles.log_softmax(natural)).sum(axis=1)
    return (
        cross_entropy
        + alpha * oracles.kl_divergence(fixed if fixed is not None else natural, logits)
        + beta / 4 * squared
    )


TWINS = {"mart": (MART(), mart), "score": (SCORE(), score), "ikl": (IKL(num_classes=4), ikl)}
ROWS = {
    "classes": np.eye(4)[np.arange(6) % 4],
    "soft": np.random.default_rng(2).dirichlet(np.ones(4), size=6),
}


class Given:
    """Logits that do not come from images, as `types.TrainingLogits`."""

    network = None
    updates = tf.constant(0, tf.int64)

    def __init__(self, objective, natural, example):
        self.logits = {0.0: natural, 1.0: example}
        initial = getattr(objective, "initial_state", dict)()
        self.state = {name: keras.Variable(value, dtype=value.dtype.name) for name, value in initial.items()}

    def __call__(self, images):
        return self.logits[float(images[0])]


def value_and_gradients(objective, natural, example, labels, given=None):
    z, z_adv = tf.Variable(natural, dtype=tf.float32), tf.Variable(example, dtype=tf.float32)
    with tf.GradientTape() as tape:
        given = given or Given(objective, z, z_adv)
        given.logits = {0.0: tf.convert_to_tensor(z), 1.0: tf.convert_to_tensor(z_adv)}
        loss, logits = objective(given, tf.zeros(6), tf.ones(6), labels)
        total = tf.reduce_sum(loss)
    np.testing.assert_allclose(logits, example, atol=1e-5)
    return loss.numpy(), [gradient.numpy() for gradient in tape.gradient(total, [z, z_adv])]


def differences(function, at, step=1e-5):
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        moved = [at.copy(), at.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (function(moved[0]).sum() - function(moved[1]).sum()) / (2 * step)
    return found


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", TWINS)
def test_values_and_gradients_equal_the_twins(name, rows):
    objective, twin = TWINS[name]
    rng = np.random.default_rng(3)
    natural, example, target = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)), ROWS[rows]
    labels = tf.constant(target if rows == "soft" else target.argmax(axis=1))
    loss, gradients = value_and_gradients(objective, natural, example, labels)
    np.testing.assert_allclose(loss, twin(natural, example, target), rtol=1e-4)
    options = {"fixed": natural} if name == "ikl" else {}
    expected = [
        differences(lambda z: twin(z, example, target, **options), natural),
        differences(lambda z: twin(natural, z, target, **options), example),
    ]
    for found, wanted in zip(gradients, expected):
        np.testing.assert_allclose(found, wanted, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", TWINS)
def test_at_the_natural_image_one_prediction_does(name):
    """The loss and its gradient are those of an example that is the natural image, at half the cost."""
    objective, twin = TWINS[name]
    natural, labels = np.random.default_rng(3).normal(size=(6, 4)), tf.constant(np.arange(6) % 4)
    z = tf.Variable(natural, dtype=tf.float32)
    with tf.GradientTape() as tape:
        x = tf.zeros(6)
        loss, _ = objective(Given(objective, tf.convert_to_tensor(z), None), x, x, labels)
        total = tf.reduce_sum(loss)
    np.testing.assert_allclose(loss, twin(natural, natural, ROWS["classes"]), rtol=1e-4)
    fixed = {"fixed": natural} if name == "ikl" else {}
    wanted = differences(lambda z: twin(z, z, ROWS["classes"], **fixed), natural)
    np.testing.assert_allclose(tape.gradient(total, z), wanted, atol=2e-3, rtol=1e-3)


def test_class_means_are_renewed_after_a_period():
    """Softened natural predictions of a class, summed over 2 updates; a class that none was of keeps its weights."""
    objective, labels = IKL(num_classes=4, period=2, temperature=2.0), tf.constant([0, 0, 1, 1, 2, 2])
    rng = np.random.default_rng(6)
    batches = [(rng.normal(size=(6, 4)), rng.normal(size=(6, 4))) for _ in range(3)]
    given, rows = Given(objective, None, None), np.eye(4)[labels.numpy()]
    for natural, example in batches[:2]:
        loss, _ = value_and_gradients(objective, natural, example, labels, given)
        np.testing.assert_allclose(loss, ikl(natural, example, rows), rtol=1e-4)
    sums = sum(rows.T @ oracles.softmax(natural / 2.0) for natural, _ in batches[:2])
    means = np.where(sums.sum(axis=1, keepdims=True) > 0, sums / 4, 0.25)
    natural, example = batches[2]
    loss, _ = value_and_gradients(objective, natural, example, labels, given)
    np.testing.assert_allclose(loss, ikl(natural, example, rows, means=means), rtol=1e-4)
    np.testing.assert_allclose(given.state["class_sums"], rows.T @ oracles.softmax(natural / 2.0), atol=1e-5)
    assert int(given.state["updates_summed"]) == 1


@pytest.mark.parametrize("perturbation", [None, pt.perturbations.AWP(gamma=0.1)])
def test_a_trainer_keeps_class_means_and_saves_them(tmp_path, images, labels, perturbation):
    """6 updates at a period of 4: the third update of the second period is the last. A second pass does not count."""
    objective = IKL(num_classes=3, period=4)
    model = pt.AdversarialTraining(
        dense_network(),
        attack=pt.attacks.trades_kl(**STEPS),
        objective=objective,
        companions=pt.companions.ReverseSymmetry(),
        ratio="1/2",
        weight_perturbation=perturbation,
        seed=0,
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(images, labels, batch_size=4, verbose=0)
    model.save(tmp_path / "trainer.keras")
    again = keras.models.load_model(tmp_path / "trainer.keras")
    for trainer in (model, again):
        state = {name: variable.numpy() for name, variable in trainer.objective_state.items()}
        assert state["updates_summed"] == 2 and int(trainer.rounds) == 2
        np.testing.assert_allclose(state["class_means"].sum(axis=1), 1.0, atol=1e-5)
        assert np.abs(state["class_means"] - 1 / 3).max() > 1e-3
        np.testing.assert_allclose(state["class_sums"].sum(), 2 * 4, atol=1e-4)
    np.testing.assert_array_equal(model.objective_state["class_means"], again.objective_state["class_means"])


def test_the_squared_distance_is_climbed(network, images, labels):
    attack = pt.attacks.pgd(**STEPS, loss="squared_distance")
    x = tf.constant(images)
    found = attack(network, x, labels, seed=0)
    start = attack.start(x, 0)

    def distance(x_adv):
        return float(np.square(oracles.softmax(network(x_adv)) - oracles.softmax(network(images))).sum())

    assert distance(found) > 1.2 * distance(np.clip(start, 0, 1))
    for options in ({"random_start": False}, {"targeted": True}):
        with pytest.raises(ValueError, match="no gradient at the natural images"):
            pt.attacks.pgd(**STEPS, loss="squared_distance", **options)


@pytest.mark.parametrize(
    "kind, options, message",
    [
        (MART, {"beta": 0.0}, "beta"),
        (SCORE, {"beta": -1.0}, "beta"),
        (SCORE, {"label_smoothing": 1.0}, "label_smoothing"),
        (IKL, {"num_classes": 1}, "num_classes"),
        (IKL, {"num_classes": 3, "temperature": 0.0}, "temperature"),
        (IKL, {"num_classes": 3, "period": 0}, "period"),
    ],
)
def test_bad_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_class_means_need_a_trainer(network, images, labels):
    with pytest.raises(ValueError, match="class means, which a trainer keeps"):
        IKL(num_classes=3)(network, images, images, labels)


def _all_objectives():
    bounds = [pt.objectives.IntervalBounds(epsilon=0.1, mixture=kind, share=0.4) for kind in pt.objectives.MIXTURES]
    plain = [pt.objectives.Trades(beta=2.0), MART(), SCORE(), IKL(num_classes=4), *bounds]
    return plain + [wrap(objective=part) for wrap in _DEFENCES for part in (SCORE(), bounds[0])]


_DEFENCES = (
    pt.defences.RelaxLoss,
    pt.defences.ConvexConcave,
    lambda objective: pt.defences.EntropyRegularised(num_classes=4, objective=objective),
)


class _Trainer:
    """`types.TrainingLogits` of a network, by hand."""

    def __init__(self, network, objective):
        self.network, self.updates = network, tf.constant(5, tf.int64)
        kept = getattr(objective, "initial_state", dict)()
        self.state = {name: tf.Variable(value) for name, value in kept.items()}

    def __call__(self, images):
        return self.network(images, training=True)


@pytest.mark.parametrize("policy, tolerance", [("float64", 1e-5), ("mixed_float16", 5e-2), ("mixed_bfloat16", 2e-1)])
def test_losses_are_the_same_in_every_precision(policy, tolerance):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(4)]
    x, y = np.random.default_rng(0).uniform(size=(6, 3)).astype(np.float32), np.arange(6) % 4
    network = keras.Sequential(layers)
    keras.config.set_dtype_policy(policy)
    try:
        other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    finally:
        keras.config.set_dtype_policy("float32")
    other.set_weights(network.get_weights())
    for objective in _all_objectives():
        one, same = (
            objective(_Trainer(net, objective), tf.constant(x), tf.constant(0.9 * x), tf.constant(y))[0]
            for net in (network, other)
        )
        np.testing.assert_allclose(same, one, rtol=tolerance, atol=tolerance, err_msg=repr(objective))


@pytest.mark.parametrize(
    "options",
    [
        {"objective": IKL(num_classes=3)},
        {"objective": pt.defences.EntropyRegularised(num_classes=3)},
        {"objective": pt.defences.RelaxLoss(objective=IKL(num_classes=3))},
        {"companion_objective": pt.defences.EntropyRegularised(num_classes=3)},
    ],
)
@pytest.mark.parametrize("rows", [False, True])
def test_another_number_of_classes_is_told(options, rows):
    model = pt.AdversarialTraining(
        dense_network(num_classes=4), attack=pt.attacks.pgd(**STEPS), ratio="1/1",
        companions=pt.companions.ReverseSymmetry(), **options,
    )  # fmt: skip
    model.compile("sgd", run_eagerly=True)
    x, y = np.full((4, *model.network.input_shape[1:]), 0.5, np.float32), np.arange(4) % 3
    with pytest.raises(ValueError, match="`num_classes` of .* the network's logits, 4 .*Received: num_classes=3"):
        model.fit(x, np.eye(4)[y] if rows else y, verbose=0)


def test_what_keeps_something_is_no_companions_objective():
    with pytest.raises(ValueError, match="keeps .*'class_means'.* for its `objective`.*companion_objective=IKL"):
        pt.AdversarialTraining(
            dense_network(), attack=pt.attacks.pgd(**STEPS), ratio="1/1",
            companions=pt.companions.ReverseSymmetry(), companion_objective=IKL(num_classes=4),
        )  # fmt: skip
