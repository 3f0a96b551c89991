"""Defences as objectives, against their formulas in NumPy, around every kind of objective."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import NUM_CLASSES, dense_network

import pineat_tf as pt
from pineat_tf.defences import ConvexConcave, EntropyRegularised, RelaxLoss

PGD = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)


class Logits:
    """What a trainer gives an objective: fixed logits, at an update of a number."""

    network, state = None, {}  # noqa: RUF012

    def __init__(self, logits, updates=0):
        self.logits, self.updates = tf.Variable(logits, dtype=tf.float32), tf.constant(updates, tf.int64)

    def __call__(self, images):
        return self.logits + 0.0 * tf.reduce_sum(images)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(8, NUM_CLASSES)) * 2


def softmax(logits):
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def gradient(objective, logits_fn, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(objective(logits_fn, x, x, tf.constant(y))[0])
    return float(loss), np.asarray(tape.gradient(loss, logits_fn.logits))


def numeric(function, logits, step=1e-5):
    found = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        moved = [logits.copy(), logits.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


@pytest.mark.parametrize("updates", [0, 5, 10])  # even, odd, even, of 5 updates an epoch
@pytest.mark.parametrize("alpha", [0.5, 5.0])  # below and above the loss
def test_relax_loss(images, labels, logits, updates, alpha):
    def expected(z):
        p = softmax(z)
        true = p[np.arange(8), labels]
        loss = -np.log(true)
        if updates != 5:
            return abs(loss.mean() - alpha)
        if loss.mean() > alpha:
            return loss.mean()
        kept = np.minimum(true, 0.8)
        target = np.full(z.shape, ((1 - kept) / (NUM_CLASSES - 1))[:, None])
        target[np.arange(8), labels] = kept
        soft = -(target * np.log(p)).sum(1)
        return ((z.argmax(1) != labels) * soft - loss).mean()

    objective = RelaxLoss(alpha=alpha, upper=0.8, period=5)
    loss, slope = gradient(objective, Logits(logits, updates), images, labels)
    assert loss == pytest.approx(expected(logits), abs=1e-5)
    np.testing.assert_allclose(slope, numeric(expected, logits), atol=1e-5)


def test_convex_concave(images, labels, logits):
    def expected(z):
        true = softmax(z)[np.arange(8), labels]
        return (0.3 * -np.log(true) - 0.7 * np.exp(true)).mean()

    loss, slope = gradient(ConvexConcave(share=0.3), Logits(logits), images, labels)
    assert loss == pytest.approx(expected(logits), abs=1e-5)
    np.testing.assert_allclose(slope, numeric(expected, logits), atol=1e-5)


@pytest.mark.parametrize("rows", [False, True])
def test_entropy_regularised(images, labels, logits, rows):
    objective = EntropyRegularised(num_classes=NUM_CLASSES, entropy=0.9, weight=0.2)
    rest = (1 - objective.confidence) / (NUM_CLASSES - 1)
    label = np.where(np.eye(NUM_CLASSES)[labels] == 1, objective.confidence, rest)
    np.testing.assert_allclose(-(label * np.log(label)).sum(1), 0.9 * np.log(NUM_CLASSES), atol=1e-9)

    def expected(z):
        p = softmax(z)
        return (-(label * np.log(p)).sum(1) + 0.2 * (p * np.log(p)).sum(1)).mean()

    y = np.eye(NUM_CLASSES, dtype=np.float32)[labels] if rows else labels
    loss, slope = gradient(objective, Logits(logits), images, y)
    assert loss == pytest.approx(expected(logits), abs=1e-5)
    np.testing.assert_allclose(slope, numeric(expected, logits), atol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        pt.objectives.Trades(beta=1.0),
        pt.objectives.MART(),
        pt.objectives.IntervalBounds(mixture="loss", share=0.1),  # whose radius the attack gives
        pt.objectives.IKL(num_classes=NUM_CLASSES),
    ],
    ids=lambda inner: type(inner).__name__,
)
@pytest.mark.parametrize("wrap", [RelaxLoss, ConvexConcave, EntropyRegularised], ids=lambda wrap: wrap.__name__)
def test_a_defence_around_any_objective_trains_and_comes_back_from_its_file(images, labels, tmp_path, inner, wrap):
    of_classes = {"num_classes": NUM_CLASSES} if wrap is EntropyRegularised else {}
    model = pt.AdversarialTraining(
        dense_network(), attack=PGD, objective=wrap(objective=inner, **of_classes),
        companions=pt.companions.ReverseSymmetry(), ratio="1/1",
    )  # fmt: skip
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(images, labels, batch_size=8, verbose=0)
    assert all(np.isfinite(weights).all() for weights in model.network.get_weights())
    model.save(tmp_path / "trainer.keras")
    assert keras.models.load_model(tmp_path / "trainer.keras").objective == model.objective


def test_an_epoch_of_relax_loss_holds_a_round():
    def trainer(period, ratio, **more):
        return pt.AdversarialTraining(
            dense_network(), attack=PGD, ratio=ratio, companions=pt.companions.ReverseSymmetry(),
            **({"objective": RelaxLoss(period=period)} | more),
        )  # fmt: skip

    assert trainer(3, "2/1").objective.period == 3
    message = r"at least the 3 updates of a round.*Received: period=2 with ratio 2/1\. Give the updates"
    with pytest.raises(ValueError, match=message):
        trainer(2, "2/1")
    with pytest.raises(ValueError, match="at least the 2 updates of a round"):
        trainer(400, "1/1", objective=pt.objectives.CrossEntropy(), companion_objective=RelaxLoss(period=1))
    with pytest.raises(ValueError, match="at least the 2 updates of a round"):
        trainer(400, "1/1", objective=ConvexConcave(objective=RelaxLoss(period=1)))
    with pytest.raises(ValueError, match="at least the 2 updates of a round"):
        trainer(400, "1/1", objective=RelaxLoss(objective=RelaxLoss(period=1)))


def test_bounds_without_an_attack_can_be_defended(images, labels):
    model = pt.AdversarialTraining(
        dense_network(), attack=None, objective=ConvexConcave(objective=pt.objectives.IntervalBounds(epsilon=0.1)),
        companions=pt.companions.NaturalCompanions(), ratio="0/1",
    )  # fmt: skip
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(images, labels, batch_size=8, verbose=0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RelaxLoss(alpha=0), "`alpha` must be positive"),
        (lambda: RelaxLoss(upper=1.5), "`upper` must be at most 1"),
        (lambda: RelaxLoss(period=0), "`period` must be a whole number >= 1"),
        (lambda: ConvexConcave(share=0), "`share` must be positive"),
        (lambda: EntropyRegularised(num_classes=1), "`num_classes` must be a whole number >= 2"),
        (lambda: EntropyRegularised(num_classes=3, entropy=1.0), "`entropy` must be in"),
        (lambda: EntropyRegularised(num_classes=3, weight=-1), "`weight` must be positive or 0"),
        (lambda: RelaxLoss(objective="ce"), "`objective` must be called as .*'ce'"),
        (lambda: ConvexConcave(objective=pt.objectives.CrossEntropy), "`objective` must be called as"),
        (lambda: EntropyRegularised(num_classes=3, objective=None), "`objective` must be called as"),
        (lambda: EntropyRegularised(num_classes=3)(None, None, None, tf.eye(4)), "num_classes=3"),
        (lambda: RelaxLoss()(lambda x: x, None, None, None), "tells epochs by the updates of a trainer"),
    ],
)
def test_bad_options_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("entropy", [0.0, 1e-300, 1e-12, 1e-6, 0.5, 0.999999])
@pytest.mark.parametrize("num_classes", [2, 1000])
def test_labels_have_the_entropy_that_was_asked_for(entropy, num_classes):
    true = EntropyRegularised(num_classes=num_classes, entropy=entropy).confidence
    rest = np.full(num_classes - 1, (1 - true) / (num_classes - 1))
    found = -sum(p * np.log(p) for p in (true, *rest) if p > 0) / np.log(num_classes)
    assert found == pytest.approx(entropy, abs=1e-9)
