"""Fields of the config, which say everything about themselves, and what their values are checked by."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Sequence
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
    signed: bool = False,
    ramp: bool = False,
    needs: str = "",
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
        signed: whether it may be any number but 0.
        ramp: whether it is two rising shares of the training, or empty.
        needs: flags without which it has no effect, as in "attack=diff and objective= or awp_gamma", each with the
            values that will do; one without values is to be above 0.
        scope: "training" or "evaluation" for what changes results, "run" for how and where they are made.
        recorded: whether it stays with the results: all but how to begin.
        needs_attack: whether it has no effect in free adversarial training, which perturbs while it updates.
        paper: what the paper's methods have: the "default", or the setting of their "attack"; empty for any value.
    """
    limits = {"choices": choices, "least": least, "below": below}
    limits |= {"share": share, "signed": signed, "ramp": ramp}
    metadata = {
        "help": help,
        **limits,
        "needs": _parsed(needs),
        "scope": scope,
        "recorded": recorded,
        "needs_attack": needs_attack,
        "paper": paper,
    }
    return dataclasses.field(default=default, metadata=metadata)


beyond = functools.partial(option, paper="default")
"""A field of what the paper's methods do without."""


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises `ValueError` unless a field may have this value."""
    name, says = field.name, field.metadata
    if says["choices"]:
        for item in value if isinstance(value, tuple) else (value,):
            check_choice(name, item, says["choices"])
    elif says["ramp"]:
        if value and not (len(value) == 2 and 0.0 <= value[0] <= value[1] <= 1.0):
            raise ValueError(
                f"`{name}` must be two rising shares of the training, or empty. Received: {name}={value!r}. Give e.g. "
                "0.1,0.5."
            )
    elif says["share"]:
        check_share(name, value)
    elif says["signed"]:
        if not (isinstance(value, numbers.Real) and math.isfinite(value) and value):
            raise ValueError(
                f"`{name}` must be a finite number other than 0. Received: {name}={value!r}. {says['help']}"
            )
    elif isinstance(field.default, float):
        check_positive(name, value, says["help"], or_0=says["least"] == 0)
    elif says["least"] is not None:
        check_count(name, value, says["least"], says["help"])
        if value >= says["below"]:
            raise ValueError(
                f"`{name}` must be less than {says['below']:,}. Received: {name}={value!r}. {says['help']}"
            )


def check_used(configs: Sequence[Any], said: Callable[[str], bool]) -> None:
    """Raises `ValueError` for a field that departs from its default and has no effect in any of these configs.

    Args:
        configs: that differ in fields which belong to none.
        said: whether a field was named. What is switched off by a 0 that was, as over a flag file, may keep its fields.
    """
    for field in dataclasses.fields(configs[0]) if configs else ():
        name, value = field.name, getattr(configs[0], field.name)
        lacking = [_lacking(field, config, said) for config in configs]
        if value != field.default and all(lacking):
            owner, values = lacking[0]
            raise ValueError(
                f"`{name}` has no effect with {owner}={getattr(configs[0], owner)!r}. Received: {name}={value!r}. "
                f"Leave it at {field.default!r}, or let `{owner}` be {' or '.join(map(repr, values)) or 'above 0'}."
            )


def settled(config: Any, base: Any = None) -> Any:
    """The config with the default in each field that has no effect in it, so that `check_used` takes it.

    Args:
        config: any.
        base: leaves what has none in this config either as it is; None for one in which everything has.
    """
    idle = {
        field.name: field.default
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
        and _lacking(field, config, lambda name: False)
        and not (base and _lacking(field, base, lambda name: False))
    }
    return settled(dataclasses.replace(config, **idle), base) if idle else config  # what needed those is idle now


def _parsed(needs: str) -> list[dict[str, tuple[str, ...]]]:
    """The alternatives of `needs`, each with the values of every field that it names."""
    pairs = [[need.partition("=") for need in one.split(" and ")] for one in needs.split(" or ") if needs]
    return [{owner: tuple(values.split(",")) if sign else () for owner, sign, values in one} for one in pairs]


def _lacking(field: dataclasses.Field, config: Any, said: Callable[[str], bool]) -> tuple[str, tuple[str, ...]] | None:
    """What a field needs that a config has not, the name and values of another field; None if it has an effect."""

    def is_met(owner: str, values: tuple[str, ...]) -> bool:
        given = getattr(config, owner)
        return given in values if values else bool(given) or said(owner)

    lacking = [[need for need in needs.items() if not is_met(*need)] for needs in field.metadata["needs"]]
    return lacking[0][0] if lacking and all(lacking) else None
