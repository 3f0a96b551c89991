"""Fields of the config, which say everything about themselves, and what their values are checked by."""

import dataclasses
import math
from typing import Any

from pineat_tf.checks import check_choice, check_count, check_positive, check_share


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    *,
    least: int | None = None,
    below: float = math.inf,
    share: bool = False,
    scope: str = "training",
    recorded: bool = True,
    needs_attack: bool = False,
    paper: str = "",
) -> Any:
    """A field that says everything about itself.

    Args:
        default: its value if nothing else is said. The flag has its type; floats are above 0 unless `least` is 0.
        help: of its flag, and how to mend a wrong value.
        choices: the values, or items of the value, that it may have; any if empty.
        least: the smallest value.
        below: what the value is less than.
        share: whether it is at least 0 and below 1.
        scope: "training" or "evaluation" for what changes results, "run" for how and where they are made.
        recorded: whether it stays with the results: all but how to begin.
        needs_attack: whether it has no effect in free adversarial training, which perturbs while it updates.
        paper: what the paper's methods have: the "default", or the setting of their "attack"; empty for any value.
    """
    limits = {"choices": choices, "least": least, "below": below, "share": share}
    metadata = {
        "help": help,
        **limits,
        "scope": scope,
        "recorded": recorded,
        "needs_attack": needs_attack,
        "paper": paper,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises `ValueError` unless a field may have this value."""
    name, says = field.name, field.metadata
    if says["choices"]:
        for item in value if isinstance(value, tuple) else (value,):
            check_choice(name, item, says["choices"])
    elif says["share"]:
        check_share(name, value)
    elif isinstance(field.default, float):
        if says["least"] is None or value != says["least"]:
            check_positive(name, value, says["help"])
    elif says["least"] is not None:
        check_count(name, value, says["least"], says["help"])
        if value >= says["below"]:
            raise ValueError(
                f"`{name}` must be less than {says['below']:,}. Received: {name}={value!r}. {says['help']}"
            )
