"""The PyTorch twin on which AutoAttack's authors' code is run beside ours."""

import json

import keras
import numpy as np
import pytest

import pineat_tf as pt
from experiments import networks
from experiments.study import parity


@pytest.mark.parametrize("width", [1, 2])
def test_the_twin_gives_the_logits_of_the_network(width):
    torch = pytest.importorskip("torch")
    network = networks.build("fmnist_vgg", input_shape=(28, 28, 1), num_classes=10, width=width)
    for variable in network.trainable_variables:  # biases that are not 0
        variable.assign_add(0.01 * np.random.default_rng(1).normal(size=variable.shape))
    images = np.random.default_rng(0).random((5, 28, 28, 1), dtype=np.float32)
    with torch.no_grad():
        logits = parity.torch_twin(network)(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    expected = pt.predict_logits(network, (images, np.zeros(5, int))).logits
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def pgd_of_art(network, work, random_start):
    evasion = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")
    torch = pytest.importorskip("torch")
    loss = torch.nn.CrossEntropyLoss()
    options = {"loss": loss, "input_shape": (1, 28, 28), "nb_classes": 10, "clip_values": (0, 1)}
    pgd = evasion.ProjectedGradientDescent(
        classification.PyTorchClassifier(network, **options),
        eps=work.epsilon,
        eps_step=work.step_size,
        max_iter=work.num_steps,
        verbose=False,
    )
    return lambda images, labels: torch.from_numpy(pgd.generate(images.numpy(), y=labels.numpy()))


@pytest.mark.parametrize("library", ["torch", "foolbox", "cleverhans", "art"])
def test_our_pgd_gives_the_images_of_other_libraries(library):
    torch = pytest.importorskip("torch")
    pytest.importorskip(library)
    peers = pytest.importorskip("experiments.study.benchmark.peers")  # imports torch
    by_library = {"torch": peers._pytorch, "foolbox": peers._foolbox, "cleverhans": peers._cleverhans}
    network = networks.build("fmnist_vgg", input_shape=(28, 28, 1), num_classes=10, width=1)
    images = np.random.default_rng(0).random((8, 28, 28, 1), dtype=np.float32)
    labels = np.arange(8)
    work = peers.Work(width=1, precision="float32", batch_size=8, num_steps=4, epsilon=0.1, step_size=0.03)
    theirs = by_library.get(library, pgd_of_art)(parity.torch_twin(network), work, random_start=False)(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)
    )
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.03, num_steps=4, random_start=False)
    ours = attack(network, images, labels).numpy()
    difference = np.abs(ours - theirs.detach().permute(0, 2, 3, 1).numpy())
    # A gradient that is 0 but for rounding has either sign: such a pixel may go another way.
    assert np.mean(difference < 1e-6) > 0.999 and np.abs(ours - images).max() > 0.09


def test_both_sides_are_measured(tmp_path, capsys):
    pytest.importorskip("pyautoattack")
    keras.utils.set_random_seed(0)
    network = networks.build("fmnist_vgg", input_shape=(28, 28, 1), num_classes=10, width=1)
    images = np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32)
    labels = np.append(network.predict(images, verbose=0).argmax(-1)[:3], 0)  # the last may be wrong from the start
    network.save(tmp_path / "network.keras")
    np.savez(tmp_path / "images.npz", x=images, y=labels)
    arguments = [f"--images={tmp_path / 'images.npz'}", "--epsilon=0.5", f"--json={tmp_path / 'parity.json'}"]
    assert parity.main(["parity", str(tmp_path / "network.keras"), *arguments]) == 0
    figures = json.loads((tmp_path / "parity.json").read_text())
    assert figures["num"] == 4 and figures["ours"] == figures["authors"] == 0 < 0.75 <= figures["natural"]
    assert "ours 0.0000 in" in capsys.readouterr().out and not list(tmp_path.glob("*.unfinished"))


def test_other_networks_are_refused():
    pytest.importorskip("torch")
    network = keras.Sequential([keras.layers.Input((4, 4, 1)), keras.layers.MaxPooling2D(), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="must be a fmnist_vgg"):
        parity.torch_twin(network)


def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "b.json.unfinished").mkdir()
    for name in (".", "no/folder/a.json", "b.json", "x" * 300):
        assert parity.main(["parity", "no_such.keras", f"--json={tmp_path / name}"]) == 2
        assert "no_such.keras" not in capsys.readouterr().err


def test_bad_command_lines_are_told(capsys):
    assert parity.main(["parity"]) == 2 and "give one network, not 0" in capsys.readouterr().err
    assert parity.main(["parity", "a.keras", "--epsilon=-1"]) == 2 and "positive" in capsys.readouterr().err
    assert parity.main(["parity", "--help"]) == 0 and "pyautoattack" in capsys.readouterr().out


@keras.saving.register_keras_serializable(package="tests")
class Unchanged(keras.layers.Layer):
    """What plain Keras does not know."""

    def call(self, inputs):
        return inputs


def test_a_network_that_is_a_program_is_loaded_only_if_it_is_trusted(tmp_path, capsys):
    plain = networks.build("fmnist_vgg", input_shape=(28, 28, 1), num_classes=10, width=2)
    x = inputs = keras.Input((28, 28, 1))
    for layer in plain.layers[1:]:
        x = layer(x)
    path = str(tmp_path / "n.keras")
    keras.Model(inputs, Unchanged()(x)).save(path)
    assert parity.main(["parity", path]) == 2
    line = capsys.readouterr().err
    assert "Unchanged" in line and "Give --trust" in line and line.count("\n") == 1
    arguments = ["parity", path, "--trust", "--images=npz"]  # the network is taken: what is wrong now are the images
    assert parity.main(arguments) == 2 and "'npz' names no images" in capsys.readouterr().err
    for weight, expected in zip(parity._in_float32(path, trust=True).get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_what_is_no_fmnist_vgg_or_not_installed_is_told(tmp_path):
    network = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    network.save(tmp_path / "dense.keras")
    with pytest.raises(ValueError, match="it has no convolution"):
        parity._in_float32(str(tmp_path / "dense.keras"))
    with pytest.raises(ValueError, match="parity needs no_such_package: pip install"):
        parity._installed("no_such_package")
