"""The PyTorch twin on which AutoAttack's authors' code is run beside ours."""

import keras
import numpy as np
import pytest

import pineat_tf as pt
from experiments import networks, parity


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


def test_other_networks_are_refused():
    pytest.importorskip("torch")
    network = keras.Sequential([keras.layers.Input((4, 4, 1)), keras.layers.MaxPooling2D(), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="must be a fmnist_vgg"):
        parity.torch_twin(network)


def test_bad_command_lines_are_told(capsys):
    assert parity.main(["parity"]) == 2 and "give one network, not 0" in capsys.readouterr().err
    assert parity.main(["parity", "a.keras", "--epsilon=-1"]) == 2 and "positive" in capsys.readouterr().err
    assert parity.main(["parity", "--help"]) == 0 and "pyautoattack" in capsys.readouterr().out
