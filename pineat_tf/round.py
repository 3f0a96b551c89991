"""The paper's training round (section 3.3, Fig. 2): which examples it makes, and in which order the weights learn them.

A round is data, a tuple of steps, and `play` is what reads it. What a step does is given from outside: `generate` makes
an adversarial example by the weights as they are, `companions` all companions of the adversarial examples, and `update`
moves the weights by one example.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from pineat_tf.checks import can_be_called, check_attack, check_choice, check_objective
from pineat_tf.companions import NoCompanions
from pineat_tf.types import Ratio

__all__ = [
    "Step",
    "check_companions",
    "check_num_classes",
    "check_objectives",
    "check_strategies",
    "play",
    "schedule",
]


class Step(NamedTuple):
    """One step of a round.

    Attributes:
        action: "generate" makes an adversarial example; "adversarial" and "companion" are an update by such an example.
        index: of the example among those of its kind.
    """

    action: str
    index: int  # type: ignore[assignment]  # of a tuple, which has a method of this name


def schedule(ratio: Ratio, *, generation: str = "round", order: str = "adversarial") -> tuple[Step, ...]:
    """Lists the steps of a round: n examples to generate, n + m updates.

    Args:
        ratio: n/m.
        generation: "round" generates all examples by the weights at the round's start, "update" each before its update.
        order: "adversarial" updates come first, or those by "companions".

    Raises:
        ValueError: if it is another word, or companions are to come before the examples that they are made from.

    Example:
        >>> [f"{action} {index}" for action, index in schedule(Ratio(1, 2))]
        ['generate 0', 'adversarial 0', 'companion 0', 'companion 1']
    """
    check_choice("generation", generation, ("round", "update"))
    check_choice("order", order, ("adversarial", "companions"))
    if order == "companions" and generation == "update":
        raise ValueError(
            "Companions mirror adversarial examples, so those cannot wait for their own update if companions come "
            f"first. Received: order={order!r}, generation={generation!r}. Give generation='round'."
        )
    generated, adversarial, companions = (
        [Step(action, index) for index in range(num)]
        for action, num in zip(("generate", "adversarial", "companion"), (ratio.num_adversarial, *ratio))
    )
    if generation == "update":
        generated, adversarial = [], [step for pair in zip(generated, adversarial) for step in pair]
    return tuple(generated + (companions + adversarial if order == "companions" else adversarial + companions))


def play(
    steps: Sequence[Step],
    *,
    generate: Callable[[int], tf.Tensor],
    companions: Callable[[tuple[tf.Tensor, ...]], Sequence[tf.Tensor]],
    update: Callable[[str, tf.Tensor], tf.Tensor],
) -> list[tf.Tensor]:
    """Plays a round.

    Args:
        steps: those of `schedule`.
        generate: gives the i-th adversarial example.
        companions: gives all companions, from all adversarial examples.
        update: moves the weights by an example of the kind "adversarial" or "companion", and gives its logits.

    Returns:
        The logits of the examples, those of adversarial ones first.

    Raises:
        ValueError: if there are fewer or more companions than the round has room for.
    """
    num_companions = sum(step.action == "companion" for step in steps)
    adversarial: list[tf.Tensor] = []
    beside: Sequence[tf.Tensor] = ()
    logits: dict[str, list[tf.Tensor]] = {"adversarial": [], "companion": []}
    for action, index in steps:
        if action == "generate":
            adversarial.append(generate(index))
            continue
        if action == "companion" and not beside:
            beside = companions(tuple(adversarial))
            if len(beside) != num_companions:
                raise ValueError(
                    f"Companions must be as many as the ratio says, {num_companions}. Received: {len(beside)}. Give a "
                    "tuple of `num` tensors like `x`."
                )
        example = beside[index] if action == "companion" else adversarial[index]
        logits[action].append(update(action, example))
    return logits["adversarial"] + logits["companion"]


def check_strategies(attack: Any, objective: Any, companions: Any, companion_objective: Any = None) -> None:
    """Raises `ValueError` unless each can be called as what it stands for."""
    if attack is not None:
        check_attack("attack", attack)
    check_objective("objective", objective)
    if companion_objective is not None:
        check_objective("companion_objective", companion_objective)
    if not can_be_called(companions, None, (), num=1, seed=0):
        raise ValueError(
            "`companions` must be called as `companions(x, adversarial, num=..., seed=...)`. Received: "
            f"{companions!r}. Give e.g. `companions.ReverseSymmetry()`, not the class."
        )


def check_objectives(ratio: Ratio, *objectives: Any) -> None:
    """Raises `ValueError` if one of them says, by `check_ratio`, that it cannot be trained in rounds of this ratio."""
    for objective in objectives:
        if hasattr(objective, "check_ratio"):
            objective.check_ratio(ratio)
        if hasattr(objective, "objective"):  # one around another
            check_objectives(ratio, objective.objective)


def check_num_classes(objective: Any, num_classes: int | None) -> None:
    """Raises `ValueError` unless an objective that says how many classes there are says what the network has."""
    said = getattr(objective, "num_classes", None)
    if None not in (said, num_classes) and said != num_classes:
        raise ValueError(
            f"`num_classes` of {type(objective).__name__} must be the number of the network's logits, {num_classes} (2 "
            f"for one logit or sigmoid). Received: num_classes={said}."
        )
    if hasattr(objective, "objective"):
        check_num_classes(objective.objective, num_classes)


def check_companions(companions: Callable, ratio: Ratio, objective: Any, companion_objective: Any) -> None:
    """Raises `ValueError` unless there are companions, that a loss sees, if and only if the ratio has room for them."""
    kept = [set(getattr(part, "initial_state", dict)()) for part in (objective, companion_objective)]
    if kept[1] - kept[0]:
        raise ValueError(
            f"A trainer keeps {sorted(kept[1] - kept[0])} for its `objective`, and nothing for that of companions. "
            f"Received: companion_objective={companion_objective!r}. Give it as `objective`, or another one here."
        )
    if not getattr(objective, "needs_attack", True) and all(ratio) and companion_objective is None:
        raise ValueError(
            f"{type(objective).__name__} looks at no examples, so companions of ratio {ratio} would change nothing. "
            "Received: companion_objective=None. Give one, e.g. `objectives.CrossEntropy()`."
        )
    if ratio.num_companions and isinstance(companions, NoCompanions):
        companions(None, (), num=ratio.num_companions)  # raises, and says how to mend it
    if not ratio.num_companions and not isinstance(companions, NoCompanions):
        raise ValueError(
            f"Ratio {ratio} has no room for companions. Received: companions={companions!r}. Give a ratio n/m with "
            "m >= 1, e.g. ratio='1/1', or leave out `companions`."
        )
