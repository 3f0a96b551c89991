"""Weight perturbation, radii that grow, objectives of companions and their labels: what changes around an update."""

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from conftest import dense_network, linear_network

import pineat_tf as pt
from pineat_tf.companions import NaturalCompanions, RandomCompanions, ReverseSymmetry, ScaledNoise
from pineat_tf.perturbations import AWP

PGD = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)


def trained(network, images, labels, *, rate=0.1, optimizer=None, epochs=1, jit=False, fit=None, **options):
    model = pt.AdversarialTraining(network, **{"attack": PGD, "seed": 3, **options})
    model.compile(optimizer=optimizer or keras.optimizers.SGD(rate), jit_compile=jit)
    model.fit(images, labels, batch_size=4, epochs=epochs, shuffle=False, verbose=0, **(fit or {}))
    return model


# ---------------------------------------------------------------- adversarial weight perturbation


def test_two_weights_by_hand():
    """z = (w1 x, w2 x), w = (1, 1), x = 1, class 0: p = 1/2, g = (-1/2, 1/2), v = gamma sqrt(2) (-1, 1) / sqrt(2).

    At w + v = (1/2, 3/2) the gradient is (-q, q), q = e^1.5 / (e^.5 + e^1.5) = .7311; a rate of 1 leads from w to
    (1 + q, 1 - q). The bias has rank 1: it is not moved before, though it is trained.
    """
    network = linear_network([[1.0, 1.0]], [0.0, 0.0])
    x, y = np.ones((4, 1), np.float32), np.zeros(4, np.int64)
    options = {"attack": None, "companions": NaturalCompanions(), "ratio": "0/1"}
    trained(network, x, y, rate=1.0, weight_perturbation=AWP(gamma=0.5), **options)
    q = np.exp(1.5) / (np.exp(0.5) + np.exp(1.5))
    kernel, bias = network.get_weights()
    np.testing.assert_allclose(kernel, [[1 + q, 1 - q]], rtol=1e-5)
    np.testing.assert_allclose(bias, [q, -q], rtol=1e-5)


def perturbed_step(weights, gradient_of, gamma, rate):
    """The rule in NumPy: the gradient is taken where kernels are moved along their gradients."""
    moved = [
        w + gamma * np.linalg.norm(w) * g / (np.linalg.norm(g) + 1e-20) if w.ndim > 1 else w
        for w, g in zip(weights, gradient_of(weights))
    ]
    return [w - rate * g for w, g in zip(weights, gradient_of(moved))]


def test_an_update_equals_its_twin(images, labels):
    rng = np.random.default_rng(4)
    start = [rng.normal(size=(16, 3)), rng.normal(size=3)]
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    network.set_weights([w.astype(np.float32) for w in start])

    def gradient_of(weights):
        model = oracles.LinearModel(*weights)
        slope = oracles.cross_entropy_gradient(labels, model.logits(images)) / len(labels)
        return model.parameter_gradients(images, slope)

    model = pt.AdversarialTraining(
        network, attack=None, companions=NaturalCompanions(), ratio="0/1", weight_perturbation=AWP(gamma=0.3)
    )
    model.compile(optimizer=keras.optimizers.SGD(0.5))
    model.fit(images, labels, batch_size=8, verbose=0)
    for found, expected in zip(network.get_weights(), perturbed_step(start, gradient_of, 0.3, 0.5)):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def normalised_network(policy="float32"):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Flatten(),
            layers.Dense(12, dtype=policy),
            layers.BatchNormalization(dtype=policy),
            layers.Dropout(0.3, seed=1, dtype=policy),
            layers.Dense(3, dtype=policy),
        ]
    )


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "float16"])
def test_without_a_learning_rate_the_weights_are_the_same_to_the_bit(images, labels, policy, jit):
    network = normalised_network(policy)
    before = [weight.numpy() for weight in network.trainable_weights]
    optimizer = keras.optimizers.SGD(0.0)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    options = {"companions": ReverseSymmetry(), "ratio": "1/1", "weight_perturbation": AWP(gamma=0.5)}
    model = trained(network, images, labels, optimizer=optimizer, jit=jit, **options)
    for weight, old in zip(network.trainable_weights, before):
        np.testing.assert_array_equal(weight.numpy(), old)
    assert np.isfinite(model.history.history["loss"]).all()


def test_batch_statistics_and_dropout_see_one_pass_an_update(images, labels):
    """The ascent leaves no trace: a perturbation that moves nothing trains as none does."""

    def nothing(weights, gradients, *, updates):
        return [None] * len(weights)

    states = []
    for perturbation in (None, nothing, AWP(gamma=0.3)):
        network = normalised_network()
        trained(network, images, labels, rate=0.0, weight_perturbation=perturbation, epochs=2)
        states.append([variable.numpy() for variable in network.variables])
    for plain, same, moved in zip(*states):
        np.testing.assert_array_equal(plain, same)
        assert plain.dtype != np.float32 or np.isfinite(moved).all()
    assert any((plain != moved).any() for plain, _, moved in zip(*states))  # statistics of the second pass


