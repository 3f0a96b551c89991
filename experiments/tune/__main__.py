"""Finds settings for your data and your limits, judged on training images alone, and measures them on test images.

    python -m experiments.tune --flagfile=folder.flags --data_dir=photos --min_robust=.5 --max_leakage=.55 --budget=2h
    python -m experiments.tune --flagfile=tune_digits.flags

--axes are what is changed; all else is as the flags of experiments.run say, which are listed after those of the search.
Give the same command to go on, also with more time or trials, or other limits. Results in --tune_dir: the
recommendation.md; tables (.md, .csv), pictures (.png) and a report (.html) called tune; a flag file of each settings
that none beats (point-N.flags, for experiments.run); runs.csv, a line a run; Optuna's study.db.
"""

import math
import pathlib
import re
import sys
import tempfile

import filelock
from absl import flags

from experiments import command_line
from experiments.sweep import executors
from experiments.sweep import outputs as sweep_outputs
from experiments.tune.axes import AXES
from experiments.tune.plan import REDUCTION, Plan
from experiments.tune.points import FIGURES
from pineat_tf import accelerate
from pineat_tf.checks import check_choice, check_count, check_part, check_positive

_LIMITS = {
    "min_robust": "Least robust accuracy.",
    "min_verified": "Least verified accuracy, with --verify.",
    "max_leakage": "Largest P_MAX, in-sample; what leaks nothing has a little more than .5.",
    "min_accuracy": "Least natural accuracy.",
    "max_passes": "Largest cost of a training, in forward passes of 100 images.",
}
_COUNTS = {
    "trials": (30, 1, "How many settings are tried at most."),
    "rungs": (
        2,
        1,
        f"How many lengths of training there are; the best of one in {REDUCTION} go on to the next. 1: full ones only.",
    ),
    "jobs": (1, 1, "How many runs are trained at once."),
    "report_seeds": (
        3,
        0,
        "With how many fresh seeds the recommended settings are trained for the test split; 0 leaves that out.",
    ),
}
_AXES = ("steps", "companions", "ratio", "pad", "batch_size", "learning_rate", "length", "label_smoothing")


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = flags.FlagValues()
    _define_flags(values)
    command_line.define_flags(values)
    arguments = command_line.expand_flagfiles(argv)
    if not command_line.parsed(values, arguments, __doc__):
        return
    try:
        from experiments.tune import outputs, search
    except ImportError as error:
        raise ValueError(f"a search needs a package ({error}): pip install '.[tune]'") from None
    plan = _plan(values)
    if values.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            print(search.Search(plan._replace(folder=pathlib.Path(folder))).cost())
        return
    sweep_outputs.check_writable(plan.folder, outputs.NAME)
    try:
        with filelock.FileLock(plan.folder / "tune.lock", timeout=0):
            found = search.Search(plan)
            print(found.cost(), flush=True)
            found.run()
            text = outputs.write(found)  # what is known before anything of the test split is
            print(outputs.write(found, found.report()) if plan.report_seeds else text)
    except filelock.Timeout:
        raise ValueError(f"another search is at work in {str(plan.folder)!r}. Name another --tune_dir.") from None
    print(f"Tables, pictures and flag files are in {plan.folder}.")


def _define_flags(values: flags.FlagValues) -> None:
    own = {"flag_values": values}
    flags.DEFINE_list("axes", list(_AXES), f"What is changed, of: {', '.join(AXES)}.", **own)
    for name, text in _LIMITS.items():
        command_line.define(values, name, 0.0, f"{text} 0 for no limit.")
    for name, (default, _, text) in _COUNTS.items():
        command_line.define(values, name, default, text)
    flags.DEFINE_string("budget", "", "Time for all of it, as in 90s, 30m or 2h; empty for any.", **own)
    flags.DEFINE_bool("dry_run", False, "Print what a run will cost, and run nothing.", **own)
    flags.DEFINE_string("executor", "local", "Processes of this machine (local), or a cluster (ray, dask).", **own)
    flags.DEFINE_string("tune_dir", "runs/tune", "Where results go; --output_dir has no effect here.", **own)


def _plan(values: flags.FlagValues) -> Plan:
    """The search that the flags describe.

    Raises:
        ValueError: if a flag is out of its range.
    """
    check_choice("executor", values.executor, executors.EXECUTORS)
    for name, (_, least, text) in _COUNTS.items():
        check_count(name, getattr(values, name), least, text)
    if values.report_seeds == 1:
        raise ValueError("`report_seeds` must be 0, or 2 at least for an interval. Received: 1.")
    for name in values.axes or ("",):
        check_choice("axes", name, tuple(AXES))
    base = command_line.config_from(values)
    limits = {name: getattr(values, figure.limit) for name, figure in FIGURES.items()}
    limits = {name: limit for name, limit in limits.items() if limit}
    for name, limit in limits.items():
        check = check_positive if name == "passes" else check_part
        check(FIGURES[name].limit, limit, "0 is no limit.")
    if "verified" in limits and not base.verify:
        raise ValueError("`min_verified` needs proofs. Received: --noverify. Give --verify as well.")
    return Plan(
        base=base,
        axes=tuple(values.axes),
        limits=limits,
        budget=_seconds(values.budget),
        executor=values.executor,
        folder=pathlib.Path(values.tune_dir).expanduser(),
        **{name: getattr(values, name) for name in _COUNTS},
    )


def _seconds(text: str) -> float:
    if not text:
        return math.inf
    match = re.fullmatch(r"(\d+|\d*\.\d+)([smh])", text)
    if not match or not float(match[1]):
        raise ValueError(f"`budget` must be a time such as 90s, 30m or 2h. Received: {text!r}.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


if __name__ == "__main__":
    accelerate.set_threads()
    sys.exit(main())
