"""Data in every structure, and labels in every form, at every entry point."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dense_network

import pineat_tf as pt
from pineat_tf.checks import check_labels
from pineat_tf.data import as_batches

X = np.random.default_rng(0).uniform(size=(8, 4, 4, 1)).astype(np.float32)
Y = np.arange(8) % 3
PGD = pt.attacks.pgd(epsilon=0.1, step_size=0.1, num_steps=1)
slices = tf.data.Dataset.from_tensor_slices


class Batched(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[3 * index : 3 * index + 3], Y[3 * index : 3 * index + 3]


class Loader:
    """What has nothing but passes and a length, like PyTorch's loaders."""

    def __init__(self, *batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


STRUCTURES = {
    "arrays": lambda: (X, Y),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "tensors": lambda: (tf.constant(X), tf.constant(Y)),
    "weights": lambda: (X, Y, np.ones(8)),
    "dictionary": lambda: {"image": X, "label": Y},
    "batched": lambda: slices((X, Y)).batch(3),
    "weighted": lambda: slices((X, Y, np.ones(8))).batch(3),
    "unbatched": lambda: slices((X, Y)),
    "one-hot, unbatched": lambda: slices((X, np.eye(3, dtype=np.float32)[Y])),
    "tfds": lambda: slices({"image": X, "label": Y, "id": Y}),
    "unknown size": lambda: tf.data.Dataset.from_generator(
        lambda: zip(X, Y), output_signature=(tf.TensorSpec((None, None, 1)), tf.TensorSpec((), tf.int64))
    ),
    "list of batches": lambda: [(X[:4], Y[:4]), (X[4:], Y[4:])],
    "PyDataset": lambda: Batched(),
    "loader of batches": lambda: Loader((X[:3], Y[:3]), (X[3:], Y[3:])),
    "loader of examples": lambda: Loader(*zip(X, Y)),
    "loader of dictionaries": lambda: Loader({"image": X, "label": Y}),
}
ONCE = {
    "generator": lambda: ((X[i : i + 2], Y[i : i + 2]) for i in range(0, 8, 2)),
    "generator of examples": lambda: zip(X, Y),
}


@pytest.fixture(scope="module")
def standing():
    """A network, its trainer at a rate of 0, its logits and its loss."""
    network = dense_network()
    model = pt.AdversarialTraining(network, attack=PGD)
    model.compile(keras.optimizers.SGD(0.0))
    return network, model, network(X).numpy(), model.evaluate(X, Y, verbose=0)


@pytest.mark.parametrize("kind", STRUCTURES | ONCE)
def test_every_structure_gives_the_same(kind, standing):
    data, (network, model, logits, loss) = (STRUCTURES | ONCE)[kind], standing
    predictions = pt.predict_logits(network, data(), batch_size=3)
    np.testing.assert_allclose(predictions.logits, logits, atol=1e-5)
    np.testing.assert_array_equal(predictions.labels, Y)
    assert len(pt.Predictor(network)(data(), batch_size=3, max_examples=5).labels) == 5
    history = model.fit(data(), validation_data=data(), verbose=0).history
    assert history["val_loss"][0] == pytest.approx(loss, rel=1e-4)
    if kind in ONCE:
        with pytest.raises(ValueError, match="passed over more than once"):
            pt.robustness(network, data(), PGD, epsilons=[0.1])
        with pytest.raises(ValueError, match="passed over more than once"):
            pt.callbacks.RobustValidation(data(), PGD)
    else:
        robust = pt.robustness(network, data(), PGD, epsilons=[0.1], check=False)
        assert robust.accuracies[0] == pytest.approx(predictions.accuracy)


def test_fit_iterates_a_loader_again_in_each_epoch():
    data, validation = Loader((X, Y, np.ones(8)), (X, Y, np.ones(8))), Loader((X, Y))
    model = pt.AdversarialTraining(dense_network(), attack=PGD)
    model.compile("sgd")
    model.fit(data, validation_data=validation, epochs=3, verbose=0)
    assert int(model.rounds) == 6
    assert (data.passes, validation.passes) == (3 + 1, 3 + 1)  # one of each to see the shapes


MIXED = [(X, Y), (X[:4, :3], Y[:4]), (X[4:, :3, :3], Y[4:])]
MIXED_STREAMS = {
    "loader": lambda: Loader(*MIXED),
    "dataset": lambda: tf.data.Dataset.from_generator(
        lambda: iter(MIXED), output_signature=(tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((None,), tf.int64))
    ),
}


@pytest.mark.parametrize("kind", MIXED_STREAMS)
def test_batches_of_different_sizes_are_served_where_the_network_leaves_the_size_open(kind):
    pooled = [keras.layers.Conv2D(3, 3), keras.layers.GlobalAveragePooling2D()]
    network, data = keras.Sequential([keras.Input((None, None, 1)), *pooled]), MIXED_STREAMS[kind]
    logits = np.concatenate([network(x) for x, _ in MIXED])
    predictions = pt.predict_logits(network, data())
    np.testing.assert_allclose(predictions.logits, logits, atol=1e-5)
    assert pt.robustness(network, data(), PGD, check=False).accuracies[0] == predictions.accuracy
    assert pt.evaluate(network, members=data(), non_members=data()).natural.train_accuracy == predictions.accuracy
    model = pt.AdversarialTraining(network, attack=PGD)
    model.compile("sgd")
    model.fit(data(), verbose=0)
    assert int(model.rounds) == 3


@pytest.mark.parametrize("kind", ["loader", "dataset", "generator"])
def test_examples_of_different_sizes_make_no_batch(kind):
    examples = [(X[0], Y[0]), (X[1, :3], Y[1])]
    signature = tf.TensorSpec((None, None, 1)), tf.TensorSpec((), tf.int64)
    data = {
        "loader": lambda: Loader(*examples),
        "dataset": lambda: tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature),
        "generator": lambda: iter(examples),
    }[kind]
    network = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalAveragePooling2D()])
    network.add(keras.layers.Dense(3))
    model = pt.AdversarialTraining(network, attack=PGD)
    model.compile("sgd")
    calls = [lambda: model.fit(data(), verbose=0), lambda: pt.predict_logits(network, data())]
    if kind != "generator":
        calls.append(lambda: pt.robustness(network, data(), PGD))
    for call in calls:
        with pytest.raises(ValueError, match="images of one batch must have one size"):
            call()


