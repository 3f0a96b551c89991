"""Heads: one logit and sigmoids are served as [0, z], probabilities of several classes are refused, gates are not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from pineat_tf.checks import data_errors_as_value_errors
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


TOY_X = np.random.default_rng(1).uniform(size=(96, 4)).astype(np.float32)
TOY_X[:, 0] = np.where(TOY_X[:, 0] > 0.5, 0.3, -0.3) * (0.5 + TOY_X[:, 1]) + 0.5  # a gap around 0.5
TOY_Y = (TOY_X[:, 0] > 0.5).astype(np.float32)
LABELS = {
    "0. and 1.": TOY_Y,
    "column of 0. and 1.": TOY_Y[:, None],
    "numbers": TOY_Y.astype(int),
    "booleans": TOY_Y.astype(bool),
    "rows": np.eye(2, dtype=np.float32)[TOY_Y.astype(int)],
}
PGD = pt.attacks.pgd(epsilon=0.05, step_size=0.03, num_steps=2)
TRAINERS = {
    "adversarial": lambda network: pt.AdversarialTraining(network, attack=PGD),
    "pineat": lambda network: pt.AdversarialTraining(
        network, attack=PGD, companions=pt.companions.ReverseSymmetry(), ratio="1/1"
    ),
    "distilled": lambda network: pt.SelfDistilledTraining(network, attack=PGD),
    "free": lambda network: pt.FreeAdversarialTraining(network, epsilon=0.05, batch_size=32, ratio="2/0"),
}


def learnt(trainer, network, labels, **options):
    model = TRAINERS[trainer](network)
    model.compile(keras.optimizers.Adam(0.05), metrics=["accuracy"], **options)
    history = model.fit(
        TOY_X, labels, batch_size=32, epochs=15, shuffle=False, verbose=0, validation_data=(TOY_X, labels),
        validation_freq=15,
    )  # fmt: skip
    return model, history.history


def assert_learnt(model, history, labels, tolerance=1e-3):
    z = np.asarray(tf.cast(with_class_logits(lambda x: model.network(x, training=False))(TOY_X), tf.float32))
    accuracy = np.mean((z[:, 1] > z[:, 0]) == TOY_Y)
    loss = np.mean(np.logaddexp(0, np.where(TOY_Y == 1, z[:, 0] - z[:, 1], z[:, 1] - z[:, 0])))
    assert accuracy > 0.9 and history["accuracy"][-1] > 0.8
    assert history["val_accuracy"][-1] == pytest.approx(accuracy, abs=1e-6)
    result = model.evaluate(TOY_X, labels, verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert result["loss"] == pytest.approx(loss, abs=tolerance)


class TestTrainers:
    @pytest.mark.parametrize("kind", ["activation", "rank 1", "subclass", "float32 after half"])
    def test_every_kind_of_binary_head_learns(self, kind):
        model, history = learnt("adversarial", BINARY[kind](), TOY_Y)
        assert_learnt(model, history, TOY_Y, tolerance=1e-2 if "half" in kind else 1e-3)

    def test_labels_of_every_form_are_learnt_alike(self):
        trained = {}
        for form, labels in LABELS.items():
            model, history = learnt("adversarial", BINARY["rank 1 logit"](), labels)
            assert_learnt(model, history, labels)
            trained[form] = model.network.get_weights()
        for weights in trained.values():
            for weight, expected in zip(weights, trained["numbers"], strict=True):
                np.testing.assert_allclose(weight, expected, atol=1e-5)

    @pytest.mark.parametrize("trainer", TRAINERS)
    def test_every_trainer_learns_and_its_files_bring_it_back(self, trainer, tmp_path):
        model, history = learnt(trainer, BINARY["rank 1 logit"](), TOY_Y)
        assert_learnt(model, history, TOY_Y)
        outputs = model.predict(TOY_X, verbose=0)
        model.save(tmp_path / "trainer.keras")
        loaded = keras.models.load_model(tmp_path / "trainer.keras")
        np.testing.assert_allclose(loaded.predict(TOY_X, verbose=0), outputs, atol=1e-6)
        expected = model.evaluate(TOY_X, TOY_Y, verbose=0, return_dict=True)
        assert loaded.evaluate(TOY_X, TOY_Y, verbose=0, return_dict=True) == pytest.approx(expected, abs=1e-6)
        if trainer == "pineat":
            model.export(tmp_path / "exported", verbose=False)
            exported = tf.saved_model.load(str(tmp_path / "exported"))
            np.testing.assert_allclose(exported.serve(TOY_X), outputs, atol=1e-6)

    @pytest.mark.parametrize("trainer", TRAINERS)
    def test_one_logit_trains_as_the_two_that_it_stands_for(self, trainer):
        """The same layers with [0, z] written out: the same weights."""
        z = dense(1)(inputs := keras.Input((4,)))
        two = keras.Model(inputs, keras.ops.concatenate([0.0 * z, z], axis=1))
        one = functional(dense(1))
        for network in (one, two):
            learnt(trainer, network, TOY_Y.astype(int))
        for weight, expected in zip(one.get_weights(), two.get_weights(), strict=True):
            np.testing.assert_allclose(weight, expected, atol=1e-5)
        assert np.abs(one.get_weights()[0] - KERNEL[:, :1]).max() > 0.1

    @pytest.mark.parametrize("labels", [2.0, 0.5, -1.0])
    def test_what_is_no_label_of_two_classes_is_refused_by_a_network_of_any_kind(self, labels):
        for kind in ("logit", "rank 1", "subclass"):
            model = TRAINERS["adversarial"](BINARY[kind]())
            model.compile("sgd")
            with pytest.raises(ValueError, match=r"must lie in 0 \.\. 1"):
                model.fit(TOY_X[:8], np.full(8, labels, np.float32), verbose=0)
            with pytest.raises(ValueError, match=r"must lie in 0 \.\. 1"), data_errors_as_value_errors():
                model.train_on_batch(TOY_X[:8], np.full(8, labels, np.float32))

    @pytest.mark.parametrize("kind", ["logit", "rank 1", "subclass"])
    def test_classes_beyond_the_networks_are_refused_where_no_array_was_checked(self, kind):
        model = TRAINERS["adversarial"](BINARY[kind]())
        model.compile("sgd")
        with pytest.raises(ValueError, match=r"0 \.\. 1"), data_errors_as_value_errors():
            model.train_on_batch(TOY_X[:8], np.arange(8))


def fit(network, x, y):
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.1, num_steps=1, bounds=None)
    model = pt.AdversarialTraining(network, attack=attack)
    model.compile("sgd")
    model.fit(x, y, verbose=0)
