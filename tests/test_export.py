"""Exports open where this project does not exist, and are whole or not there."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments import convert, networks
from experiments.export import check_available, export

READER = """
import json, pathlib, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pineat_tf", "experiments"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
for name in ("pineat_tf", "experiments"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported")

import keras, numpy as np, tensorflow as tf

root = pathlib.Path(sys.argv[1])
images = np.load(root / "images.npy")
policies = {}
for directory in sorted(path for path in root.iterdir() if path.is_dir()):
    network = keras.models.load_model(directory / "network.keras")
    policies[directory.name] = sorted({layer.dtype_policy.name for layer in network.layers[1:]})
    np.save(directory / "keras.npy", network(images, training=False))
    if (directory / "saved_model").exists():
        loaded = tf.saved_model.load(directory / "saved_model")
        np.save(directory / "saved_model.npy", loaded.serve(images))
(root / "policies.json").write_text(json.dumps(policies))
"""


NAMES = [name for name in networks.NAMES if name != "wrn32"]  # wrn8 has all its layers
SERVED = ("fmnist_vgg_diff", "wrn8")  # exported as SavedModels too: of each kind of layer one


def small(name, **options):
    return networks.build(name, input_shape=(8, 8, 3), num_classes=10, width=1, **options)


def randomize(network, seed=0):
    """No vector at 0 or 1, no kernel at 0: else batch norm were the identity and the Diff twin's logits 0."""
    rng = np.random.default_rng(seed)
    weights = [rng.uniform(0.5, 1.5, old.shape) if old.ndim == 1 else old for old in network.get_weights()]
    weights[-2] = rng.normal(0, 0.01, weights[-2].shape)  # of the logits, which are then about 1
    network.set_weights(weights)
    return network


def read_elsewhere(root):
    """Loads every export below `root` in a fresh, isolated interpreter."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-I", "-c", READER, str(root)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Every network exported, then opened by a reader without our code: (root, name -> logits here)."""
    root = tmp_path_factory.mktemp("exports")
    images = np.random.default_rng(0).uniform(size=(3, 8, 8, 3)).astype("float32")
    np.save(root / "images.npy", images)
    keras.utils.set_random_seed(0)  # of the kernels: by how much eager and graph round differently depends on the draw
    built = {name: small(name, activation="leaky_relu", weight_decay=2e-4, decay_all=True) for name in NAMES}
    built["mixed"] = small("wrn8", precision="mixed_bfloat16")
    for name, network in built.items():
        export(randomize(network), root / name, ("keras", "saved_model") if name in SERVED else ("keras",))
    logits = {name: np.asarray(network(images, training=False)) for name, network in built.items()}
    read_elsewhere(root)
    return root, logits


@pytest.mark.parametrize(
    "name, file_format", [*((name, "keras") for name in NAMES), *((name, "saved_model") for name in SERVED)]
)
def test_exports_give_the_same_logits_without_our_code(exports, name, file_format):
    root, logits = exports
    assert np.ptp(logits[name]) > 0.1
    np.testing.assert_allclose(np.load(root / name / f"{file_format}.npy"), logits[name], rtol=1e-6, atol=1e-6)


def test_exports_keep_the_precision(exports):
    root, logits = exports
    policies = json.loads((root / "policies.json").read_text())
    assert policies["mixed"] == ["float32", "mixed_bfloat16"]  # logits, the rest
    assert all(policies[name] == ["float32"] for name in NAMES)
    np.testing.assert_allclose(np.load(root / "mixed" / "keras.npy"), logits["mixed"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num, end", [(1, None), (1, "sigmoid"), (2, None), (2, "softmax"), (100, None)])
def test_heads_of_every_kind_give_the_same_outputs_when_they_are_loaded(tmp_path, num, end):
    head = keras.layers.Dense(num, activation=end)
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), head])
    images = np.random.default_rng(0).uniform(size=(3, 4, 4, 1)).astype("float32")
    keras_file, folder = export(network, tmp_path, ("keras", "saved_model"))
    expected = np.asarray(network(images))
    assert expected.shape == (3, num)
    np.testing.assert_allclose(keras.models.load_model(keras_file)(images), expected, rtol=1e-6)
    loaded = tf.saved_model.load(folder)
    np.testing.assert_allclose(loaded.serve(images), expected, rtol=1e-6)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_an_export_is_replaced_and_nothing_else_is_left(tmp_path):
    directory = tmp_path / "made" / "here"
    first, second = randomize(small("mlp"), seed=1), randomize(small("mlp"), seed=2)
    export(first, directory, ("keras", "saved_model"))
    (directory / "saved_model" / "old").touch()
    paths = export(second, str(directory), ["saved_model", "keras"])
    assert paths == [directory / "saved_model", directory / "network.keras"]
    assert names(directory) == ["network.keras", "saved_model"]
    assert not (directory / "saved_model" / "old").exists()
    loaded = keras.models.load_model(directory / "network.keras")
    for weight, expected in zip(loaded.get_weights(), second.get_weights()):
        np.testing.assert_array_equal(weight, expected)


