"""Networks from files of others: data are loaded, programs only where they are trusted, damage is one line."""

import io
import json
import os
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments import networks, stored

SHAPE = (8, 8, 3)
layers = keras.layers


def sequential(*parts):
    return keras.Sequential([layers.Input(SHAPE), *parts])


def plain():
    return sequential(
        layers.Rescaling(1 / 255),
        layers.Conv2D(2, 3, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm"),
        layers.BatchNormalization(),
        layers.LeakyReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation=keras.activations.softmax),
    )


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", ["plain", "fmnist_vgg", "wrn34"])
def test_plain_networks_need_no_trust(tmp_path, name, kind):
    options = {"input_shape": (32, 32, 3), "num_classes": 10, "width": 1, "precision": "mixed_bfloat16"}
    original = plain() if name == "plain" else networks.build(name, weight_decay=1e-4, **options)
    original.save(tmp_path / f"n.{kind}")
    loaded = stored.load_network(str(tmp_path / f"n.{kind}"))
    for weight, expected in zip(loaded.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_operations_of_keras_need_no_trust(tmp_path):
    inputs = keras.Input(SHAPE)
    outputs = layers.Dense(2)(layers.Flatten()(keras.ops.abs(inputs)[:, ::2] / 2.0))
    keras.Model(inputs, outputs).save(tmp_path / "n.keras")
    assert stored.load_network(str(tmp_path / "n.keras")).output_shape == (None, 2)


@keras.saving.register_keras_serializable(package="tests")
class OwnLayer(layers.Layer):
    def call(self, inputs):
        return inputs


PROGRAMS = {"Lambda": lambda: layers.Lambda(lambda x: 2 * x, output_shape=SHAPE), "OwnLayer": OwnLayer}


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("depth", [0, 1])
def test_a_program_is_loaded_only_if_it_is_trusted(tmp_path, kind, name, depth):
    part = PROGRAMS[name]()
    part = sequential(part) if depth else part
    path = str(tmp_path / f"n.{kind}")
    sequential(part, layers.Flatten(), layers.Dense(2)).save(path)
    with pytest.raises(ValueError, match=f"not plain layers of Keras: .*{name}'.*is a program.*Give --trust"):
        stored.load_network(path)
    assert stored.load_network(path, trust=True).output_shape == (None, 2)


def test_a_saved_model_is_a_program(tmp_path):
    plain().export(tmp_path / "n", verbose=False)
    with pytest.raises(ValueError, match="SavedModel, whose operations can read and write files.*--trust"):
        stored.load_network(str(tmp_path / "n"), image_shape=SHAPE)
    assert stored.load_network(str(tmp_path / "n"), image_shape=SHAPE, trust=True).output_shape == (None, 3)


def entry(module, name, config=None):
    return {"module": module, "class_name": name, "config": config or {}, "registered_name": None}


@pytest.mark.parametrize(
    "config",
    [
        entry("os", "system"),
        entry("builtins", "eval"),
        entry("keras.utils", "get_file"),
        entry("keras.config", "enable_unsafe_deserialization"),
        entry("keras.layers", "TFSMLayer"),
        entry("keras.src.layers.core.lambda_layer", "Lambda"),
        entry("keras.src.utils.file_utils", "get_file"),
        entry("builtins", "function", "print"),
        entry("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        entry(["keras"], "Dense"),
        entry("keras.layers", ["Dense"]),
        {"class_name": "__lambda__", "config": {"value": "x"}},
        {"class_name": "Lambda", "config": {}},
        entry("keras.layers", "Dense", {"kernel_initializer": entry("shutil", "rmtree")}),
    ],
)
def test_configs_that_name_code_are_seen_wherever_they_stand(tmp_path, config):
    path = tmp_path / "n.keras"
    rewrite(path, lambda _: json.dumps(entry("keras", "Sequential", {"layers": [{"a": [[config]]}]})))
    with pytest.raises(ValueError, match="not plain layers of Keras"):
        stored.load_network(str(path))


def rewrite(path, change, name="config.json"):
    """A .keras file with one member changed, or left out if the change gives None."""
    plain().save(path)
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    content = change(members.pop(name))
    with zipfile.ZipFile(path, "w") as archive:
        for member, old in members.items():
            archive.writestr(member, old)
        if content is not None:
            archive.writestr(name, content)


def external(content):
    """Weights of which one is in another file."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as weights:
        weights["away"] = h5py.ExternalLink("/etc/passwd", "/")
    return file.getvalue()


def huge(content):
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as weights:
        weights.create_dataset("huge", (1 << 40,), "float32", chunks=(1 << 20,), compression="gzip")
    return file.getvalue()


DAMAGE = {
    "deep": ("config.json", lambda _: "[" * 200_000 + "]" * 200_000, "config of a network.*nested too deeply"),
    "no json": ("config.json", lambda _: "{", "config of a network"),
    "no text": ("config.json", lambda _: b"\xff\xfe\xfa", "config of a network"),
    "a number": ("config.json", lambda _: "3", "config.json describes none"),
    "null": ("config.json", lambda _: "null", "config.json describes none"),
    "null inside": ("config.json", lambda c: json.dumps(json.loads(c) | {"config": None}), "describes none"),
    "deep inside": ("config.json", lambda c: '{"config":' * 900 + c.decode() + "}" * 900, "nested too deeply"),
    "no layers": (
        "config.json",
        lambda _: json.dumps(keras.saving.serialize_keras_object(keras.Sequential([]))),
        "cannot be used|no layers",
    ),
    "foreign": ("config.json", lambda c: c.replace(b'"units": 3', b'"units": "x"'), "cannot be used as a network"),
    "no config": ("config.json", lambda _: None, "lacks 'config.json'"),
    "no weights": ("model.weights.h5", lambda _: None, "lacks 'model.weights.h5'"),
    "empty weights": ("model.weights.h5", lambda _: b"", "could not be read"),
    "cut weights": ("model.weights.h5", lambda c: c[: len(c) // 2], "could not be read|is damaged"),
    "external": ("model.weights.h5", external, "has weights elsewhere"),
    "huge": ("model.weights.h5", huge, "states more than it can hold"),
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_networks_are_one_line(tmp_path, kind, trust):
    name, change, message = DAMAGE[kind]
    path = tmp_path / "n.keras"
    rewrite(path, change, name)
    with pytest.raises(ValueError, match=message) as error:
        stored.load_network(str(path), trust=trust)
    assert str(path) in str(error.value) and len(str(error.value)) < 2000


def test_files_that_are_no_networks(tmp_path):
    plain().save(tmp_path / "n.h5")
    for content in ((tmp_path / "n.h5").read_bytes()[:3000], b"", b"text"):
        (tmp_path / "cut.h5").write_bytes(content)
        (tmp_path / "cut.keras").write_bytes(content)
        for name in ("cut.h5", "cut.keras"):
            with pytest.raises(ValueError, match=name):
                stored.load_network(str(tmp_path / name))
    plain().save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(ValueError, match="not its weights alone"):
        stored.load_network(str(tmp_path / "only.weights.h5"))
    (tmp_path / "folder.keras").mkdir()
    for trust in (False, True):
        with pytest.raises(ValueError, match="is no network: a folder without saved_model.pb"):
            stored.load_network(str(tmp_path / "folder.keras"), trust=trust)
    for name in ("pipe.keras", "pipe.h5"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="not a regular file"):
            stored.load_network(str(tmp_path / name))


def test_a_saved_model_without_a_function_is_told(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="neither a function `serve`"):
        stored.load_network(str(tmp_path / "empty"), image_shape=SHAPE, trust=True)


def test_what_is_a_network(tmp_path):
    assert stored.is_network("a.keras") and stored.is_network("a.h5") and not stored.is_network("a.npz")
    assert not stored.is_network(str(tmp_path))
