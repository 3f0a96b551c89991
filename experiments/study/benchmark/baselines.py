"""Adversarial training and evaluation as one writes them by hand in TensorFlow: what a library must be faster than."""

from collections.abc import Callable

import keras
import tensorflow as tf

from experiments.study.benchmark.work import EVALUATION_STEP_SIZE, EVALUATION_STEPS, Work

EPSILON, STEP_SIZE, NUM_STEPS = Work.epsilon, Work.step_size, Work.num_steps


def _cross_entropy(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)


def _divergence(natural: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    target = tf.nn.log_softmax(natural)
    return tf.reduce_sum(tf.exp(target) * (target - tf.nn.log_softmax(logits)), axis=1)


def _gradient(loss: Callable, x_adv: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x_adv)
        total = tf.reduce_sum(loss(x_adv))
    return tape.gradient(total, x_adv)


def _sign_steps(loss: Callable, x: tf.Tensor, x_adv: tf.Tensor, num_steps: int, step_size: float) -> tf.Tensor:
    for _ in range(num_steps):
        x_adv = x_adv + step_size * tf.sign(_gradient(loss, x_adv))
        x_adv = tf.clip_by_value(tf.clip_by_value(x_adv, x - EPSILON, x + EPSILON), 0.0, 1.0)
    return x_adv


def _pgd(network: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    start = x + tf.random.uniform(tf.shape(x), -EPSILON, EPSILON)
    return _sign_steps(lambda x_adv: _cross_entropy(y, network(x_adv, training=False)), x, start, NUM_STEPS, STEP_SIZE)


def _dist(network: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    x_adv = x
    for _ in range(NUM_STEPS):
        gradient = _gradient(lambda x_adv: _cross_entropy(y, network(x_adv, training=False)), x_adv)
        moved = x_adv + gradient
        x_adv = tf.clip_by_value(moved - tf.reduce_mean(tf.abs(gradient)) * tf.sign(moved - x), 0.0, 1.0)
    return x_adv


def _diff(network: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    natural = network(x, training=False)
    start = x + tf.random.normal(tf.shape(x), stddev=0.001)
    return _sign_steps(
        lambda x_adv: _divergence(natural, network(x_adv, training=False)), x, start, NUM_STEPS, STEP_SIZE
    )


_ATTACKS = {"pgd": _pgd, "dist": _dist, "diff": _diff}


def training(network: keras.Model, attack: str, compiled: bool) -> Callable[[tf.Tensor, tf.Tensor], None]:
    """One update of adversarial training with Adam, as a `tf.function` or eagerly.

    Args:
        network: gives logits.
        attack: "pgd", "dist" or "diff" (TRADES, with its loss and the natural prediction detached).
        compiled: in a `tf.function`.

    Returns:
        What updates the network by a batch of images and labels.
    """
    optimizer = keras.optimizers.Adam(1e-4, epsilon=1e-10)
    optimizer.build(network.trainable_variables)

    def update(x: tf.Tensor, y: tf.Tensor) -> None:
        x_adv = _ATTACKS[attack](network, x, y)
        with tf.GradientTape() as tape:
            logits = network(x_adv, training=True)
            if attack == "diff":
                natural = network(x, training=True)
                loss = tf.reduce_mean(_cross_entropy(y, natural) + _divergence(tf.stop_gradient(natural), logits))
            else:
                loss = tf.reduce_mean(_cross_entropy(y, logits))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables))

    return tf.function(update, autograph=False) if compiled else update


def evaluation(network: keras.Model, compiled: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The logits of a batch under PGD without random start, as a `tf.function` or eagerly."""

    def predict(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        loss = lambda x_adv: _cross_entropy(y, network(x_adv, training=False))  # noqa: E731
        return network(_sign_steps(loss, x, x, EVALUATION_STEPS, EVALUATION_STEP_SIZE), training=False)

    return tf.function(predict, autograph=False) if compiled else predict
