"""NumPy twin of APGD, in float64: one image after the other, with the whole history of losses at hand.

As in `oracles.py`, random numbers are arguments, labels are class indices and `bounds` is a pair or None.
Source: Croce and Hein, ICML 2020, algorithm 1, as in the code they released.
"""

import dataclasses

import numpy as np
from oracles import (
    Array,
    Bounds,
    Model,
    clip_to_bounds,
    cross_entropy,
    cross_entropy_gradient,
    margin,
    per_example_norm,
)

TINY = 1e-12


def dlr(label: int, logits: Array) -> float:
    """Return the difference of logits ratio of one row of logits."""
    ordered = np.sort(logits)
    return float(margin([label], logits[None])[0] / (ordered[-1] - ordered[-3] + TINY))


def dlr_gradient(label: int, logits: Array) -> Array:
    """Return d DLR / d logits: (e_other - e_y) / gap - DLR (e_1st - e_3rd) / gap."""
    order = np.argsort(logits)[::-1]
    gap = logits[order[0]] - logits[order[2]] + TINY
    gradient = np.zeros(len(logits))
    gradient[order[1] if order[0] == label else order[0]] += 1 / gap
    gradient[label] -= 1 / gap
    gradient[order[0]] -= dlr(label, logits) / gap
    gradient[order[2]] += dlr(label, logits) / gap
    return gradient


def dlr_targeted(label: int, target: int, logits: Array) -> float:
    """Return the targeted difference of logits ratio of one row of logits."""
    ordered = np.sort(logits)
    return float((logits[target] - logits[label]) / (ordered[-1] - (ordered[-3] + ordered[-4]) / 2 + TINY))


def dlr_targeted_gradient(label: int, target: int, logits: Array) -> Array:
    """Return d targeted DLR / d logits: (e_t - e_y) / gap - DLR (e_1st - e_3rd / 2 - e_4th / 2) / gap."""
    order = np.argsort(logits)[::-1]
    gap = logits[order[0]] - (logits[order[2]] + logits[order[3]]) / 2 + TINY
    gradient = np.zeros(len(logits))
    gradient[target] += 1 / gap
    gradient[label] -= 1 / gap
    for place, share in ((0, 1.0), (2, -0.5), (3, -0.5)):
        gradient[order[place]] -= share * dlr_targeted(label, target, logits) / gap
    return gradient


@dataclasses.dataclass
class Ascent:
    """What became of one image: its last misclassified point if any, its losses from the start on, its step sizes."""

    x_adv: Array | None
    losses: list
    step_sizes: list

    @property
    def hangs_on_rounding(self) -> bool:
        """Whether two losses are as good as equal, or a ratio of logits as good as 1, where it has no gradient.

        Then the order of losses, or the direction of the gradient, is up to the last digits.
        """
        gaps = np.diff(np.sort(self.losses))
        is_flat = np.abs(np.abs(self.losses) - 1.0) < 1e-11
        return bool(np.any((gaps > 0) & (gaps < 1e-11)) or np.any(is_flat))


def project(x_adv: Array, x: Array, epsilon: float, norm: str, bounds: Bounds) -> Array:
    """Bring one image back to the ball, then to the pixel range."""
    if norm == "linf":
        return clip_to_bounds(np.clip(x_adv, x - epsilon, x + epsilon), bounds)
    noise = x_adv - x
    return clip_to_bounds(x + noise * min(1.0, epsilon / per_example_norm(noise[None]).item()), bounds)


def checkpoints(num_steps: int) -> list[int]:
    """Return the steps after which the step size may halve; intervals shrink from 22 % by 3 % to 6 % of the steps."""
    interval, found = max(int(0.22 * num_steps), 1), [0]
    while found[-1] + interval <= num_steps:
        found.append(found[-1] + interval)
        interval = max(interval - max(int(0.03 * num_steps), 1), max(int(0.06 * num_steps), 1))
    return found


def ascend(
    model: Model,
    x: Array,
    label: int,
    start: Array,
    epsilon: float,
    num_steps: int,
    norm: str,
    loss: str,
    rho: float,
    bounds: Bounds,
    target: int | None = None,
) -> Ascent:
    """Run one start of APGD on one image."""

    def look(z):
        """Return loss and gradient at z, and remember z if it is misclassified."""
        nonlocal x_adv
        logits = model.logits(z[None])[0]
        x_adv = z if np.argmax(logits) != label else x_adv
        if loss == "dlr_targeted":
            value, at_logits = dlr_targeted(label, target, logits), dlr_targeted_gradient(label, target, logits)
        elif loss == "dlr":
            value, at_logits = dlr(label, logits), dlr_gradient(label, logits)
        else:
            value = cross_entropy([label], logits[None])[0]
            at_logits = cross_entropy_gradient([label], logits[None])[0]
        return value, model.input_gradient(z[None], at_logits[None])[0]

    x_adv, here = None, np.asarray(start, np.float64)
    value, gradient = look(here)
    best = {"x": here, "gradient": gradient, "loss": value}
    losses, step_sizes, before = [value], [], here
    step_size, best_then, halved_then, marks = 2 * epsilon, value, True, checkpoints(num_steps)
    for step in range(1, num_steps + 1):
        direction = np.sign(gradient) if norm == "linf" else gradient / per_example_norm(gradient[None])[0]
        there = project(here + step_size * direction, x, epsilon, norm, bounds)
        if step > 1:
            there = project(here + 0.75 * (there - here) + 0.25 * (here - before), x, epsilon, norm, bounds)
        before, here = here, there
        step_sizes.append(step_size)
        value, gradient = look(here)
        losses.append(value)
        if value > best["loss"]:
            best = {"x": here, "gradient": gradient, "loss": value}
        if step in marks:
            since = marks[marks.index(step) - 1]
            compared = [0.0, *losses[1:]]  # 0 in place of the start's loss, as in the authors' code
            increases = sum(compared[i] > compared[i - 1] for i in range(since + 1, step + 1))
            halve = increases <= rho * (step - since) or (not halved_then and best["loss"] == best_then)
            if halve:
                step_size, here, gradient = step_size / 2, best["x"], best["gradient"]
            best_then, halved_then = best["loss"], halve
    return Ascent(x_adv, losses, step_sizes)


def apgd(model: Model, x: Array, y: Array, starts: list[Array], *settings) -> tuple[Array, list[list[Ascent]]]:
    """Return what APGD gives back for a batch, and each image's ascents, of which only the last may have succeeded.

    `settings` are those of `ascend` from epsilon on. If the loss is targeted, `starts` are shared out evenly among the
    targets: the first of them go for the class of the second largest logit.
    """
    num_targets = np.shape(model.logits(x))[1] - 1
    x_adv, ascents = np.array(x, np.float64), [[] for _ in x]
    for i, (image, label) in enumerate(zip(np.asarray(x, np.float64), y)):
        order = np.argsort(model.logits(image[None])[0])[::-1]
        for index, start in enumerate(starts):
            target = int(order[1 + index * num_targets // len(starts)])
            ascents[i].append(ascend(model, image, label, start[i], *settings, target))
            if ascents[i][-1].x_adv is not None:
                x_adv[i] = ascents[i][-1].x_adv
                break
    return x_adv, ascents
