"""NumPy twins of the library, in float64: slow, short, and without TensorFlow.

The twins share no code with `pineat_tf`. They take every random number as an
argument (a `start`, a `draw`, a `weight`), so a test can feed both sides the
same one. Labels are class indices, `bounds` is a pair `(low, high)` or None.
"Reading A7" and the like are the readings listed in docs/paper.md.
"""

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray
Bounds = tuple[float, float] | None
Gradient = Callable[[Array], Array]

NORM_FLOOR = 1e-12  # keeps the direction of a zero gradient at zero, not NaN


# Models


def flatten(x: Array) -> Array:
    """Give (batch, ...) as a float64 matrix (batch, features)."""
    x = np.asarray(x, np.float64)
    return x.reshape(len(x), -1)


class LinearModel:
    """Logits x W + b, for weights (features, classes) and bias (classes,)."""

    def __init__(self, weights: Array, bias: Array):
        self.weights = np.asarray(weights, np.float64)
        self.bias = np.asarray(bias, np.float64)

    def logits(self, x: Array) -> Array:
        """Return the logits, (batch, classes)."""
        return flatten(x) @ self.weights + self.bias

    def input_gradient(self, x: Array, grad_logits: Array) -> Array:
        """Pull a gradient on the logits back to x: grad W^T, in the shape of x."""
        return (grad_logits @ self.weights.T).reshape(np.shape(x))

    def parameter_gradients(self, x: Array, grad_logits: Array) -> tuple[Array, Array]:
        """Pull it back to (weights, bias): x^T grad, and grad summed over the batch."""
        return flatten(x).T @ grad_logits, grad_logits.sum(axis=0)


class TanhMLP:
    """Logits tanh(x W1 + b1) W2 + b2: a smooth model whose gradient turns with x."""

    def __init__(self, w1: Array, b1: Array, w2: Array, b2: Array):
        self.w1, self.b1 = np.asarray(w1, np.float64), np.asarray(b1, np.float64)
        self.w2, self.b2 = np.asarray(w2, np.float64), np.asarray(b2, np.float64)

    def hidden(self, x: Array) -> Array:
        """Return the hidden activations, (batch, units)."""
        return np.tanh(flatten(x) @ self.w1 + self.b1)

    def logits(self, x: Array) -> Array:
        """Return the logits, (batch, classes)."""
        return self.hidden(x) @ self.w2 + self.b2

    def input_gradient(self, x: Array, grad_logits: Array) -> Array:
        """Pull a gradient on the logits back to x, with tanh' = 1 - tanh^2."""
        grad_hidden = (grad_logits @ self.w2.T) * (1.0 - self.hidden(x) ** 2)
        return (grad_hidden @ self.w1.T).reshape(np.shape(x))


Model = LinearModel | TanhMLP


# Per-example losses: logits (batch, classes) in, (batch,) out


