"""Robust accuracy by our ensemble of attacks beside that of AutoAttack's authors, on one network and the same images.

    pip install torch pyautoattack
    python -m experiments.study.parity network.keras --images=fmnist:test:1000 --epsilon=0.1 --json=parity.json

The network is a `fmnist_vgg` of any width, as runs on Fashion-MNIST export it. Both sides compute in float32: ours with
Keras, theirs with a PyTorch twin that has the same weights. Interrupted, ours goes on from JSON.unfinished. A file that
holds other objects than Keras' own is a program, and loaded only with --trust.
"""

import importlib
import pathlib
import sys
import time
from typing import Any

import keras
import numpy as np
from absl import flags

import pineat_tf as pt
from experiments import command_line, files, networks, progress, stored
from experiments.datasets import Split, load_source
from pineat_tf.checks import check_positive

_BATCH_SIZE = 250
_IMAGE_SHAPE = (28, 28, 1)


def torch_twin(network: keras.Model) -> Any:
    """A PyTorch network of the same weights, from images `(batch, 1, 28, 28)` to logits.

    Args:
        network: a `fmnist_vgg`.

    Raises:
        ValueError: if it has other layers.
    """
    torch = _installed("torch")

    class ChannelsLast(torch.nn.Module):
        def forward(self, images):
            return images.permute(0, 2, 3, 1)

    layers = []
    for layer in network.layers:
        weights = [torch.from_numpy(weight) for weight in layer.get_weights()]
        if isinstance(layer, keras.layers.Conv2D) and len(weights) == 1:
            if layer.strides == (2, 2):  # TensorFlow pads an even side at its end only
                layers.append(torch.nn.ZeroPad2d((0, 1, 0, 1)))
            padding = 0 if layer.strides == (2, 2) else 1
            inner = torch.nn.Conv2d(*weights[0].shape[2:], 3, layer.strides, padding, bias=False)
            inner.weight.data = weights[0].permute(3, 2, 0, 1).contiguous()
        elif isinstance(layer, keras.layers.Dense):
            inner = torch.nn.Linear(*weights[0].shape)
            inner.weight.data, inner.bias.data = weights[0].T.contiguous(), weights[1]
        elif isinstance(layer, keras.layers.Flatten):
            layers.append(ChannelsLast())
            inner = torch.nn.Flatten()
        elif isinstance(layer, keras.layers.InputLayer):
            continue
        elif isinstance(layer, keras.layers.ReLU) or getattr(layer, "activation", None) is keras.activations.relu:
            inner = torch.nn.ReLU()
        else:
            raise ValueError(f"The network must be a fmnist_vgg. Received: a layer {layer.name!r} of {type(layer)}.")
        layers.append(inner)
        if getattr(layer, "activation", None) is keras.activations.relu and weights:
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers).eval()


def measure(network: keras.Model, data: Split, epsilon: float, state_path: str | None = None) -> dict:
    """Both sides' robust accuracies on the same images, and the seconds that they took.

    Args:
        network: a `fmnist_vgg`.
        data: images and labels.
        epsilon: radius of the L-inf ball.
        state_path: a file that keeps what ours has done, to go on from it; None for nowhere.

    Raises:
        ValueError: if the twin does not give the network's logits.
    """
    torch, pyautoattack = _installed("torch"), _installed("pyautoattack")
    twin = torch_twin(network)
    images, labels = torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(data.labels)
    with torch.no_grad():
        difference = float(np.abs(twin(images).numpy() - pt.predict_logits(network, tuple(data)).logits).max())
    if difference > 1e-3:
        raise ValueError(f"the PyTorch twin gives other logits, by up to {difference:.3g}")
    start = time.monotonic()
    with progress.bar(unit=" images", desc="our attacks", leave=False) as bar:

        def moved(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        attacks = pt.attacks.auto_attack()
        settings = dict(epsilons=[epsilon], batch_size=_BATCH_SIZE, state_path=state_path, on_batch=moved)
        ours = pt.robustness(network, tuple(data), attacks, **settings)
    seconds = {"ours": time.monotonic() - start}
    print(f"ours leaves {ours.accuracies[1]:.4f}; now the authors'", file=sys.stderr)
    start = time.monotonic()
    authors = pyautoattack.AutoAttack(twin, norm="Linf", eps=epsilon, version="standard", device="cpu", seed=0)
    attacked, _ = authors.run_standard_evaluation(images, labels, batch_size=_BATCH_SIZE)
    seconds["authors"] = time.monotonic() - start
    with torch.no_grad():
        theirs = float((twin(attacked).argmax(1) == labels).float().mean())
    return {
        "num": len(data.labels),
        "epsilon": epsilon,
        "natural": ours.accuracies[0],
        "ours": ours.accuracies[1],
        "authors": theirs,
        "difference": ours.accuracies[1] - theirs,
        "after_each_attack": ours.after_each_attack(epsilon),
        "warnings": list(ours.warnings),
        "largest_difference_of_logits": difference,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_string("images", "fmnist:test:1000", "Images and labels, as experiments.audit takes them.", **own)
    flags.DEFINE_string("json", "", "Write the figures to this file.", **own)
    flags.DEFINE_bool("trust", False, "Load a network that is a program too.", **own)
    command_line.define(values, "epsilon", 0.1, "Radius of the L-inf ball.")
    paths = command_line.arguments(values, argv, __doc__)
    if paths is None:
        return
    if len(paths) != 1:
        raise ValueError(f"give one network, not {len(paths)}. See --help.")
    check_positive("epsilon", values.epsilon, "It is a radius on the [0, 1] pixel scale.")
    state_path = values.json + ".unfinished" if values.json else None
    for path in filter(None, (values.json, state_path)):
        files.check_replaceable(path)  # rather now than after hours
    network = _in_float32(paths[0], trust=values.trust)
    figures = measure(network, load_source(values.images), values.epsilon, state_path)
    if values.json:
        files.write_json(values.json, figures)
        pathlib.Path(state_path).unlink(missing_ok=True)
    print(
        f"natural accuracy {figures['natural']:.4f} on {figures['num']:,} images; against the ensemble at "
        f"{values.epsilon:g}: ours {figures['ours']:.4f} in {figures['seconds']['ours']:.0f} s, the authors' "
        f"{figures['authors']:.4f} in {figures['seconds']['authors']:.0f} s"
    )


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"parity needs {name}: pip install torch pyautoattack") from None


def _in_float32(path: str, *, trust: bool = False) -> keras.Model:
    trained = stored.load_network(path, image_shape=_IMAGE_SHAPE, trust=trust)
    first = next((layer for layer in trained.layers if isinstance(layer, keras.layers.Conv2D)), None)
    if first is None:
        raise ValueError(f"{path!r} is no fmnist_vgg: it has no convolution. Give a network of experiments.run.")
    network = networks.build(
        "fmnist_vgg",
        input_shape=trained.input_shape[1:],
        num_classes=trained.output_shape[-1],
        width=first.filters // 16,
    )
    network.set_weights(trained.get_weights())
    return network


if __name__ == "__main__":
    sys.exit(main())