def test_a_file_of_an_earlier_export_survives_a_failed_one(tmp_path, monkeypatch):
    def half(network, path, **options):
        pathlib.Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    (path,) = export(small("mlp"), tmp_path, ("keras",))
    before = path.read_bytes()
    monkeypatch.setattr(keras.Model, "save", half)
    with pytest.raises(OSError, match="No space left"):
        export(small("mlp"), tmp_path, ("keras",))
    assert path.read_bytes() == before and names(tmp_path) == [path.name]


def test_a_compiled_network_leaves_its_loss_and_optimizer_behind(tmp_path):
    class OurLoss(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(y_pred**2, axis=-1)

    network = randomize(small("small_cnn"))
    network.compile("adam", OurLoss())
    (path,) = export(network, tmp_path, ("keras",))
    loaded = keras.models.load_model(path)
    assert network.compiled and not loaded.compiled
    images = np.ones((2, 8, 8, 3), "float32")
    np.testing.assert_allclose(loaded(images), network(images), rtol=1e-6)


class OurLayer(keras.layers.Layer):
    """A layer that plain Keras does not know."""

    def call(self, x):
        return 2 * x


@pytest.mark.parametrize("layer", [OurLayer(), keras.layers.Lambda(lambda x: 2 * x)])
def test_keras_files_refuse_what_plain_keras_cannot_load(tmp_path, layer):
    network = keras.Sequential([keras.Input((2,)), layer])
    with pytest.raises(ValueError, match=type(layer).__name__):
        export(network, tmp_path / "refused", ("keras",))
    assert not (tmp_path / "refused").exists()
    assert export(network, tmp_path, ("saved_model",)) == [tmp_path / "saved_model"]


def test_keras_files_refuse_a_wrapper(tmp_path):
    class Wrapper(keras.Model):
        def __init__(self, network):
            super().__init__()
            self.network = network

    with pytest.raises(ValueError, match="give its `.network`"):
        export(Wrapper(small("mlp")), tmp_path, ("keras",))


@pytest.mark.parametrize("formats", ["keras", ("h5",), ("keras", "pickle")])
def test_unknown_formats(tmp_path, formats):
    with pytest.raises(ValueError, match="Received: formats="):
        export(small("mlp"), tmp_path / "refused", formats)
    assert not (tmp_path / "refused").exists()


def test_no_formats_write_nothing(tmp_path):
    assert export(small("mlp"), tmp_path, ()) == []
    assert names(tmp_path) == []


CONVERTED = {"onnx": 1e-5, "litert": 1e-5, "litert_int8": 0.3, "openvino": 1e-5}  # largest difference of logits


def run_converted(name, path, images):
    if name == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        return session.run(None, {session.get_inputs()[0].name: images})[0]
    if name == "openvino":
        exact = {"INFERENCE_PRECISION_HINT": "f32"}  # by default it computes in bfloat16 where that is faster
        return pytest.importorskip("openvino").Core().compile_model(path, "CPU", exact)(images)[0]
    interpreter = tf.lite.Interpreter(str(path))
    taken = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(taken, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken, images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.filterwarnings("ignore::UserWarning")  # of TensorFlow, of its interpreter
@pytest.mark.parametrize("name", CONVERTED)
def test_other_runtimes_give_the_same_logits(tmp_path, name):
    try:
        check_available([name])
    except ValueError as error:
        pytest.skip(str(error))
    network = randomize(small("small_cnn"))
    images = np.random.default_rng(0).uniform(size=(30, 8, 8, 3)).astype("float32")
    (path,) = export(network, tmp_path, [name], images=images)
    logits = np.asarray(network(images, training=False))
    found = run_converted(name, path, images)
    assert np.ptp(logits) > 1 and 0 <= np.abs(found - logits).max() < CONVERTED[name]
    assert (np.abs(found - logits).max() > 1e-3) == (name == "litert_int8")  # it is in 8 bits


def test_int8_needs_images(tmp_path):
    with pytest.raises(ValueError, match="`images` must be given"):
        export(small("mlp"), tmp_path, ["litert_int8"])


def test_what_is_not_installed_is_told_before_a_training(monkeypatch):
    monkeypatch.setattr("experiments.export.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--export=onnx needs Keras 3.8 and tf2onnx and onnx; .*Do: pip"):
        check_available(["keras", "onnx"])
    monkeypatch.setattr(keras, "__version__", "3.12.1")
    with pytest.raises(ValueError, match=r"--export=litert needs Keras 3.13; here is Keras 3.12.1\."):
        check_available(["litert"])
    check_available(["keras", "saved_model"])


def test_a_network_from_a_file_is_converted(tmp_path, capsys):
    network = small("mlp")
    (path,) = export(network, tmp_path, ["keras"])
    assert convert.main(["convert", str(path), "--formats=saved_model", f"--output_dir={tmp_path / 'there'}"]) == 0
    images = np.zeros((2, 8, 8, 3), np.float32)
    loaded = tf.saved_model.load(capsys.readouterr().out.strip())
    np.testing.assert_allclose(loaded.serve(images), network(images), rtol=1e-6, atol=1e-6)
    for wrong in ([], [str(path)], [str(path), "--formats=word"], [str(path), "--formats=litert_int8"]):
        assert convert.main(["convert", *wrong]) == 2
        assert capsys.readouterr().err.startswith("error: ")
