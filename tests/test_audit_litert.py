"""LiteRT files are audited by their own predictions and the gradients of the network that they were made from."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from experiments import datasets, export
from experiments.audit import litert
from experiments.audit.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of TensorFlow, of its interpreter
DATA = ("--members=digits:train:60", "--non_members=digits:test:40", "--epsilon=0.1", "--steps=3")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network of the zoo with its int8 file: (network, path of network, path of int8)."""
    try:
        export.check_available(["litert_int8"])
    except ValueError as error:
        pytest.skip(str(error))
    network, folder = pt.zoo.load("digits/pineat-1-1"), tmp_path_factory.mktemp("int8")
    images = datasets.load("digits").train.images
    return network, *export.export(network, folder, ["keras", "litert_int8"], images=images)


def test_predictions_are_the_files_and_gradients_the_networks(made):
    network, _, path = made
    quantised = litert.load(str(path), network)
    images = tf.constant(datasets.load_source("digits:test:20").images)
    own, smooth = (np.asarray(one(images, training=False)) for one in (quantised, network))
    assert 1e-3 < np.abs(own - smooth).max() < 1
    gradients = []
    for one in (quantised, network):
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = one(images, training=False)
            weighted = tf.reduce_sum(logits * tf.range(10.0))
        gradients.append(tape.gradient(weighted, images))
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)


def test_the_command_says_by_which_gradients_it_attacked(made, tmp_path, capsys):
    _, source, path = made
    record = tmp_path / "audit.json"
    assert main(["audit", str(path), *DATA, f"--gradients_from={source}", "--trust", f"--json={record}"]) == 0
    figures = json.loads(record.read_text())
    assert figures["r_test"] < figures["a_test"] and "straight through" in " ".join(figures["notes"])
    assert "straight through" in capsys.readouterr().out


def test_such_a_file_needs_its_network_and_trust(made, capsys):
    _, source, path = made
    wrong = ([path], [path, f"--gradients_from={source}"], [path, "--trust"], [source, f"--gradients_from={source}"])
    for arguments in wrong:
        assert main(["audit", *map(str, arguments), *DATA]) == 2
        assert "give --gradients_from=NETWORK.keras and --trust" in capsys.readouterr().err


def test_what_is_no_such_file_is_told_in_one_line(made, tmp_path, capsys):
    _, source, _ = made
    damaged = tmp_path / "network.tflite"
    damaged.write_bytes(b"no network")
    assert main(["audit", str(damaged), *DATA, f"--gradients_from={source}", "--trust"]) == 2
    assert "cannot be used as a LiteRT network" in capsys.readouterr().err
    other = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match="unlike its source"):
        litert.load(str(made[2]), other)