def test_a_scaled_loss_that_overflows_leaves_statistics_whole(images, labels):
    network = normalised_network("mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**40)
    trained(network, images, labels, optimizer=optimizer, weight_perturbation=AWP(gamma=0.1), epochs=2)
    assert all(np.isfinite(variable.numpy()).all() for variable in network.variables)


def test_it_begins_after_the_warm_up(images, labels):
    weights = []
    for perturbation in (None, AWP(gamma=0.5, begin=2), AWP(gamma=0.5, begin=1)):  # two updates
        keras.utils.set_random_seed(0)
        network = dense_network()
        trained(network, images, labels, weight_perturbation=perturbation)
        weights.append(np.concatenate([w.ravel() for w in network.get_weights()]))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[0] - weights[2]).max() > 1e-4


@pytest.mark.parametrize("kind", [pt.AdversarialTraining, pt.SelfDistilledTraining])
def test_a_trainer_comes_back_from_its_file(tmp_path, images, labels, kind):
    options = {"weight_perturbation": AWP(gamma=0.02, begin=1), "ramp": (1, 5), "companions": ReverseSymmetry()}
    model = kind(dense_network(), attack=PGD, ratio="1/1", seed=0, companion_objective=pt.objectives.CrossEntropy(),
                 **options)  # fmt: skip
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    model.fit(images, labels, batch_size=4, verbose=0)
    model.save(tmp_path / "trainer.keras")
    again = keras.models.load_model(tmp_path / "trainer.keras")
    assert (again.weight_perturbation, again.ramp) == (AWP(gamma=0.02, begin=1), (1, 5))
    assert again.companion_objective == pt.objectives.CrossEntropy()
    for trainer in (model, again):
        trainer.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
    for one, other in zip(model.network.get_weights(), again.network.get_weights()):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gamma": 0.0}, "gamma"),
        ({"begin": -1}, "begin"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        AWP(**options)


def test_what_is_no_perturbation_is_refused(images, labels):
    with pytest.raises(ValueError, match="weight_perturbation.*AWP"):
        pt.AdversarialTraining(dense_network(), attack=PGD, weight_perturbation=AWP)
    with pytest.raises(ValueError, match="one tensor, or None, a weight"):
        trained(dense_network(), images, labels, weight_perturbation=lambda weights, gradients, *, updates: [])
    for name, value in {"weight_perturbation": AWP(), "ramp": (0, 2)}.items():
        with pytest.raises(ValueError, match=f"no room for `{name}`"):
            pt.FreeAdversarialTraining(dense_network(), epsilon=0.1, batch_size=4, **{name: value})


# ---------------------------------------------------------------- a radius that grows


def test_radius_steps_and_companions_grow(images, labels):
    """Of 4 rounds of 1/1 (updates 0, 2, 4, 6) with a ramp from 0 to 4: shares 0, 1/2, 1, 1."""
    seen = []

    class Watched(pt.AdversarialTraining):
        def update(self, kind, x_nat, x, y, sample_weight):
            seen.append((kind, float(tf.reduce_max(tf.abs(x - x_nat)))))
            return super().update(kind, x_nat, x, y, sample_weight)

    attack = pt.attacks.pgd(epsilon=0.2, step_size=0.2, num_steps=1, random_start=False, bounds=None)
    companions = RandomCompanions(bounds=None)
    model = Watched(dense_network(), attack=attack, companions=companions, ratio="1/1", ramp=(0, 4), seed=0)
    model.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(images, labels, batch_size=4, epochs=2, verbose=0)
    adversarial = [size for kind, size in seen if kind == "adversarial"]
    beside = [size for kind, size in seen if kind == "companion"]
    np.testing.assert_allclose(adversarial, [0.0, 0.1, 0.2, 0.2], atol=1e-6)
    for size, radius in zip(beside, [0.0, 0.1, 0.2, 0.2]):
        assert 0.8 * radius - 1e-6 <= size <= radius + 1e-6  # the largest of 64 uniform draws


@pytest.mark.parametrize("attack", [PGD, pt.attacks.pgd(epsilon=0.5, step_size=0.2, num_steps=2, norm="l2"),
                                    pt.attacks.trades_kl(epsilon=0.1, step_size=0.05, num_steps=2),
                                    pt.attacks.n_fgsm(epsilon=0.1)])  # fmt: skip
def test_after_the_ramp_training_is_as_without(images, labels, attack):
    weights = []
    for options in ({}, {"ramp": (0, 0)}, {"ramp": (0, 1000)}):
        keras.utils.set_random_seed(0)
        network = dense_network()
        trained(network, images, labels, attack=attack, companions=ReverseSymmetry(), ratio="1/1", **options)
        weights.append(network.get_weights()[0])
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)
    assert np.abs(weights[0] - weights[2]).max() > 1e-4


