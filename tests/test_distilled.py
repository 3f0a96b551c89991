"""Self-distillation: labels by hand, the teacher's weights, and what stays as it is without a teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import NUM_CLASSES, dense_network, linear_network

import pineat_tf as pt
from pineat_tf.companions import NaturalCompanions, ReverseSymmetry
from pineat_tf.objectives import CrossEntropy, Trades

PGD = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=3)
OPTIONS = {"attack": PGD, "companions": ReverseSymmetry(epsilon=0.1), "ratio": "1/1"}


def taught(network, learning_rate=0.5, run_eagerly=True, **options):
    model = pt.SelfDistilledTraining(network, **{**OPTIONS, **options})
    model.compile(optimizer=keras.optimizers.SGD(learning_rate), run_eagerly=run_eagerly)
    return model


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second))


def test_an_update_by_hand():
    # One pixel x = 0.5, class 0 of 2, W = [[1, -1]], b = 0. Without an attack (ratio 0/1) the logits are (0.5, -0.5):
    # p_1 = 1 / (1 + e) = 0.268941. The teacher is the network itself, so with share 0.5 the label of class 1 is
    # 0.134471, the gradient to the logits of class 1 is p_1 - 0.134471 = 0.134471, to w 0.5 of it, learning rate 1.
    network = linear_network([[1, -1]], [0, 0])
    options = {"attack": None, "ratio": "0/1", "companions": pt.companions.NaturalCompanions()}
    model = taught(network, learning_rate=1.0, share=0.5, **options)
    model.fit(np.float32([[0.5]]), np.array([0]), verbose=0)
    np.testing.assert_allclose(network.get_weights()[0], [[1.067235, -1.067235]], atol=1e-6)
    np.testing.assert_allclose(network.get_weights()[1], [0.134471, -0.134471], atol=1e-6)
    # After round 0 the momentum is min(0.99, 1 / 10).
    np.testing.assert_allclose(model.teacher.get_weights()[0][0, 0], 0.1 * 1 + 0.9 * 1.067235, atol=1e-6)


def test_the_momentum_warms_up_to_its_value(images, labels):
    model = taught(dense_network(), momentum=0.15, learning_rate=0.1)
    weights, teacher = [], []
    for _ in range(3):
        model.fit(images, labels, batch_size=8, verbose=0)
        weights.append(model.network.get_weights()[0])
        teacher.append(model.teacher.get_weights()[0])
    for i, momentum in ((1, 0.15), (2, 0.15)):  # 2 / 11 and 3 / 12 are above it
        np.testing.assert_allclose(teacher[i], momentum * teacher[i - 1] + (1 - momentum) * weights[i], atol=1e-6)


def test_without_a_share_it_is_plain_adversarial_training(images, labels):
    networks = [dense_network() for _ in range(2)]
    networks[1].set_weights(networks[0].get_weights())
    plain = pt.AdversarialTraining(networks[0], **OPTIONS)
    plain.compile(optimizer=keras.optimizers.SGD(0.5))
    for model in (plain, taught(networks[1], share=0.0, run_eagerly=False)):
        model.fit(images, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for first, second in zip(*(network.get_weights() for network in networks)):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_attacks_see_the_true_labels_and_one_hot_labels_train_alike(images, labels):
    seen = []

    def attack(logits_fn, x, y, *, seed):
        seen.append(y.numpy())
        return x

    results = []
    for y in (labels, np.eye(NUM_CLASSES)[labels]):
        keras.utils.set_random_seed(0)
        model = taught(dense_network(), attack=attack)
        model.fit(images, y, batch_size=8, shuffle=False, verbose=0)
        results.append(model.network.get_weights())
    np.testing.assert_array_equal(seen[0], labels)
    for first, second in zip(*results):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_the_teacher_is_not_trained_and_not_shipped(images, labels, tmp_path):
    model = taught(dense_network())
    assert len(model.trainable_variables) == len(model.network.trainable_variables)
    model.fit(images, labels, batch_size=8, verbose=0)
    model.network.save(tmp_path / "network.keras")
    assert same(keras.models.load_model(tmp_path / "network.keras").get_weights(), model.network.get_weights())
    assert not same(model.teacher.get_weights(), model.network.get_weights())


def test_the_whole_trainer_comes_back_from_a_file_and_goes_on_alike(images, labels, tmp_path):
    model = taught(dense_network(), share=0.3, momentum=0.9)
    model.fit(images, labels, batch_size=8, epochs=2, verbose=0)
    model.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    assert (loaded.share, loaded.momentum) == (0.3, 0.9)
    assert same(loaded.teacher.get_weights(), model.teacher.get_weights())
    loaded.run_eagerly = True
    for trainer in (model, loaded):
        trainer.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
    assert same(loaded.network.get_weights(), model.network.get_weights())


@pytest.mark.parametrize(
    "options, match",
    [
        ({"share": 1.0}, "`share` must be in"),
        ({"momentum": -0.1}, "`momentum` must be in"),
        ({"objective": Trades(beta=1.0)}, "must be the cross-entropy.*Trades"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        pt.SelfDistilledTraining(dense_network(), **{**OPTIONS, **options})


def test_a_network_without_weights_is_refused():
    network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"must know the shape.*keras.Input"):
        pt.SelfDistilledTraining(network, **OPTIONS)


def test_label_smoothing_comes_on_top(images, labels):
    model = taught(dense_network(), objective=CrossEntropy(label_smoothing=0.1))
    history = model.fit(tf.constant(images), tf.constant(labels), batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_weights_in_half_precision_are_refused_as_the_teacher_would_stand_still():
    layers = [keras.Input((4,)), keras.layers.Dense(2, dtype="bfloat16")]
    with pytest.raises(
        ValueError, match="Received: weights of dtype bfloat16. Build the network under the policy 'mixed_"
    ):
        taught(keras.Sequential(layers))


@pytest.mark.parametrize("steps", [None, 8])
def test_the_teacher_warms_up_by_rounds_whatever_the_optimizer_counts(steps, images, labels):
    # The network stays at w (rate 0) and the teacher starts from 0, so after three rounds it is at
    # (1 - 1/10 * 2/11 * 3/12) w, as the momentum of round r is (1 + r) / (10 + r) < 0.99.
    network = dense_network()
    model = pt.SelfDistilledTraining(network, attack=None, companions=NaturalCompanions(), ratio="0/1", momentum=0.99)
    model.compile(keras.optimizers.SGD(0.0, gradient_accumulation_steps=steps))
    model.teacher.set_weights([0 * weight for weight in network.get_weights()])
    model.fit(images[:6], labels[:6], batch_size=2, verbose=0)
    for average, weight in zip(model.teacher.get_weights(), network.get_weights()):
        np.testing.assert_allclose(average, (1 - 1 / 10 * 2 / 11 * 3 / 12) * weight, rtol=1e-5)
