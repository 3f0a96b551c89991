"""NumPy twins of the methods of one gradient, in float64, as their authors' code does them: noise first, pixels last.

As in `oracles.py`, random numbers are arguments, labels are class indices and `bounds` is a pair or None.
"""

import numpy as np
from oracles import Array, Bounds, LinearModel, Model, cross_entropy_gradient, cross_entropy_input_gradient


def clip_noise(noise: Array, x: Array, bounds: Bounds) -> Array:
    """Clip noise so that x + noise stays in the pixel range."""
    return noise if bounds is None else np.clip(noise, bounds[0] - x, bounds[1] - x)


def fgsm_rs(model: Model, x: Array, y: Array, noise: Array, epsilon: float, step_size: float, bounds: Bounds) -> Array:
    """Step once from x + noise; clip the noise to the ball, then to the pixels.

    `noise` is uniform in the ball. Source: Wong, Rice and Kolter, ICLR 2020.
    """
    x = np.asarray(x, np.float64)
    noise = clip_noise(noise, x, bounds)
    noise = noise + step_size * np.sign(cross_entropy_input_gradient(model, x + noise, y))
    return x + clip_noise(np.clip(noise, -epsilon, epsilon), x, bounds)


def n_fgsm(model: Model, x: Array, y: Array, noise: Array, step_size: float, bounds: Bounds) -> Array:
    """Step once from x + noise; clip the noise to the pixels only.

    `noise` is uniform in k times the ball. Source: de Jorge et al., NeurIPS 2022.
    """
    x = np.asarray(x, np.float64)
    noise = clip_noise(noise, x, bounds)
    noise = noise + step_size * np.sign(cross_entropy_input_gradient(model, x + noise, y))
    return x + clip_noise(noise, x, bounds)


def free_replays(
    model: LinearModel,
    x: Array,
    y: Array,
    perturbation: Array,
    epsilon: float,
    step_size: float,
    replays: int,
    learning_rate: float,
    bounds: Bounds,
) -> tuple[LinearModel, Array, list[Array]]:
    """Return the model after plain SGD on the replays of a batch, the perturbation, and the images seen.

    Each replay takes both gradients at clip(x + perturbation); the clip passes none to pixels beyond the range.
    `perturbation` may have more rows than x: those keep their values. Source: Shafahi et al., NeurIPS 2019.
    """
    x, perturbation, rows, seen = np.asarray(x, np.float64), np.array(perturbation, np.float64), len(x), []
    for _ in range(replays):
        moved = x + perturbation[:rows]
        image = moved if bounds is None else np.clip(moved, *bounds)
        grad_logits = cross_entropy_gradient(y, model.logits(image)) / rows
        weights, bias = model.parameter_gradients(image, grad_logits)
        ascent = model.input_gradient(image, grad_logits) * (image == moved)
        model = LinearModel(model.weights - learning_rate * weights, model.bias - learning_rate * bias)
        perturbation[:rows] = np.clip(perturbation[:rows] + step_size * np.sign(ascent), -epsilon, epsilon)
        seen.append(image)
    return model, perturbation, seen
