"""Heads: one logit and sigmoids are served as [0, z], probabilities of several classes are refused, gates are not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from pineat_tf.heads import check_logits_head, class_logits, with_class_logits

X = np.random.default_rng(0).uniform(size=(8, 4)).astype(np.float32)
KERNEL = np.float32([[1, -2, 0.5, 1], [0.3, 1, -1, 0.5], [-2, 0.1, 1, 2], [0.7, 0.2, -0.4, 3]])


def dense(units, activation=None, dtype=None):
    layer = keras.layers.Dense(units, activation, dtype=dtype)
    layer.build((None, 4))
    layer.set_weights([KERNEL[:, :units], 0.1 * np.ones(units, np.float32)])
    return layer


def functional(*layers):
    inputs = outputs = keras.Input((4,))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


class Subclass(keras.Model):
    """A network whose gate is a sigmoid or softmax that is last among its layers, with a head or without."""

    def __init__(self, head, gate, last=None):
        super().__init__()
        self.head, self.gate, self.last = head, gate, last

    def call(self, inputs):
        outputs = self.head(inputs * self.gate(inputs))
        return self.last(outputs) if self.last else outputs


class Operation(keras.layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def hand_softmax(z):
    e = tf.exp(z - tf.reduce_max(z, axis=-1, keepdims=True))
    return e / tf.reduce_sum(e, axis=-1, keepdims=True)


def hand_sigmoid(z):
    return 1.0 / (1.0 + tf.exp(-z))


Z = X @ KERNEL[:, :1] + 0.1
BINARY = {
    "logit": lambda: functional(dense(1)),
    "activation": lambda: functional(dense(1, "sigmoid")),
    "layer": lambda: functional(dense(1), keras.layers.Activation("sigmoid")),
    "keras.ops": lambda: functional(dense(1), Operation(keras.ops.sigmoid)),
    "tf.sigmoid": lambda: functional(dense(1), Operation(tf.sigmoid)),
    "sequential": lambda: keras.Sequential([keras.Input((4,)), dense(1, "sigmoid")]),
    "nested": lambda: functional(functional(dense(1, "sigmoid"))),
    "rank 1": lambda: functional(dense(1, "sigmoid"), keras.layers.Reshape(())),
    "rank 1 logit": lambda: functional(dense(1), keras.layers.Reshape(())),
    "subclass": lambda: Subclass(dense(1), lambda x: 1.0, keras.ops.sigmoid),
    "list of one": lambda: keras.Model(inputs := keras.Input((4,)), [dense(1, "sigmoid")(inputs)]),
    "float32 after half": lambda: functional(
        dense(1, dtype="mixed_float16"), keras.layers.Activation("sigmoid", dtype="float32")
    ),
}
SOFTMAX = {
    "activation": lambda: functional(dense(3, "softmax")),
    "layer": lambda: functional(dense(3), keras.layers.Softmax()),
    "keras.ops": lambda: functional(dense(3), Operation(keras.ops.softmax)),
    "by hand": lambda: functional(dense(3), Operation(hand_softmax)),
    "nested": lambda: functional(functional(dense(3, "softmax"))),
    "subclass": lambda: Subclass(dense(3), lambda x: 1.0, hand_softmax),
    "sigmoids": lambda: functional(dense(3, "sigmoid")),
    "float32 after half": lambda: functional(
        dense(3, dtype="mixed_float16"), keras.layers.Activation("softmax", dtype="float32")
    ),
    "half": lambda: functional(dense(3, dtype="float16"), Operation(hand_softmax, dtype="float16")),
    "sigmoid by hand": lambda: functional(dense(1), Operation(hand_sigmoid)),
}
LOGITS = {
    "plain": lambda: functional(dense(3)),
    "log-softmax": lambda: functional(dense(3), Operation(tf.nn.log_softmax)),
    "sigmoid gate in a subclass": lambda: Subclass(dense(3), keras.layers.Dense(4, "sigmoid")),
    "softmax gate in a subclass": lambda: Subclass(dense(3), keras.layers.Dense(4, "softmax")),
    "zeros": lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="zeros")]),
    "identity": lambda: functional(dense(4), Operation(lambda x: x / tf.reduce_sum(x[:1]))),
}


class TestHeads:
    @pytest.mark.parametrize("kind", BINARY)
    def test_binary_heads_are_two_logits_everywhere(self, kind):
        network, half = BINARY[kind](), "half" in kind
        expected = np.concatenate([0 * Z, Z], axis=1)
        close = {"atol": 5e-3 if half else 1e-4}
        assert check_logits_head(network, X) == 2
        eager = with_class_logits(lambda x: network(x, training=False))
        np.testing.assert_allclose(eager(tf.constant(X)), expected, **close)
        np.testing.assert_allclose(tf.function(eager, autograph=False)(tf.constant(X)), expected, **close)
        labels = (Z[:, 0] > 0).astype(int)
        predictions = pt.predict_logits(network, (X, labels))
        np.testing.assert_allclose(predictions.logits, expected, **close)
        assert predictions.accuracy == 1.0

    def test_a_saturated_sigmoid_keeps_its_logit(self):
        network = functional(dense(1, "sigmoid"))
        network.layers[-1].set_weights([100 * KERNEL[:, :1], np.zeros(1)])
        logits = pt.predict_logits(network, (X, np.zeros(8, int))).logits
        np.testing.assert_allclose(logits[:, 1], 100 * X @ KERNEL[:, 0], rtol=1e-4)

    @pytest.mark.parametrize("kind", SOFTMAX)
    def test_probabilities_are_refused_everywhere(self, kind):
        data = X, np.arange(8) % 2
        calls = {
            "look": lambda network: check_logits_head(network, X),
            "predict": lambda network: pt.predict_logits(network, data),
            "fit": lambda network: fit(network, *data),
        }
        for call in calls.values():
            with pytest.raises(ValueError, match="must give logits, but its outputs are probabilities"):
                call(SOFTMAX[kind]())

    @pytest.mark.parametrize("kind", LOGITS)
    def test_logits_are_taken_whatever_is_inside(self, kind):
        network = LOGITS[kind]()
        assert check_logits_head(network, X) == network(X).shape[1]
        pt.predict_logits(network, (X[:1], np.zeros(1, int)))  # an image whose logits sum to 1
        fit(network, X, np.zeros(8, int))

    def test_other_outputs_are_refused(self):
        several = keras.Model(inputs := keras.Input((4,)), {"a": dense(3)(inputs), "b": dense(1)(inputs)})
        with pytest.raises(ValueError, match="must give one tensor.*dict"):
            check_logits_head(several, X)
        with pytest.raises(ValueError, match="must give one tensor.*list"):
            class_logits([tf.zeros((2, 3))] * 2)
        with pytest.raises(ValueError, match=r"outputs of shape \(8, 4, 3\)"):
            check_logits_head(functional(keras.layers.Reshape((4, 1)), keras.layers.Dense(3)), X)


def fit(network, x, y):
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.1, num_steps=1, bounds=None)
    model = pt.AdversarialTraining(network, attack=attack)
    model.compile("sgd")
    model.fit(x, y, verbose=0)