def test_fit_respects_weights():
    def trained(data):
        keras.utils.set_random_seed(0)
        model = pt.AdversarialTraining(dense_network(), attack=PGD)
        model.compile("sgd")
        model.fit(data, verbose=0)
        return model.network.get_weights()[0]

    alone, none = trained((X, Y, np.ones(8))), trained((X, Y, np.zeros(8)))
    np.testing.assert_array_equal(alone, trained((X, Y)))
    assert np.abs(alone - none).max() > 0


@pytest.mark.parametrize(
    "data, match",
    [
        (((X, X), Y), "several inputs"),
        (({"a": X, "b": X}, Y), "several inputs"),
        (slices(({"a": X}, Y)).batch(2), "several inputs"),
        ((X, {"a": Y, "b": Y}), "several outputs"),
        (slices((X, Y)).batch(2).repeat(), "never ends"),
        ((X,), "must be images and labels"),
        (X, "must be two arrays of equal length, images and labels"),
        ({"pixels": X}, "must be images and labels"),
        (([[[1.0]], [[1.0, 2.0]]], [0, 1]), "one size"),
        (([X[0], X[0, :2]], [0, 1]), "one array of images"),
        ((np.array([["a", "b"]] * 2), [0, 1]), "must be numbers"),
    ],
)
def test_what_is_not_served_is_said(data, match):
    with pytest.raises(ValueError, match=match):
        pt.predict_logits(dense_network(), data)


