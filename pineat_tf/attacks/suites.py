"""Ensembles of attacks, as `robustness` takes them: by name, what makes the attack of a radius."""

from collections.abc import Callable
from typing import Any

from pineat_tf.attacks.apgd import apgd
from pineat_tf.attacks.fab import fab
from pineat_tf.attacks.square import square
from pineat_tf.projections import Norm
from pineat_tf.types import Bounds

__all__ = ["auto_attack"]


def auto_attack(
    *,
    norm: str = "linf",
    num_steps: int = 100,
    num_queries: int = 5000,
    num_targets: int = 9,
    bounds: Bounds | None = (0.0, 1.0),
    data_format: str | None = None,
) -> dict[str, Callable[[float], Callable]]:
    """The standard version of AutoAttack: two forms of APGD, FAB and Square, each of what the others leave.

    Args:
        norm: "linf" or "l2".
        num_steps: of APGD and FAB, >= 1.
        num_queries: of Square, >= 1.
        num_targets: classes that APGD's and FAB's targeted forms try, the likeliest first, >= 1; all if there are
            fewer.
        bounds: the pixel range, or None for no limits.
        data_format: of the images, as `square` takes it.

    Returns:
        The ensemble for `robustness`: "apgd_ce", "apgd_t" (for 4 classes or more: its `min_classes`), "fab_t", "square"
        (for images with height and width: its `image_rank` is 4).

    Raises:
        ValueError: if the norm is unknown; other arguments are refuted when an attack is made.

    Example:
        >>> robustness(network, (x_test, y_test), auto_attack(), epsilons=[8 / 255]).accuracies

    Reference:
        Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, section 5 and its published code.
    """
    common: dict[str, Any] = {"norm": Norm.of(norm).name, "bounds": bounds}
    targeted: dict[str, Any] = {"num_targets": num_targets, "num_steps": num_steps}
    return {
        "apgd_ce": lambda epsilon: apgd(epsilon=epsilon, num_steps=num_steps, **common),
        "apgd_t": lambda epsilon: apgd(epsilon=epsilon, loss="dlr_targeted", **targeted, **common),
        "fab_t": lambda epsilon: fab(epsilon=epsilon, **targeted, **common),
        "square": lambda epsilon: square(epsilon=epsilon, num_queries=num_queries, data_format=data_format, **common),
    }
