"""The legend of the library: the types that its signatures speak of, and the network behind what stands for it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import tensorflow as tf

__all__ = [
    "Attack",
    "Bounds",
    "Companions",
    "LogitsFn",
    "Objective",
    "PerExampleLoss",
    "Query",
    "Ratio",
    "Repeatable",
    "Seed",
    "TrainingLogits",
    "WeightPerturbation",
    "network_of",
]

Bounds: TypeAlias = tuple[float, float]
"""Smallest and largest valid pixel value, e.g. `(0.0, 1.0)`."""

LogitsFn: TypeAlias = Callable[[tf.Tensor], tf.Tensor]
"""Maps images `(batch, ...)` to logits `(batch, num_classes)`."""


@runtime_checkable
class TrainingLogits(Protocol):
    """What a trainer gives an objective as `logits_fn`: it maps images to logits, and says more of itself.

    Attributes:
        network: the network in training, for objectives that look into its layers.
        updates: updates of the weights before this round, int64, for schedules.
        state: variables that the trainer keeps for an objective, by the names of its `initial_state()`, which gives an
            array each; the trainer's files hold them.
    """

    network: Any
    updates: tf.Tensor
    state: dict[str, Any]

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Maps images `(batch, ...)` to logits `(batch, num_classes)`, in training mode."""


PerExampleLoss: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Maps `(labels, logits)` to losses of shape `(batch,)`."""

Seed: TypeAlias = int | tuple[int, int] | tf.Tensor
"""A whole number, or two of them (shape `(2,)`): the whole of a draw's randomness."""


class Attack(Protocol):
    """Makes adversarial examples. A plain function is enough.

    An attack may say its threat model as well, by attributes `norm`, `epsilon` and `bounds`, which `threat.ThreatModel`
    reads, and the `num_steps` that it takes.
    """

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed) -> tf.Tensor:
        """Gives images like `x`: same shape and dtype, without gradient."""


@runtime_checkable
class Repeatable(Protocol):
    """An attack that would give the same example twice by the same weights, and knows others that do not."""

    def repeats(self, num: int) -> "tuple[Attack, ...]":
        """Gives `num` attacks that differ in where they start."""


class Objective(Protocol):
    """The loss of one update. A plain function is enough.

    `x` is the example that the update is about, an adversarial one or a companion of the natural image `x_nat`; in an
    update by the natural image it is `x_nat` itself, the same object.
    """

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Gives the loss of each example, shape `(batch,)`, and the logits of `x`."""


class WeightPerturbation(Protocol):
    """Moves the weights before the gradient of an update is taken. A plain function is enough."""

    def __call__(
        self, weights: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor | None], *, updates: tf.Tensor
    ) -> Sequence[tf.Tensor | None]:
        """Gives what to add to each weight, like it, or None."""


class Companions(Protocol):
    """Makes the examples beside the adversarial ones. A plain function is enough."""

    def __call__(
        self, x: tf.Tensor, adversarial: tuple[tf.Tensor, ...], *, num: int, seed: Seed
    ) -> Sequence[tf.Tensor]:
        """Gives `num` tensors like `x`, without gradient, or `x` itself."""


class Query(Protocol):
    """Makes what an attacker shows a network in place of an image: an attack by its signature."""

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed) -> tf.Tensor:
        """Gives images like `x`: same shape and dtype, without gradient."""


class Ratio(NamedTuple):
    """How many examples of each kind one training round uses (paper, section 3.3).

    Attributes:
        num_adversarial: n, adversarial examples a round.
        num_companions: m, companion examples a round.

    Example:
        >>> str(Ratio(num_adversarial=2, num_companions=1))
        '2/1'
    """

    num_adversarial: int
    num_companions: int

    @property
    def updates_per_round(self) -> int:
        """The number n + m: each example of a round is one update of the weights."""
        return self.num_adversarial + self.num_companions

    @classmethod
    def parse(cls, ratio: "str | tuple[int, int] | Ratio") -> "Ratio":
        """Reads `"n/m"` or `(n, m)`.

        Args:
            ratio: two whole numbers >= 0, not both 0.

        Returns:
            The ratio.

        Raises:
            ValueError: if it is anything else.

        Example:
            >>> Ratio.parse("1/4").updates_per_round
            5
        """
        parts = ratio.split("/") if isinstance(ratio, str) else ratio
        try:
            num_adversarial, num_companions = parts
            parsed = cls(int(num_adversarial), int(num_companions))
            valid = min(parsed) >= 0 and sum(parsed) >= 1 and list(parsed) == [float(p) for p in parts]
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(
                "`ratio` must be n/m with whole numbers n, m >= 0 that are not both 0. "
                f"Received: ratio={ratio!r}. Give e.g. '1/1' (one adversarial and one companion "
                "example a round), '1/0' for the original method or '0/1' for natural training."
            )
        return parsed

    def __str__(self) -> str:
        return f"{self.num_adversarial}/{self.num_companions}"


def network_of(network: Any) -> Any:
    """The network itself, where a trainer or a compute twin, which compute as it does, stands in its place.

    Example:
        >>> network_of(AdversarialTraining(network, attack=attack)) is network
        True
    """
    return network.network if getattr(type(network), "computes_as_its_network", False) else network