@pytest.mark.parametrize(
    "ramp, attack, message",
    [
        ((5, 2), PGD, "two rising"),
        ((0, 5), pt.attacks.dist(epsilon=0.1), "takes steps of a length"),
        ((0, 5), lambda logits_fn, x, y, *, seed: x, "takes steps of a length"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(ramp, attack, message):
    with pytest.raises(ValueError, match=message):
        pt.AdversarialTraining(dense_network(), attack=attack, ramp=ramp)


# ---------------------------------------------------------------- companions' objectives and labels


def test_companions_may_have_an_objective_and_labels_of_their_own(images, labels):
    """TRADES on the adversarial example, cross-entropy of its helper by the label of another network (HAT)."""
    keras.utils.set_random_seed(1)
    helper = dense_network()
    before = helper.get_weights()
    seen = []

    class Watched(pt.AdversarialTraining):
        def update(self, kind, x_nat, x, y, sample_weight):
            seen.append((kind, x.numpy(), y.numpy()))
            return super().update(kind, x_nat, x, y, sample_weight)

    losses = {}

    def recorded(name, objective):
        def call(logits_fn, x_nat, x, y):
            loss, logits = objective(logits_fn, x_nat, x, y)
            losses[name] = loss.numpy()
            return loss, logits

        return call

    model = Watched(
        dense_network(),
        attack=PGD,
        companions=ScaledNoise(scale=2.0, labels=helper),
        objective=recorded("adversarial", pt.objectives.Trades(beta=2.5)),
        companion_objective=recorded("companion", pt.objectives.CrossEntropy()),
        ratio="1/1",
        seed=0,
    )
    model.compile(optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
    model.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
    (_, x_adv, y), (_, beyond, given) = seen
    np.testing.assert_allclose(beyond, images + 2 * (x_adv - images), atol=1e-6)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(given, helper(x_adv).numpy().argmax(axis=1))
    assert (given != labels).any()
    logits = model.network(beyond).numpy()
    np.testing.assert_allclose(losses["companion"], oracles.cross_entropy(given, logits), rtol=1e-4)
    assert losses["adversarial"].shape == (8,)
    for one, other in zip(before, helper.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_the_helper_is_in_the_trainers_file_and_is_not_trained(tmp_path, images, labels):
    keras.utils.set_random_seed(1)
    helper = dense_network()
    model = trained(
        dense_network(), images, labels, companions=ScaledNoise(scale=(2.0, -1.0), labels=helper), ratio="1/2"
    )
    model.save(tmp_path / "trainer.keras")
    again = keras.models.load_model(tmp_path / "trainer.keras")
    assert again.companions.scale == (2.0, -1.0)
    for loaded in (model.labeller, again.labeller):
        for one, other in zip(helper.get_weights(), loaded.get_weights()):
            np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------- ScaledNoise


@pytest.mark.parametrize("keep_in_range", [False, True])
@pytest.mark.parametrize("norm, epsilon", [("linf", 0.1), ("l2", 0.3)])
@pytest.mark.parametrize("num", [1, 2])
def test_scale_minus_1_is_reverse_symmetry_to_the_bit(images, num, norm, epsilon, keep_in_range):
    noise = np.random.default_rng(5).uniform(-0.15, 0.15, size=(num, *images.shape)).astype(np.float32)
    adversarial = tuple(tf.constant(images + one) for one in noise)
    options = {"epsilon": epsilon, "norm": norm, "keep_in_range": keep_in_range}
    (mirrored,) = ReverseSymmetry(**options)(tf.constant(images), adversarial, num=1)
    (scaled,) = ScaledNoise(scale=-1, **options)(tf.constant(images), adversarial, num=1)
    np.testing.assert_array_equal(mirrored, scaled)


@pytest.mark.parametrize("scale", [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
def test_the_noise_is_scaled_and_clipped_to_the_scaled_ball(images, scale):
    noise = np.random.default_rng(5).uniform(-0.15, 0.15, size=images.shape).astype(np.float32)
    x = tf.constant(images)
    (found,) = ScaledNoise(scale=scale, epsilon=0.1)(x, (x + noise,), num=1)
    radius = 0.1 * abs(scale)
    np.testing.assert_allclose(found - images, np.clip(scale * noise, -radius, radius), atol=1e-6)
    (kept,) = ScaledNoise(scale=scale, epsilon=0.1, keep_in_range=True)(x, (x + noise,), num=1)
    np.testing.assert_allclose(kept, np.clip(found, 0.0, 1.0), atol=1e-6)


@pytest.mark.parametrize(
    "options, num, message",
    [
        ({"scale": 0.0}, 1, "other than 0"),
        ({"scale": ()}, 1, "other than 0"),
        ({"scale": "2"}, 1, "other than 0"),
        ({"labels": "false"}, 1, "labels"),
        ({"scale": 2.0}, 2, "Give as many"),
        ({"scale": (1.0, 2.0)}, 1, "Give as many"),
    ],
)
def test_bad_scales(images, options, num, message):
    x = tf.constant(images)
    with pytest.raises(ValueError, match=message):
        ScaledNoise(epsilon=0.1, **options)(x, (x + 0.1,), num=num)
