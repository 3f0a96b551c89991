"""Metrics of `compile` for networks of one logit or one sigmoid: what they say is what Keras itself would."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.metrics import AUC, BinaryAccuracy

import pineat_tf as pt

X = np.random.default_rng(0).random((40, 4), dtype=np.float32)
Y = (X[:, 0] > 0.5).astype(np.int64)
ATTACK = pt.attacks.pgd(epsilon=0.02, step_size=0.01, num_steps=2)


class OwnSigmoid(keras.Model):
    """Ends in TensorFlow's sigmoid, of which eagerly nothing is to be seen, and knows no shape before it is called."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x, training=None):
        return tf.sigmoid(self.dense(x))


def stacked(activation=None):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation=activation)])


HEADS = {"logit": stacked, "sigmoid": lambda: stacked("sigmoid"), "tf.sigmoid in a subclass": OwnSigmoid}


def trained(head, labels=Y, **options):
    keras.utils.set_random_seed(0)
    network, threshold = HEADS[head](), 0.0 if head == "logit" else 0.5
    model = pt.AdversarialTraining(network, attack=ATTACK, companions=pt.companions.ReverseSymmetry(), ratio="1/1")
    metrics = ["accuracy", BinaryAccuracy("own", threshold=threshold), AUC(name="auc", from_logits=head == "logit")]
    model.compile(keras.optimizers.SGD(0.5), metrics=metrics, **options)
    history = model.fit(X, labels, validation_data=(X, labels), batch_size=20, shuffle=False, verbose=0).history
    return model, history


@pytest.mark.parametrize(
    "options", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=lambda o: "-".join(o) or "-"
)
@pytest.mark.parametrize("head", HEADS)
def test_accuracy_and_keras_own_metrics_agree_with_the_figures_by_hand(head, options):
    model, history = trained(head, **options)
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    outputs = model.network.predict(X, verbose=0)[:, 0]
    by_hand = np.mean((outputs > (0.0 if head == "logit" else 0.5)) == Y)
    assert 0.0 < by_hand < 1.0  # else any threshold would do
    assert logs["accuracy"] == logs["own"] == history["val_accuracy"][-1] == pytest.approx(by_hand)
    assert history["accuracy"] == history["own"]  # of the adversarial examples, while training
    auc = AUC(from_logits=head == "logit")
    auc.update_state(Y[:, None], outputs[:, None])
    assert logs["auc"] == pytest.approx(float(auc.result()), abs=1e-3)


def test_labels_in_a_column_and_in_rows_count_the_same():
    expected = trained("logit")[1]
    for labels in (Y.astype(np.float32)[:, None], np.eye(2, dtype=np.float32)[Y]):
        history = trained("logit", labels)[1]
        assert {name: pytest.approx(values, abs=1e-6) for name, values in expected.items()} == history


def test_eager_steps_invert_a_sigmoid_that_they_cannot_see_and_move_the_weights_alike():
    eager, graph = (trained("tf.sigmoid in a subclass", run_eagerly=eager)[0] for eager in (True, False))
    for one, other in zip(eager.network.get_weights(), graph.network.get_weights()):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_loaded_trainer_counts_on_and_another_compile_counts_what_it_says(tmp_path):
    model, _ = trained("sigmoid")
    model.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    expected = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert loaded.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(expected)
    model.compile("sgd", metrics=["binary_crossentropy"])
    assert set(model.evaluate(X, Y, verbose=0, return_dict=True)) == {"loss", "binary_crossentropy"}
