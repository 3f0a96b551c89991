"""What other libraries reach at the work that `experiments.study.benchmark` times: PGD training and evaluation.

All of them are optional and run on one PyTorch network, the twin of `fmnist_vgg`. It is the fastest found that keeps to
public functions: kernels in channels-last order (they decide the layout of every convolution), convolutions' ReLU in
place, gradients to the images only while attacking, fused Adam, memory that is kept when freed, and in bfloat16 a
network cast as a whole with float32 master weights, which autocast would cast again in every pass of an attack. The
other libraries are called as their documentation calls them, so that work which they add of themselves counts:
gradients to the weights while attacking (ART, Foolbox, CleverHans), a prediction before and after each attack (ART).

Example:
    >>> update = peers()["pytorch"](Work(width=1, precision="float32"))  # doctest: +SKIP
    >>> update()  # doctest: +SKIP
"""

import collections
import ctypes
import dataclasses
import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.study.benchmark.work import NUM_CLASSES, SHAPE, Work, batch, is_installed

_CONVS = ((16, 1), (16, 1), (16, 2), (32, 1), (32, 1), (32, 2))  # (filters at width 1, stride)
_HIDDEN_UNITS = 200
_LEARNING_RATE = 1e-4

_Attack = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One batch, and what a library does with it at each call.

    Attributes:
        network: from images to logits.
        images: `(batch, 1, 28, 28)` in [0, 1].
        labels: classes `(batch,)`.
        attack: from images and labels to adversarial images.
        use: what happens to them: an update or a prediction.
    """

    network: "torch.nn.Module"
    images: Any
    labels: Any
    attack: _Attack
    use: Callable[[Any], Any]

    def __call__(self) -> None:
        """Attacks the batch and uses the result."""
        self.use(self.attack(self.images, self.labels))


_Maker = Callable[[Work], Job | None]


def _keep_freed_memory() -> None:
    """Lets glibc reuse large blocks instead of asking the system for fresh pages in every pass.

    It is what PyTorch's users get from preloading jemalloc or tcmalloc. TensorFlow in the same process gains nothing
    and loses nothing. Without glibc nothing happens.
    """
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def build_network(width: int) -> "torch.nn.Sequential":
    """The network in PyTorch, with float32 weights drawn from seed 0.

    A strided convolution here pads all round and in TensorFlow at the bottom and right only. As every side is even,
    the two give the same numbers for mirrored images and kernels: it is the same work.
    """
    torch.manual_seed(0)
    layers, channels = [], SHAPE[-1]
    for number, (filters, stride) in enumerate(_CONVS, start=1):
        conv = torch.nn.Conv2d(channels, filters * width, 3, stride, padding=1, bias=False)
        layers += [(f"conv{number}", conv), (f"conv{number}_activation", torch.nn.ReLU(inplace=True))]
        channels = filters * width
    layers += [("flatten", torch.nn.Flatten()), ("hidden", torch.nn.Linear(7 * 7 * channels, _HIDDEN_UNITS))]
    layers += [("hidden_activation", torch.nn.ReLU()), ("logits", torch.nn.Linear(_HIDDEN_UNITS, NUM_CLASSES))]
    network = torch.nn.Sequential(collections.OrderedDict(layers))
    return network.to(memory_format=torch.channels_last).eval()


def _cast(network: "torch.nn.Sequential") -> None:
    """Turns all layers but the logits to bfloat16; images and logits stay float32, as in `fmnist_vgg`."""
    for layer in network[:-1]:
        layer.to(torch.bfloat16)
    network[0].register_forward_pre_hook(lambda _, inputs: inputs[0].to(torch.bfloat16))
    network[-1].register_forward_pre_hook(lambda _, inputs: inputs[0].float())


def _mean_loss(network: "torch.nn.Module", images: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    return torch.nn.functional.cross_entropy(network(images), labels)


def _adam(network: "torch.nn.Module", masters: list, labels: "torch.Tensor", mean_loss: Callable) -> Callable:
    """An update of the network: Adam on the float32 masters, which are the weights themselves if those are float32."""
    weights = list(network.parameters())
    copies = [(weight, master) for weight, master in zip(weights, masters) if weight is not master]
    optimizer = torch.optim.Adam(masters, lr=_LEARNING_RATE, fused=True)

    def update(images):
        gradients = torch.autograd.grad(mean_loss(network, images, labels), weights)
        for master, gradient in zip(masters, gradients):
            master.grad = gradient.float()
        optimizer.step()
        with torch.no_grad():
            for weight, master in copies:
                weight.copy_(master)

    return update


def _classes(network: "torch.nn.Module", images: "torch.Tensor") -> "torch.Tensor":
    """The classes that the network sees in images."""
    with torch.no_grad():
        return network(images).argmax(1)


def _torch_job(make_attack: Callable[..., _Attack], work: Work, training: bool, compiled: bool = False) -> Job:
    """A job of a library that takes any PyTorch network as it is.

    Args:
        make_attack: `make_attack(network, work, random_start)`.
        work: what to do.
        training: whether to start at random and update the network, or to start at the images and predict. Then the
            labels are the network's own predictions: APGD leaves alone what is misclassified from the start.
        compiled: whether the update and the prediction are compiled.
    """
    _keep_freed_memory()
    compile_ = torch.compile if compiled else lambda function: function
    network = build_network(work.width)
    masters = list(network.parameters())
    if work.precision == "bfloat16":
        masters = [torch.nn.Parameter(weight.detach().clone()) for weight in masters]
        _cast(network)
    images, labels = map(torch.from_numpy, batch(work))
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    if training:
        use = _adam(network, masters, labels, compile_(_mean_loss))
    else:
        labels, use = _classes(network, images), functools.partial(_classes, compile_(network))
    return Job(network, images, labels, make_attack(network, work, training), use)


def _start(work: Work, images: "torch.Tensor", random_start: bool) -> tuple["torch.Tensor", ...]:
    """Where PGD starts, and the ends of the ball around images within [0, 1]."""
    low, high = (images - work.epsilon).clamp_(min=0), (images + work.epsilon).clamp_(max=1)
    if not random_start:
        return images, low, high
    noise = torch.empty_like(images).uniform_(-work.epsilon, work.epsilon)
    return noise.add_(images).clamp_(0, 1), low, high


def _pytorch(network: "torch.nn.Module", work: Work, random_start: bool) -> _Attack:
    """PGD by hand."""

    def attack(images, labels):
        x, low, high = _start(work, images, random_start)
        for _ in range(work.num_steps):
            x = x.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(network(x), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = x.detach().add(gradient.sign_(), alpha=work.step_size).clamp_(low, high)
        return x

    return attack


def _pytorch_compiled(network: "torch.nn.Module", work: Work, random_start: bool) -> _Attack:
    """PGD by hand, a step compiled as one graph: `torch.autograd.grad` would split it, `torch.func.grad` does not."""

    def summed_loss(x, labels):
        return torch.nn.functional.cross_entropy(network(x), labels, reduction="sum")

    @torch.compile
    def step(x, labels, low, high):
        gradient = torch.func.grad(summed_loss)(x, labels)
        return torch.clamp(x + work.step_size * gradient.sign(), low, high)

    @torch.no_grad()
    def attack(images, labels):
        x, low, high = _start(work, images, random_start)
        for _ in range(work.num_steps):
            x = step(x, labels, low, high)
        return x

    return attack


def _compiled_job(work: Work, training: bool) -> Job | None:
    """The compiled job, compiled by a first call, or None where that fails."""
    job = _torch_job(_pytorch_compiled, work, training, compiled=True)
    try:
        job()
    except Exception as error:  # whatever TorchInductor and its C++ compiler may raise
        logging.warning("PyTorch is not timed compiled, for torch.compile failed: %s", error)
        return None
    return job


def _art_job(work: Work, training: bool) -> Job | None:
    """The Adversarial Robustness Toolbox: what its `AdversarialTrainerMadryPGD` calls for a batch. float32 only."""
    if work.precision != "float32":
        return None
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    job = _torch_job(_pytorch, work, training)
    optimizer = torch.optim.Adam(job.network.parameters(), lr=_LEARNING_RATE)
    loss, shape = torch.nn.CrossEntropyLoss(), tuple(job.images.shape[1:])
    classifier = PyTorchClassifier(job.network, loss, shape, NUM_CLASSES, optimizer, clip_values=(0.0, 1.0))
    pgd = ProjectedGradientDescent(
        classifier,
        eps=work.epsilon,
        eps_step=work.step_size,
        max_iter=work.num_steps,
        num_random_init=int(training),
        batch_size=work.batch_size,
        verbose=False,
    )
    images, labels = job.images.numpy(), job.labels.numpy()
    if training:
        use = functools.partial(classifier.fit, y=labels, batch_size=work.batch_size, nb_epochs=1)
    else:
        use = functools.partial(classifier.predict, batch_size=work.batch_size)
    return Job(job.network, images, labels, pgd.generate, use)


def _foolbox(network: "torch.nn.Module", work: Work, random_start: bool) -> _Attack:
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    pgd = foolbox.attacks.LinfPGD(abs_stepsize=work.step_size, steps=work.num_steps, random_start=random_start)

    def attack(images, labels):
        return pgd.run(model, images, foolbox.criteria.Misclassification(labels), epsilon=work.epsilon)

    return attack


def _cleverhans(network: "torch.nn.Module", work: Work, random_start: bool) -> _Attack:
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    def attack(images, labels):
        settings = {"clip_min": 0.0, "clip_max": 1.0, "rand_init": random_start, "sanity_checks": False}
        x = projected_gradient_descent(
            network, images, work.epsilon, work.step_size, work.num_steps, np.inf, y=labels, **settings
        )
        return x.detach()

    return attack


def _torchattacks_apgd(network: "torch.nn.Module", work: Work, random_start: bool) -> _Attack:
    import torchattacks

    return torchattacks.APGD(network, norm="Linf", eps=work.epsilon, steps=work.num_steps, loss="ce")


def _pyautoattack_apgd(network: "torch.nn.Module", work: Work, random_start: bool) -> _Attack:
    from pyautoattack.autopgd_base import APGDAttack

    return APGDAttack(network, n_iter=work.num_steps, norm="Linf", eps=work.epsilon, loss="ce", device="cpu").perturb


# `maker(work, training)` of each. APGD starts at random: it is for evaluation only.
_PGD = {
    "pytorch": functools.partial(_torch_job, _pytorch),
    "pytorch compiled": _compiled_job,
    "art": _art_job,
    "foolbox": functools.partial(_torch_job, _foolbox),
    "cleverhans": functools.partial(_torch_job, _cleverhans),
}
_APGD = {
    "torchattacks apgd": functools.partial(_torch_job, _torchattacks_apgd),
    "pyautoattack apgd": functools.partial(_torch_job, _pyautoattack_apgd),
}


def _makers(makers: dict, training: bool) -> dict[str, _Maker]:
    return {name: functools.partial(maker, training=training) for name, maker in makers.items() if is_installed(name)}


def peers() -> dict[str, _Maker]:
    """The libraries at hand, for training.

    Returns:
        For each name a maker: `maker(work)` is a function that does one update of PGD adversarial training (random
        start, `num_steps` sign steps of cross-entropy, Adam on the adversarial batch), or None where the library
        cannot work in that precision.
    """
    return _makers(_PGD, training=True)


def evaluators() -> dict[str, _Maker]:
    """The libraries at hand, for evaluation.

    Returns:
        For each name a maker: `maker(work)` is a function that attacks the batch once and predicts the result, or
        None where the library cannot work in that precision. The attack is PGD from the images themselves; where the
        name ends in "apgd", it is APGD on cross-entropy, which evaluates `num_steps` + 1 gradients.
    """
    return _makers(_PGD | _APGD, training=False)