def test_whole_number_images():
    x = (X * 255).astype(np.uint8)
    layers = [keras.Input((4, 4, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    network = keras.Sequential(layers)
    expected = network.predict(x, verbose=0)
    np.testing.assert_allclose(pt.predict_logits(network, (x, Y)).logits, expected, atol=1e-5)
    attack = pt.attacks.pgd(epsilon=8, step_size=4, num_steps=2, bounds=(0, 255))
    assert pt.robustness(network, (x, Y), attack, epsilons=[8], check=False).epsilons == (0, 8)
    model = pt.AdversarialTraining(network, attack=attack)
    model.compile("sgd")
    model.fit(x, Y, verbose=0)
    calls = [
        lambda: pt.predict_logits(network, (x, Y), attack=PGD),
        lambda: pt.robustness(network, (x, Y), PGD, epsilons=[0.1]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"rescales its images itself.*bounds=\(0, 255\).*images / 255"):
            call()


WRONG = [
    np.ones((8, 3), np.float32),  # several a row
    np.zeros((8, 3), np.float32),
    255 * np.eye(3, dtype=np.uint8)[Y],
    np.float32([[-1, 1, 1]] * 8),
    np.full((8, 3), np.nan, np.float32),
    7 * np.random.default_rng(0).random((8, 3)),
    Y + 1,
    Y - 1,
    Y + 0.5,
    np.where(Y, Y.astype(np.float32), np.nan),
    np.where(Y, Y.astype(np.float32), np.inf),
    Y.astype(np.float32) + 1,
]


class TestLabels:
    @pytest.mark.parametrize(
        "num_classes, dtype",
        [
            (1, np.uint8),
            (1, np.float16),
            (2, np.int32),
            (3, np.int64),
            (3, np.float32),
            (100, np.uint8),
            (100, np.float64),
        ],
    )
    def test_forms_that_are_right(self, num_classes, dtype):
        network, classes = dense_network(num_classes=num_classes), max(2, num_classes)
        y = np.arange(8) % classes
        forms = {
            "numbers": y.astype(dtype),
            "column": y.astype(dtype)[:, None],
            "rows": np.eye(classes, dtype=dtype)[y],
        }
        for labels in forms.values():
            np.testing.assert_array_equal(pt.predict_logits(network, (X, labels)).labels, y)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
    def test_soft_labels_of_a_softmax_are_taken(self, dtype):
        soft = tf.cast(tf.nn.softmax(tf.random.stateless_normal((8, 1000), (0, 0))), dtype)
        assert check_labels(soft, 1000).shape == (8, 1000)

    @pytest.mark.parametrize("labels, jit_compile", [(y, False) for y in WRONG] + [(WRONG[i], True) for i in (0, 6, 9)])
    def test_others_are_refused_everywhere(self, labels, jit_compile):
        network = dense_network()
        model = pt.AdversarialTraining(network, attack=PGD)
        model.compile("sgd", jit_compile=jit_compile)
        batches = slices((X, labels)).batch(4)
        calls = [
            lambda: model.fit(X, labels, verbose=0),
            lambda: model.fit(batches, verbose=0),
            lambda: model.fit(X, Y, validation_data=(X, labels), verbose=0),
            lambda: model.evaluate(X, labels, verbose=0),
            lambda: pt.predict_logits(network, (X, labels)),
            lambda: pt.predict_logits(network, batches, attack=PGD),
            lambda: pt.evaluate(network, members=(X, labels), non_members=(X, Y)),
            lambda: pt.robustness(network, (X, labels), PGD, epsilons=[0.1]),
            lambda: pt.masking.check_network(network, X, labels, epsilon=0.1),
        ]
        before = network.get_weights()[0]
        for call in calls if not jit_compile else calls[:3]:
            with pytest.raises(ValueError, match="abels|class numbers"):
                call()
        np.testing.assert_array_equal(network.get_weights()[0], before)


def test_examples_are_told_from_batches_by_the_network_and_the_labels():
    flat = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    rows = np.eye(4, dtype=np.float32)
    soft = np.float32([[0.5, 0.5]] * 4)
    for network, data, shape in (
        (flat, slices((rows, soft)), (3, 4)),
        (flat, slices((rows, soft)).batch(2), (2, 4)),
        (None, slices((rows, [0, 1, 0, 1])), (3, 4)),
    ):
        assert next(iter(as_batches(data, 3, network=network)))[0].shape == shape


def test_a_network_without_trainable_weights_is_told_so():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model = pt.AdversarialTraining(network, attack=pt.attacks.fgsm(epsilon=0.1))
    network.trainable = False
    model.compile("sgd")
    with pytest.raises(ValueError, match="nothing to train"):
        model.fit(np.zeros((4, 4), np.float32), np.zeros(4, np.int64), verbose=0)
