"""The paper's training round (section 3.3, Fig. 2): which examples it makes, and in which order the weights learn them.

A round is data, a tuple of steps, and `play` is what reads it. What a step does is given from outside: `generate` makes
an adversarial example by the weights as they are, `companions` all companions of the adversarial examples, and `update`
moves the weights by one example.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from pineat_tf.types import Ratio


class Step(NamedTuple):
    """One step of a round.

    Attributes:
        action: "generate" makes an adversarial example; "adversarial" and "companion" are an update by such an example.
        index: of the example among those of its kind.
    """

    action: str
    index: int


def schedule(ratio: Ratio, *, generation: str = "round", order: str = "adversarial") -> tuple[Step, ...]:
    """Lists the steps of a round: n examples to generate, n + m updates.

    Args:
        ratio: n/m.
        generation: "round" generates all examples by the weights at the round's start, "update" each before its update.
        order: "adversarial" updates come first, or those by "companions".

    Raises:
        ValueError: if companions are to come before the examples that they are made from.

    Example:
        >>> [f"{action} {index}" for action, index in schedule(Ratio(1, 2))]
        ['generate 0', 'adversarial 0', 'companion 0', 'companion 1']
    """
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
    beside: Sequence[tf.Tensor] | None = None
    logits: dict[str, list[tf.Tensor]] = {"adversarial": [], "companion": []}
    for action, index in steps:
        if action == "generate":
            adversarial.append(generate(index))
            continue
        if action == "companion" and beside is None:
            beside = companions(tuple(adversarial))
            if len(beside) != num_companions:
                raise ValueError(
                    f"Companions must be as many as the ratio says, {num_companions}. Received: {len(beside)}. Give a "
                    "tuple of `num` tensors like `x`."
                )
        example = beside[index] if action == "companion" else adversarial[index]
        logits[action].append(update(action, example))
    return logits["adversarial"] + logits["companion"]
