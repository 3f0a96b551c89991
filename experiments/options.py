"""Fields of the config, which say everything about themselves, and what their values are checked by."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

from pineat_tf.checks import check_choice, check_count, check_positive, check_share

BELONGS = {
    ("weight_decay", ()): ("decay_all",),
    ("attack", ("dist",)): ("dist_coefficient",),
    ("attack", ("wrm_l2",)): ("wrm_gamma",),
    ("attack", ("diff",)): ("trades_beta", "trades_detach"),
    ("objective", ("",)): ("trades_beta", "trades_detach"),
    ("objective", ("mart", "score", "ikl")): ("objective_beta",),
    ("objective", ("ikl",)): ("ikl_period",),
    ("objective", ("ibp", "mtl_ibp", "cc_ibp", "sabr")): ("ibp_natural_weight", "ibp_ramp"),
    ("objective", ("mtl_ibp", "cc_ibp", "sabr")): ("ibp_share",),
    ("defence", ("relaxloss",)): ("relaxloss_alpha", "relaxloss_period"),
    ("defence", ("convexconcave",)): ("convexconcave_share",),
    ("defence", ("entropy",)): ("entropy_share", "entropy_weight"),
    ("awp_gamma", ()): ("awp_begin",),
    ("variant", ("scaled",)): ("companion_scale", "companion_labels"),
    ("variant", ("pineat",)): ("rs_decomposition", "rs_clip"),
    ("teacher_share", ()): ("teacher_momentum",),
    ("dp_noise", ()): ("dp_clip", "dp_delta"),
    ("optimizer", ("sgd",)): ("momentum",),
}
"""A field, with the values of it (or all but 0) without which the fields on the right have no effect."""


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    *,
    least: int | None = None,
    below: float = math.inf,
    share: bool = False,
    signed: bool = False,
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
        scope: "training" or "evaluation" for what changes results, "run" for how and where they are made.
        recorded: whether it stays with the results: all but how to begin.
        needs_attack: whether it has no effect in free adversarial training, which perturbs while it updates.
        paper: what the paper's methods have: the "default", or the setting of their "attack"; empty for any value.
    """
    limits = {"choices": choices, "least": least, "below": below, "share": share, "signed": signed}
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
    elif says["signed"]:
        if not (isinstance(value, numbers.Real) and math.isfinite(value) and value):
            raise ValueError(f"`{name}` must be a number other than 0. Received: {name}={value!r}. {says['help']}")
    elif isinstance(field.default, float):
        if says["least"] is None or value != says["least"]:
            check_positive(name, value, says["help"])
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
    for (owner, values), owned in BELONGS.items():
        given = [getattr(config, owner) for config in configs]
        if any(one in values if values else one or said(owner) for one in given):
            continue
        for name in owned if configs else ():
            value, default = getattr(configs[0], name), type(configs[0]).__dataclass_fields__[name].default
            if value != default:
                raise ValueError(
                    f"`{name}` has no effect with {owner}={given[0]!r}. Received: {name}={value!r}. Leave it at "
                    f"{default!r}, or let `{owner}` be {' or '.join(map(repr, values)) or 'above 0'}."
                )
