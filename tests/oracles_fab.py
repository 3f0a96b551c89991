"""NumPy twin of targeted FAB, in float64: one image after the other, and projections by bisection.

As in `oracles.py`, random numbers are arguments, labels are class indices and `bounds` is a pair or None.
Source: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
algorithm 1, as in the code they released.
"""

import numpy as np
from oracles import Array, Bounds, Model, clip_to_bounds


def length(noise: Array, norm: str) -> float:
    """Return the norm of one image's noise."""
    return float(np.linalg.norm(np.ravel(noise), ord=np.inf if norm == "linf" else 2))


def shift_to_plane(x: Array, offset: float, normal: Array, norm: str, bounds: Bounds) -> Array:
    """Return the shortest noise with offset + normal . noise = 0 within the bounds, for one image of any shape.

    Optimality: noise_i = sign_i min(t, room_i) for L-inf, sign_i min(t |normal_i|, room_i) for L2, where t is the one
    number that makes it reach the plane; sought by bisection.
    """
    sign = -np.sign(offset) * np.sign(normal)
    pace = np.abs(normal) if norm == "l2" else np.ones_like(normal)
    room = np.full(np.shape(x), np.inf) if bounds is None else np.where(sign > 0, bounds[1] - x, x - bounds[0])

    def noise(t):
        return sign * np.minimum(t * pace, room)

    smallest, largest = 0.0, 1.0
    while abs(normal.ravel() @ noise(largest).ravel()) < abs(offset) and largest < 1e12:
        largest *= 2
    for _ in range(200):
        middle = (smallest + largest) / 2
        if abs(normal.ravel() @ noise(middle).ravel()) < abs(offset):
            smallest = middle
        else:
            largest = middle
    return noise(largest)


def boundary(model: Model, x: Array, label: int, target: int) -> tuple[float, Array]:
    """Return how far the target's logit is above the label's, and the gradient of that."""
    logits, at_logits = model.logits(x[None])[0], np.zeros((1, model.logits(x[None]).shape[1]))
    at_logits[0, target], at_logits[0, label] = 1.0, -1.0
    return float(logits[target] - logits[label]), model.input_gradient(x[None], at_logits)[0]


def walk(model, x, label, target, start, num_steps, norm, alpha_max, eta, beta, bounds) -> list[Array]:
    """Return the misclassified points on the way."""
    here, wrong = start, []
    for _ in range(num_steps):
        lead, normal = boundary(model, here, label, target)
        of_x = lead + np.sum(normal * (x - here))
        from_here = shift_to_plane(here, lead, normal, norm, bounds)
        from_x = shift_to_plane(x, of_x, normal, norm, bounds)
        near, far = length(from_here, norm), length(from_x, norm)
        alpha = min(near / (near + far), alpha_max)
        here = clip_to_bounds((1 - alpha) * (here + eta * from_here) + alpha * (x + eta * from_x), bounds)
        if np.argmax(model.logits(here[None])[0]) != label:
            wrong.append(here)
            here = x + beta * (here - x)
    return wrong


def fab(model, x, y, directions, widest, num_targets, num_steps, norm, alpha_max, eta, beta, bounds):
    """Return the closest misclassified points and their distances.

    `directions` holds, for each restart, where each image starts from itself, of length 1 or 0. A restart starts at
    half the distance found so far, or half of `widest`.
    """
    points, distances = np.array(x, np.float64), np.full(len(x), np.inf)
    settings = num_steps, norm, alpha_max, eta, beta, bounds
    for i, (image, label) in enumerate(zip(np.asarray(x, np.float64), y)):
        order = np.argsort(model.logits(image[None])[0])[::-1]
        if order[0] != label:
            distances[i] = 0.0
            continue
        for direction in directions:
            for target in order[1 : num_targets + 1]:
                start = clip_to_bounds(image + min(distances[i], widest) / 2 * direction[i], bounds)
                for point in walk(model, image, label, target, start, *settings):
                    if length(point - image, norm) < distances[i]:
                        points[i], distances[i] = point, length(point - image, norm)
    return points, distances


def deepfool(model: Model, x: Array, label: int, num_steps: int, overshoot: float, bounds: Bounds) -> Array:
    """Return the first misclassified point of one image, or the image itself. Moosavi-Dezfooli et al., algorithm 2."""
    x = np.asarray(x, np.float64)
    order = np.argsort(model.logits(x[None])[0])[::-1][:10]
    here, noise = x, np.zeros_like(x)
    for _ in range(num_steps):
        if np.argmax(model.logits(here[None])[0]) != label:
            return here
        boundaries = [boundary(model, here, label, rival) for rival in order[1:]]
        lead, normal = min(boundaries, key=lambda each: abs(each[0]) / length(each[1], "l2"))
        noise = noise + shift_to_plane(here, lead, normal, "l2", bounds)
        here = clip_to_bounds(x + (1 + overshoot) * noise, bounds)
    return here if np.argmax(model.logits(here[None])[0]) != label else x
