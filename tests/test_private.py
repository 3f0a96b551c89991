"""Private training: one step by hand, sensitivity, the accountant's figures, and an audit that finds planted faults."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import NUM_CLASSES, SHAPE, dense_network

import pineat_tf as pt
from pineat_tf import accounting, private

pytest.importorskip("dp_accounting")

PGD = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)
OPTIONS = {"attack": PGD, "clip_norm": 0.5, "noise_multiplier": 0.0, "sampling_rate": 1.0, "delta": 1e-5, "seed": 0}


def trainer(network=None, **options):
    model = pt.PrivateAdversarialTraining(network or dense_network(), **{**OPTIONS, **options})
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    return model


def test_a_round_is_the_mean_of_clipped_gradients_of_mean_losses(images, labels):
    model = trainer(companions=pt.companions.ReverseSymmetry(), ratio="1/1", microbatch_size=3, clip_norm=0.3)
    before, expected = model.network.get_weights(), [np.zeros_like(w) for w in model.network.get_weights()]
    norms = []
    seed = pt.seeds.fold(0, 0)
    padded = np.concatenate([images, images[:1]])  # 9 rows: three microbatches
    adversarial = PGD(
        model.network, tf.constant(padded), tf.constant(np.append(labels, labels[0])), seed=pt.seeds.fold(seed, 0)
    )
    (companion,) = model.companions(tf.constant(padded), (adversarial,), num=1, seed=pt.seeds.fold(seed, 1))
    for row in range(8):
        with tf.GradientTape() as tape:
            losses = [
                pt.losses.cross_entropy(
                    tf.constant(labels[row : row + 1]), model.network(x[row : row + 1], training=True)
                )
                for x in (adversarial, companion)
            ]
            loss = tf.reduce_mean(losses)
        gradients = [np.asarray(g) for g in tape.gradient(loss, model.network.trainable_variables)]
        norms.append(np.sqrt(sum((g**2).sum() for g in gradients)))
        expected = [e + g * min(1, 0.3 / norms[-1]) for e, g in zip(expected, gradients)]
    assert min(norms) < 0.3 < max(norms) or min(norms) > 0.3  # some are clipped
    model.fit(images, labels, epochs=1, verbose=0)
    for old, new, total in zip(before, model.network.get_weights(), expected):
        np.testing.assert_allclose(new, old - total / 8, atol=2e-6)


def test_no_example_moves_the_sum_by_more_than_the_clipping_norm(images, labels):
    model = trainer(clip_norm=0.7, microbatch_size=8)
    model.fit(images, labels, epochs=1, verbose=0)
    x, y = tf.constant(images), tf.constant(labels)

    @tf.function
    def total(weights):
        adversarial = (model.generate(0, x, y, pt.seeds.fold(0, 0)),)
        return model._clipped_sum(x, (y, y), weights, adversarial)[0]

    rng = np.random.default_rng(0)
    for _ in range(100):
        model.network.set_weights(
            [rng.normal(scale=rng.uniform(0.1, 3), size=w.shape) for w in model.network.get_weights()]
        )
        chosen = (rng.random(8) < 0.5).astype(np.float32)
        other = chosen.copy()
        other[rng.integers(8)] = 1 - other[rng.integers(8)]
        one = np.flatnonzero(chosen != other)
        moved = [np.asarray(a) - np.asarray(b) for a, b in zip(total(tf.constant(chosen)), total(tf.constant(other)))]
        assert np.sqrt(sum((part**2).sum() for part in moved)) <= len(one) * 0.7 * (1 + 1e-5)


def test_an_infinite_gradient_counts_as_none(images, labels):
    def objective(logits_fn, x_nat, x, y):
        logits = logits_fn(x)
        return tf.reduce_sum(logits, 1) / (tf.cast(y, logits.dtype) - 1.0), logits  # not finite for class 1

    model = trainer(objective=objective, attack=None, companions=pt.companions.NaturalCompanions(), ratio="0/1")
    model.fit(images, labels, epochs=1, verbose=0)
    assert all(np.isfinite(weights).all() for weights in model.network.get_weights())


def test_noise_has_the_size_that_the_accountant_counts_on(images, labels):
    ends = {}
    for noise in (0.0, 2.0):
        keras.utils.set_random_seed(0)
        model = trainer(noise_multiplier=noise, seed=3)
        model.fit(images, labels, epochs=1, verbose=0)
        ends[noise] = np.concatenate([weights.ravel() for weights in model.network.get_weights()])
    noise = ends[2.0] - ends[0.0]  # of 243 entries, with a deviation of 2 * .5 / 8 whatever the gradients
    assert np.std(noise) == pytest.approx(0.125, rel=0.15) and len(set(noise)) > 240
    draws = np.stack([model._noised(tf.zeros([1000]), pt.seeds.fold(0, number)) for number in range(100)])
    assert np.std(draws) == pytest.approx(1.0, rel=0.02) and abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 0.15


@pytest.mark.parametrize("noise, expected", [(0.5, 25.6), (1.0, 3.72), (2.0, 1.31)])
def test_the_accountant_has_the_published_figures(noise, expected):
    found = accounting.epsilon(noise_multiplier=noise, sampling_rate=0.01, num_rounds=4000, delta=1e-5)
    assert found == pytest.approx(expected, abs=0.05 * expected / 25)


def test_the_multiplier_for_a_budget_keeps_it():
    budget = {"sampling_rate": 0.2, "num_rounds": 300, "delta": 1e-5}
    assert accounting.epsilon(noise_multiplier=0, **budget) == np.inf
    noise = accounting.noise_multiplier_for(epsilon=3.0, **budget)
    assert 2.9 < accounting.epsilon(noise_multiplier=noise, **budget) <= 3.0


def test_spent_epsilon_is_logged_kept_in_files_and_counts_all_rounds(images, labels, tmp_path):
    model = trainer(noise_multiplier=3.0, sampling_rate=0.5, microbatch_size=4)
    history = model.fit(images, labels, epochs=2, verbose=0).history  # 2 rounds an epoch
    expected = [accounting.epsilon(noise_multiplier=3.0, sampling_rate=0.5, num_rounds=n, delta=1e-5) for n in (2, 4)]
    assert history["epsilon_spent"] == expected and model.epsilon_spent == expected[1]
    model.save(tmp_path / "private.keras")
    loaded = keras.models.load_model(tmp_path / "private.keras")
    assert loaded.epsilon_spent == expected[1]
    for one in (model, loaded):  # what it draws hangs on seed and rounds alone
        one.fit(images, labels, epochs=1, verbose=0)
    for kept, restored in zip(model.network.get_weights(), loaded.network.get_weights()):
        np.testing.assert_allclose(kept, restored, atol=1e-6)
    with pytest.raises(ValueError, match="A guarantee is of one data set. Received: 7 examples after training on 8"):
        loaded.fit(images[:7], labels[:7], verbose=0)


def test_batches_are_poisson_samples(images, labels):
    model = trainer(sampling_rate=0.3, microbatch_size=2)
    model._check_data(images, labels)
    counts = np.zeros(8)
    sizes = []
    numbers = tf.range(8)
    for _, y, weights in model._sampled(tf.constant(images), numbers).take(400):
        drawn = y.numpy()[weights.numpy() == 1]
        assert len(set(drawn)) == len(drawn) and set(y.numpy()) <= set(drawn) | {0}
        assert len(y) == 2 * max(1, -(-len(drawn) // 2))  # whole microbatches, and no more
        counts[drawn] += 1
        sizes.append(len(drawn))
    np.testing.assert_allclose(counts / 400, 0.3, atol=0.1)
    assert np.var(sizes) == pytest.approx(8 * 0.3 * 0.7, rel=0.3)  # binomial, not fixed


class NetworkOfCanaries:
    """Linear, a pixel a canary, so that each has a gradient of its own, far longer than the clipping norm."""

    num = 500

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.included = rng.random(self.num) < 0.5
        self.labels = rng.integers(0, 2, self.num)
        self.network = keras.Sequential([keras.Input((self.num,)), keras.layers.Dense(2, kernel_initializer="zeros")])

    def audit(self):
        model = pt.PrivateAdversarialTraining(
            self.network, attack=None, companions=pt.companions.NaturalCompanions(), ratio="0/1", clip_norm=1.0,
            noise_multiplier=4.0, sampling_rate=1.0, delta=1e-5, seed=1, microbatch_size=250,
        )  # fmt: skip
        model.compile(optimizer=keras.optimizers.SGD(1.0))
        pixels = 0.9 * np.eye(self.num, dtype=np.float32)
        model.fit(pixels[self.included], self.labels[self.included], epochs=2, verbose=0)
        weights = self.network.get_weights()[0]
        rows = np.arange(self.num)
        scores = weights[rows, self.labels] - weights[rows, 1 - self.labels]
        return pt.membership.one_run_audit(scores, self.included, delta=1e-5).epsilon, model.epsilon_spent


def test_what_an_audit_proves_is_below_what_the_accountant_allows():
    proved, allowed = NetworkOfCanaries(0).audit()
    assert proved <= allowed < 2.5


@pytest.mark.parametrize("fault", ["no noise", "noise for the mean, not the sum", "noise without the clipping"])
def test_an_audit_finds_faults(fault, monkeypatch):
    canaries = NetworkOfCanaries(0)
    original = private.PrivateAdversarialTraining._noised
    clipped = private.PrivateAdversarialTraining._clipped

    def of_the_mean(self, total, seed):
        return total + (original(self, total, seed) - total) / canaries.num

    def unclipped(self, x, labels, weight, examples):
        gradients, losses, logits = clipped(self, x, labels, weight, examples)
        return [100.0 * gradient for gradient in gradients], losses, logits

    name, wrong = {
        "no noise": ("_noised", lambda self, total, seed: total),
        "noise for the mean, not the sum": ("_noised", of_the_mean),
        "noise without the clipping": ("_clipped", unclipped),
    }[fault]
    monkeypatch.setattr(private.PrivateAdversarialTraining, name, wrong)
    proved, allowed = canaries.audit()
    assert proved > allowed


def with_layer(layer):
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), layer, keras.layers.Dense(NUM_CLASSES)])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"network": with_layer(keras.layers.BatchNormalization())}, "GroupNormalization"),
        ({"sampling_rate": None}, "Give one of `sampling_rate` and `batch_size`"),
        ({"batch_size": 4}, "Give one of `sampling_rate` and `batch_size`"),
        ({"sampling_rate": 1.5}, "`sampling_rate` must be at most 1"),
        ({"weight_perturbation": pt.perturbations.AWP()}, "weight_perturbation=.*Leave it out"),
        ({"objective": pt.objectives.IKL(num_classes=NUM_CLASSES)}, "joins examples"),
        ({"objective": pt.defences.ConvexConcave(objective=pt.defences.RelaxLoss())}, "objective=ConvexConcave"),
        ({"companion_objective": pt.defences.RelaxLoss()}, "companion_objective=RelaxLoss"),
        ({"clip_norm": 0}, "`clip_norm` must be positive"),
        ({"noise_multiplier": -1}, "`noise_multiplier` must be positive"),
        ({"delta": 1.0}, "`delta` must be in"),
    ],
)
def test_what_would_break_the_guarantee_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        trainer(**options)


def test_noise_that_hangs_on_the_batch_is_refused(images, labels):
    with pytest.raises(ValueError, match="must depend on that example alone.*as that of Dist does"):
        trainer(attack=pt.attacks.dist(num_steps=2)).fit(images, labels, verbose=0)


@pytest.mark.parametrize("argument", [{"batch_size": 4}, {"sample_weight": np.ones(8)}])
def test_batches_made_otherwise_are_refused(images, labels, argument):
    with pytest.raises(ValueError, match=f"Poisson sampling.*{next(iter(argument))}"):
        trainer().fit(images, labels, verbose=0, **argument)


def test_weights_of_examples_and_what_is_not_compiled_are_told(images, labels):
    with pytest.raises(ValueError, match="Poisson sampling.*weights in `fit`"):
        trainer().fit((images, labels, np.ones(len(labels))), verbose=0)
    with pytest.raises(ValueError, match=r"compile\(\)"):
        pt.PrivateAdversarialTraining(dense_network(), **OPTIONS).fit(images, labels, verbose=0)


def test_float16_is_refused():
    with pytest.raises(ValueError, match="Build the network under 'mixed_bfloat16'"):
        pt.PrivateAdversarialTraining(dense_network(), **OPTIONS).compile(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
        )


@pytest.mark.parametrize("head", [1, 2])
def test_datasets_binary_heads_and_dropout_train(images, labels, head):
    network = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dropout(0.2), keras.layers.Dense(head)]
    )
    data = tf.data.Dataset.from_tensor_slices((images, labels % 2)).batch(3)
    model = trainer(network, sampling_rate=None, batch_size=4, noise_multiplier=1.0)
    history = model.fit(data, epochs=1, verbose=0, validation_data=(images, labels % 2)).history
    assert np.isfinite(history["val_loss"]).all() and history["epsilon_spent"][0] > 0


def test_little_noise_is_accounted_for_without_much_memory():
    budget = {"sampling_rate": 1.0, "num_rounds": 1, "delta": 1e-5}
    for noise in (0.3, 0.001):  # on the finest grid, and on a coarse one
        shift = 1 / noise  # of a Gaussian mechanism, whose epsilon lies this far below shift^2 / 2 + 4.27 shift
        found = accounting.epsilon(noise_multiplier=noise, **budget)
        assert shift**2 / 2 + 4.0 * shift < found < (shift**2 / 2 + 4.27 * shift) * 1.01
    assert accounting.epsilon(noise_multiplier=0.003, sampling_rate=0.01, num_rounds=4000, delta=1e-5) > 1e5
    many = {**budget, "num_rounds": 50}
    assert (
        0.95e4
        < accounting.epsilon(noise_multiplier=accounting.noise_multiplier_for(epsilon=1e4, **many), **many)
        <= 1e4
    )


class Joined(keras.layers.Layer):
    """Takes off what the batch has in common."""

    def call(self, x):
        return x - 0.5 * keras.ops.mean(x, axis=0, keepdims=True)


class Remembering(keras.layers.Layer):
    """Keeps the mean of what it saw in training."""

    def build(self, input_shape):
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False, name="mean")

    def call(self, x, training=False):
        if training:
            self.mean.assign(keras.ops.mean(x))
        return x - self.mean


@pytest.mark.parametrize(
    "layer, message", [(Joined, "changes with the other images of the batch"), (Remembering, "change .*mean")]
)
@pytest.mark.parametrize("natural", [False, True])
def test_layers_of_ones_own_that_join_examples_or_keep_them_are_refused(images, labels, layer, message, natural):
    network = keras.Sequential([keras.Input(SHAPE), layer(), *dense_network().layers])
    before = [np.asarray(variable) for variable in network.variables]
    kind = {"attack": None, "ratio": "0/1", "companions": pt.companions.NaturalCompanions()} if natural else {}
    model = trainer(network, **kind)
    with pytest.raises(ValueError, match=message):
        model.fit(images, labels, epochs=1, verbose=0)
    for variable, value in zip(network.variables, before):
        np.testing.assert_array_equal(variable, value)


def test_random_layers_are_no_coupling(images, labels):
    network = keras.Sequential([keras.Input(SHAPE), keras.layers.Dropout(0.5), *dense_network().layers])
    assert np.isfinite(trainer(network).fit(images, labels, epochs=1, verbose=0).history["loss"]).all()


def test_a_search_of_noise_never_accounts_for_far_less(monkeypatch):
    # Less noise needs a grid that no memory holds, and sum after sum of it.
    tried, event = [], accounting._event
    monkeypatch.setattr(
        accounting, "_event", lambda library, noise, *rest: tried.append(noise) or event(library, noise, *rest)
    )
    noise = accounting.noise_multiplier_for(epsilon=8.0, sampling_rate=1.0, num_rounds=1, delta=1e-5)
    assert noise < 1 and noise / 2 < min(tried) and len(tried) < 40


@pytest.mark.parametrize("noise", [None, "1.0", False, np.ones(2), -1.0])
def test_noise_is_a_number(noise):
    with pytest.raises(ValueError, match="`noise_multiplier` must be positive or 0"):
        accounting.epsilon(noise_multiplier=noise, sampling_rate=0.1, num_rounds=1, delta=1e-5)
