"""Attackers beyond one threshold on one score: learned ones, by quantile regression, and by labels only."""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

import pineat_tf as pt
from experiments.datasets import Split
from pineat_tf import membership
from pineat_tf.membership import MembershipResult
from pineat_tf.report import markdown_table, rate_cell
from pineat_tf.statistics import Interval
from pineat_tf.types import Bounds

_NUM_BOOTSTRAP = 500
_FEWEST_MEMBERS = 15  # as cross-fitted attackers have it
_FEWEST_OTHERS = 100  # of which quantile regression learns on a half
_SHARES_OF_RADIUS = (0.125, 0.25, 0.5, 0.75, 1.0)


def audit(
    network: keras.Model,
    members: Split,
    non_members: Split,
    *,
    epsilon: float,
    norm: str,
    bounds: Bounds | None,
    seed: int = 0,
) -> Iterator[MembershipResult]:
    """Lets each attacker judge members and non-members by natural queries.

    Args:
        network: gives logits.
        members: what it was trained on.
        non_members: what it was not trained on; half of them are the population that quantile regression learns on.
        epsilon: how far label-only attackers go from an image, > 0, in the norm.
        norm: "linf" or "l2".
        bounds: the pixel range, or None for no limits.
        seed: of all attackers.

    Yields:
        A record for each, with 95 % bootstrap intervals and p-values.
    """
    network = pt.accelerate.compute_twin(network)
    predictions = [pt.predict_logits(network, tuple(split)) for split in (members, non_members)]
    for kind in ("logistic", "mlp"):
        scores = membership.cross_fitted_scores(*predictions, kind=kind, seed=seed)
        yield _record(f"{kind} (cross-fitted)", scores)
    yield _record("quantile regression", _by_quantiles(members, non_members, predictions, seed))
    for name, score in _label_only(network, epsilon, norm, bounds, seed).items():
        yield _record(name, [score(tuple(split)) for split in (members, non_members)])


def check_num(members: Split, non_members: Split) -> None:
    """Raises `ValueError` unless there are enough members and non-members for all attackers."""
    for name, split, fewest in (("members", members, _FEWEST_MEMBERS), ("non-members", non_members, _FEWEST_OTHERS)):
        if len(split.labels) < fewest:
            raise ValueError(
                f"--attackers needs at least {fewest} {name} to learn from. Received: {len(split.labels)}. Give more "
                "of them, or leave --attackers out."
            )


def table(results: Sequence[MembershipResult]) -> str:
    """The records as a Markdown table."""
    lines = [("attacker", "AUC", "TPR at 1 % FPR", "TPR at 0.1 % FPR", "p (AUC)")]
    for result in results:
        rates = [
            rate_cell(rate)
            if rate.tpr is None
            else _with_interval(rate.tpr, result.intervals[f"tpr_at_fpr_{rate.fpr:g}"])
            for rate in result.tpr_at_fpr
        ]
        auc = _with_interval(result.auc, result.intervals["auc"])
        lines.append((result.signal, auc, *rates[:2], f"{result.p_values['auc']:.3g}"))
    return markdown_table(lines)


def _record(name: str, scores: Sequence[np.ndarray]) -> MembershipResult:
    return membership.audit_scores(*scores, signal=name, queries="natural", num_bootstrap=_NUM_BOOTSTRAP)


def _by_quantiles(
    members: Split, non_members: Split, predictions: Sequence[pt.Predictions], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    of_members, of_non_members = predictions
    half = len(non_members.labels) // 2
    population, judged = (
        (
            Split(*(array[part] for array in non_members)),
            pt.Predictions(of_non_members.logits[part], of_non_members.labels[part]),
        )
        for part in (slice(half), slice(half, None))
    )
    features = membership.image_features(tuple(population[0]), tuple(members), tuple(judged[0]))
    return membership.quantile_regression_scores(population[1], of_members, judged[1], features=features, seed=seed)


def _label_only(
    network: keras.Model, epsilon: float, norm: str, bounds: Bounds | None, seed: int
) -> dict[str, Callable]:
    def attack_at(radius: float) -> Callable:
        return pt.attacks.pgd(epsilon=radius, step_size=radius / 4, num_steps=10, norm=norm, bounds=bounds)

    ball = pt.queries.RandomInBall(epsilon=2 * epsilon, norm=norm, bounds=bounds)
    radii = [2 * epsilon * share for share in _SHARES_OF_RADIUS]
    return {
        "labels only: noise": lambda data: membership.noise_scores(network, data, noise=ball, num_draws=16, seed=seed),
        "labels only: shifts and flips": lambda data: membership.augmentation_scores(network, data),
        "distance to the boundary (white-box)": lambda data: membership.boundary_distance_scores(
            network, data, attack_at=attack_at, radii=radii, seed=seed
        ),
    }


def _with_interval(value: float, interval: Interval) -> str:
    return f"{value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