def log_softmax(logits: Array) -> Array:
    """Return log p, shifted by the largest logit so that exp cannot overflow."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits: Array) -> Array:
    """Return the probabilities."""
    return np.exp(log_softmax(logits))


def one_hot(labels: Array, num_classes: int) -> Array:
    """Return the rows of the identity that the labels pick."""
    return np.eye(num_classes)[np.asarray(labels)]


def cross_entropy(labels: Array, logits: Array) -> Array:
    """Return -log p_y."""
    return -log_softmax(logits)[np.arange(len(logits)), labels]


def cross_entropy_gradient(labels: Array, logits: Array) -> Array:
    """Return d CE / d logits = p - onehot(y)."""
    return softmax(logits) - one_hot(labels, np.shape(logits)[1])


def kl_divergence(natural_logits: Array, logits: Array) -> Array:
    """Return KL(p_nat || p) = sum_c p_nat (log p_nat - log p).

    Source: the robustness term of TRADES (Zhang et al., ICML 2019).
    """
    log_ratio = log_softmax(natural_logits) - log_softmax(logits)
    return np.sum(softmax(natural_logits) * log_ratio, axis=1)


def kl_gradient(natural_logits: Array, logits: Array) -> Array:
    """Return d KL / d logits = p - p_nat, the natural side held fixed."""
    return softmax(logits) - softmax(natural_logits)


def kl_natural_gradient(natural_logits: Array, logits: Array) -> Array:
    """Return d KL / d natural_logits = p_nat (log p_nat - log p - KL)."""
    log_ratio = log_softmax(natural_logits) - log_softmax(logits)
    divergence = kl_divergence(natural_logits, logits)[:, None]
    return softmax(natural_logits) * (log_ratio - divergence)


def margin(labels: Array, logits: Array) -> Array:
    """Return max_{j != y} z_j - z_y: positive exactly when misclassified."""
    logits = np.asarray(logits, np.float64)
    is_label = one_hot(labels, logits.shape[1]).astype(bool)
    best_other = np.where(is_label, -np.inf, logits).max(axis=1)
    return best_other - logits[is_label]


def dlr(labels: Array, logits: Array) -> Array:
    """Return the margin over z_pi1 - z_pi3, the first minus the third largest logit.

    Source: difference of logits ratio, Croce and Hein, ICML 2020. Undefined
    where the three largest logits are equal.
    """
    ordered = np.sort(np.asarray(logits, np.float64), axis=1)
    return margin(labels, logits) / (ordered[:, -1] - ordered[:, -3])


# Attacks


def clip_to_bounds(x: Array, bounds: Bounds) -> Array:
    """Clip to the pixel range, or change nothing when there is none."""
    return x if bounds is None else np.clip(x, *bounds)


def cross_entropy_input_gradient(model: Model, x: Array, y: Array) -> Array:
    """Return the gradient of the SUM of the cross-entropies with respect to x."""
    return model.input_gradient(x, cross_entropy_gradient(y, model.logits(x)))


def per_example_norm(x: Array) -> Array:
    """Return the L2 norm of each example, floored, ready to broadcast over x."""
    norm = np.sqrt(np.sum(flatten(x) ** 2, axis=1))
    return np.maximum(norm, NORM_FLOOR).reshape((-1,) + (1,) * (np.ndim(x) - 1))


def linf_sign_ascent(
    gradient: Gradient,
    x: Array,
    start: Array,
    epsilon: float,
    step_size: float,
    num_steps: int,
    bounds: Bounds,
) -> Array:
    """Take sign steps from `start`; after each, clip to the ball, then to bounds.

    The start itself is not clipped before its first gradient, as in the
    reference [20] of the paper.
    """
    x, adversarial = np.asarray(x, np.float64), np.asarray(start, np.float64)
    for _ in range(num_steps):
        adversarial = adversarial + step_size * np.sign(gradient(adversarial))
        adversarial = np.clip(adversarial, x - epsilon, x + epsilon)
        adversarial = clip_to_bounds(adversarial, bounds)
    return adversarial


def pgd_linf(
    model: Model,
    x: Array,
    y: Array,
    start: Array,
    epsilon: float,
    step_size: float,
    num_steps: int,
    bounds: Bounds,
) -> Array:
    """Run L-inf PGD on the cross-entropy (Madry et al., ICLR 2018)."""

    def gradient(z: Array) -> Array:
        return cross_entropy_input_gradient(model, z, y)

    return linf_sign_ascent(gradient, x, start, epsilon, step_size, num_steps, bounds)


def trades_kl(
    model: Model,
    x: Array,
    start: Array,
    epsilon: float,
    step_size: float,
    num_steps: int,
    bounds: Bounds,
) -> Array:
    """Run L-inf sign ascent on KL(f(x_nat) || f(x_adv)), labels unused.

    Source: inner maximisation of TRADES (Zhang et al., ICML 2019). From
    start = x the gradient is zero and nothing moves.
    """
    natural_logits = model.logits(x)

    def gradient(z: Array) -> Array:
        return model.input_gradient(z, kl_gradient(natural_logits, model.logits(z)))

    return linf_sign_ascent(gradient, x, start, epsilon, step_size, num_steps, bounds)


def pgd_l2(
    model: Model,
    x: Array,
    y: Array,
    start: Array,
    epsilon: float,
    step_size: float,
    num_steps: int,
    bounds: Bounds,
) -> Array:
    """Run L2 PGD: unit-gradient steps, projection on the ball, then the bounds.

    Source: Madry et al., ICLR 2018, with the L2 ball.
    """
    x, adversarial = np.asarray(x, np.float64), np.asarray(start, np.float64)
    for _ in range(num_steps):
        gradient = cross_entropy_input_gradient(model, adversarial, y)
        adversarial = adversarial + step_size * gradient / per_example_norm(gradient)
        noise = adversarial - x
        noise = noise * np.minimum(1.0, epsilon / per_example_norm(noise))
        adversarial = clip_to_bounds(x + noise, bounds)
    return adversarial


def dist(
    model: Model,
    x: Array,
    y: Array,
    start: Array,
    coefficient: float,
    num_steps: int,
    bounds: Bounds,
) -> Array:
    """Run the "Dist" attack of reference [20]: a gradient step, a constant pull back.

    The pull is the mean of |g| over the WHOLE batch, so examples are coupled,
    and no epsilon bounds the noise. Source: L-inf WRM of the paper's
    reference [20] (Song, Shokri and Mittal, CCS 2019).
    """
    x, adversarial = np.asarray(x, np.float64), np.asarray(start, np.float64)
    for _ in range(num_steps):
        gradient = coefficient * cross_entropy_input_gradient(model, adversarial, y)
        moved = adversarial + gradient
        pull = np.mean(np.abs(gradient)) * np.sign(moved - x)
        adversarial = clip_to_bounds(moved - pull, bounds)
    return adversarial


def wrm_l2(model: Model, x: Array, y: Array, gamma: float, num_steps: int) -> Array:
    """Ascend CE(z) - gamma ||z - x||^2 with steps 1/sqrt(t + 2), without clipping.

    With eps = 1/(2 gamma) the ascent direction is eps grad - (z - x), and the
    first point is x + eps grad. Source: Sinha, Namkoong and Duchi, ICLR 2018,
    as in the code they released.
    """
    x, eps = np.asarray(x, np.float64), 1.0 / (2.0 * gamma)
    adversarial = x + eps * cross_entropy_input_gradient(model, x, y)
    for t in range(num_steps):
        gradient = cross_entropy_input_gradient(model, adversarial, y)
        direction = eps * gradient - (adversarial - x)
        adversarial = adversarial + direction / np.sqrt(t + 2)
    return adversarial


# Companions


def aggregate_noise(x: Array, adversarial: Sequence[Array]) -> Array:
    """Return the SUM of the noises x_adv,i - x (section 3.3, figure 3)."""
    noise = np.zeros(np.shape(x))
    for example in adversarial:
        noise = noise + (np.asarray(example, np.float64) - x)
    return noise


def reverse_symmetry(
    x: Array,
    adversarial: Sequence[Array],
    draws: Sequence[Array],
    epsilon: float,
    bounds: Bounds = None,
    clip: bool = True,
    norm: str = "linf",
) -> tuple[Array, ...]:
    """Return x + d_j for each draw, then x + (-noise - sum_j d_j) projected on the ball.

    `clip=False` leaves the last one outside the ball; `bounds` clips all of
    them to the pixel range, after the last was computed from the draws as
    given. Source: section 3.3; readings A5, A6, A7 and A9 in docs/paper.md.
    """
    x = np.asarray(x, np.float64)
    draws = [np.asarray(draw, np.float64) for draw in draws]
    last = -aggregate_noise(x, adversarial)
    for draw in draws:
        last = last - draw
    if clip and norm == "l2":
        length = np.linalg.norm(flatten(last), axis=1)
        shrinkage = np.where(length > epsilon, epsilon / np.maximum(length, NORM_FLOOR), 1.0)
        last = last * shrinkage.reshape((-1,) + (1,) * (x.ndim - 1))
    elif clip:
        last = np.clip(last, -epsilon, epsilon)
    return tuple(clip_to_bounds(x + noise, bounds) for noise in [*draws, last])


def split(x: Array, adversarial: Sequence[Array], weights: Array, epsilon: float) -> tuple[Array, ...]:
    """Return x + clip(w_j (-noise)) for weights (m, batch) that sum to 1 over m.

    Source: figure 4 of the paper; reading A8 in docs/paper.md.
    """
    x = np.asarray(x, np.float64)
    noise = -aggregate_noise(x, adversarial)
    per_example = (-1,) + (1,) * (x.ndim - 1)
    shares = [np.reshape(weight, per_example) * noise for weight in weights]
    return tuple(x + np.clip(share, -epsilon, epsilon) for share in shares)


def random_companion(x: Array, draw: Array, bounds: Bounds) -> Array:
    """Return x + draw in the pixel range (AdvRan; reading A4 in docs/paper.md)."""
    return clip_to_bounds(np.asarray(x, np.float64) + draw, bounds)


# One training round on the linear model


def cross_entropy_parameter_gradients(model: LinearModel, x: Array, y: Array) -> tuple[Array, Array]:
    """Return d mean CE(x, y) / d (weights, bias)."""
    grad_logits = cross_entropy_gradient(y, model.logits(x)) / len(x)
    return model.parameter_gradients(x, grad_logits)


def trades_parameter_gradients(
    model: LinearModel,
    x_nat: Array,
    x: Array,
    y: Array,
    beta: float,
    detach_natural: bool,
) -> tuple[Array, Array]:
    """Return d mean [CE(x_nat, y) + beta KL(f(x_nat) || f(x))] / d (weights, bias).

    With `detach_natural` the KL term sends no gradient through f(x_nat).
    Source: TRADES (Zhang et al., ICML 2019); reading A2 in docs/paper.md.
    """
    natural_logits, logits = model.logits(x_nat), model.logits(x)
    on_natural = cross_entropy_gradient(y, natural_logits)
    if not detach_natural:
        on_natural = on_natural + beta * kl_natural_gradient(natural_logits, logits)
    on_x = beta * kl_gradient(natural_logits, logits)
    from_natural = model.parameter_gradients(x_nat, on_natural / len(x))
    from_x = model.parameter_gradients(x, on_x / len(x))
    return from_natural[0] + from_x[0], from_natural[1] + from_x[1]


def sgd_round(
    model: LinearModel,
    x: Array,
    y: Array,
    adversarial_fn: Callable[[LinearModel, Array, Array], Sequence[Array]],
    companions_fn: Callable[[Array, Sequence[Array]], Sequence[Array]],
    objective: str,
    learning_rate: float,
    *,
    beta: float = 1.0,
    detach_natural: bool = True,
) -> tuple[Array, Array]:
    """Return (weights, bias) after the n + m plain SGD updates of one round.

    Every adversarial example comes from the weights at the start of the round;
    then one update an example, adversarial before companions, each a mean over
    the batch. Source: figure 2; readings A1, A10 and A12 in docs/paper.md.
    """
    adversarial = tuple(adversarial_fn(model, x, y))
    for example in adversarial + tuple(companions_fn(x, adversarial)):
        if objective == "cross_entropy":
            gradients = cross_entropy_parameter_gradients(model, example, y)
        elif objective == "trades":
            gradients = trades_parameter_gradients(model, x, example, y, beta, detach_natural)
        else:
            raise ValueError(f"`objective` must be 'cross_entropy' or 'trades'. Received: objective={objective!r}.")
        model = LinearModel(
            model.weights - learning_rate * gradients[0],
            model.bias - learning_rate * gradients[1],
        )
    return model.weights, model.bias


# Membership: a larger score is more likely a member; ties are not broken


def rates(member: Array, non_member: Array, threshold: float) -> tuple[float, float]:
    """Return (TPR, FPR) of the rule "a member if and only if score >= threshold"."""
    true_positives = np.sum(np.asarray(member) >= threshold)
    false_positives = np.sum(np.asarray(non_member) >= threshold)
    return true_positives / len(member), false_positives / len(non_member)


def thresholds(member: Array, non_member: Array) -> list[float]:
    """Return every score seen once, and infinity, at which nobody is a member."""
    return [*np.unique(np.concatenate([member, non_member])), np.inf]


def best_threshold_accuracy(member_scores: Array, non_member_scores: Array) -> float:
    """Return the largest 0.5 (TPR + 1 - FPR) over the scores seen, at least 0.5.

    Source: membership inference accuracy of the paper's reference [20], with
    the threshold picked on the scored data; reading A16 in docs/paper.md.
    """
    best = 0.5
    for threshold in thresholds(member_scores, non_member_scores):
        tpr, fpr = rates(member_scores, non_member_scores, threshold)
        best = max(best, 0.5 * (tpr + 1 - fpr))
    return float(best)


def auc(member: Array, non_member: Array) -> float:
    """Return the share of (member, non-member) pairs ranked right, ties as 1/2.

    Source: Mann-Whitney's U over the number of pairs.
    """
    wins = sum(np.sum(score > np.asarray(non_member)) for score in member)
    ties = sum(np.sum(score == np.asarray(non_member)) for score in member)
    return float((wins + 0.5 * ties) / (len(member) * len(non_member)))


def tpr_at_fpr(member: Array, non_member: Array, fpr: float) -> float:
    """Return the largest TPR of a threshold whose FPR is at most `fpr`.

    Source: Carlini et al., S&P 2022; no interpolation between thresholds.
    """
    best = 0.0
    for threshold in thresholds(member, non_member):
        tpr, false_rate = rates(member, non_member, threshold)
        if false_rate <= fpr:
            best = max(best, tpr)
    return float(best)


def smallest_attainable_fpr(member: Array, non_member: Array) -> float:
    """Return the smallest non-zero FPR of a threshold.

    It is 1/len(non_member), times the non-members that tie at their top score:
    below it, a TPR at a fixed FPR is the TPR at FPR 0.
    """
    false_rates = [rates(member, non_member, threshold)[1] for threshold in thresholds(member, non_member)]
    return float(min(rate for rate in false_rates if rate > 0))
