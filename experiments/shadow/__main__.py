"""Trains shadow models by the same defence as the network under audit, and attacks it with them: LiRA and RMIA.

    python -m experiments.shadow --flagfile=shadow_fmnist.flags --num_models=16 --jobs=2

For each row the command trains the models, each on a random half of its training images with a seed of its own, and
asks them of all these images as they are, attacked, as reverse-symmetry examples and as random points of the ball. Then
each model in turn is audited with the others as shadows. What is done is not done again: give the same command to go
on, or with more models or rows. Results: NAME.json, .md, .csv and .png in the output directory; queries/ holds what
each model said. A row that NAME.json has by the same flags and number of models is done, even without its queries; its
rows that a call does not name stay. --tables_only lays out what there is: of models that were trained and not asked
their own figures.
"""

import json
import pathlib
import sys

from absl import flags

from experiments import command_line, cost, results
from experiments.config import names
from experiments.shadow import attackers, outputs
from experiments.shadow.models import Shadows, fingerprint
from experiments.sweep import executors, plan
from pineat_tf import accelerate
from pineat_tf.checks import check_count

_LEAST = 3  # models; in an audit of one the others are two


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = flags.FlagValues()
    plan.define_flags(values)
    flags.DEFINE_integer("num_models", 16, "How many shadow models each row has.", flag_values=values)
    arguments = command_line.expand_flagfiles(argv)
    if not command_line.parsed(values, arguments, __doc__):
        return
    check_count("num_models", values.num_models, _LEAST, "Each is audited with the others as its shadows.")
    sweep = plan.from_flags(values)
    for row in sweep.rows:
        if len(row.configs) > 1 or row.configs[0].half >= 0:
            raise ValueError(
                "every shadow model has a half and a seed of its own. Received: "
                f"{len(row.configs)} seeds, half={row.configs[0].half} of {row.title!r}. Give one seed, from which "
                "theirs count on, no --half, and more models by --num_models."
            )
    base = pathlib.Path(sweep.output_dir, sweep.name)
    methods = [Shadows(row, values.num_models, sweep.output_dir / "queries") for row in sweep.rows]
    stored = outputs.read(pathlib.Path(f"{base}.json"))
    finished = {shadows.row.title: study for shadows in methods if (study := _same(stored, shadows))}
    others = [study for title, study in stored.items() if title not in {shadows.row.title for shadows in methods}]
    unfinished = [shadows for shadows in methods if shadows.row.title not in finished]
    pending = [] if sweep.tables_only else [job for shadows in unfinished for job in shadows.pending(sweep.runs)]
    print(
        f"{len(methods)} rows of {values.num_models} shadow models; {len(finished)} rows are done, and {len(pending)} "
        "models are to be trained."
    )
    if pending:
        cost.print_estimate([job.config for job in pending])
    if sweep.dry_run:
        return
    outputs.check_writable(base)  # rather now than after hours
    sweep.runs.check_writable()
    executors.check_none(executors.train(pending, sweep.executor, sweep.jobs, sweep.runs), len(pending))
    studies = [finished.get(shadows.row.title) or _study(shadows, sweep) for shadows in methods]
    outputs.write(base, sweep.title, [*studies, *others], sweep.references)
    for study in studies:
        if not study.leakage:
            print(f"{study.title}: only its figures are left, no networks or answers; train it again to attack it.")
    print(f"Results are in {base}.json, .md, .csv and .png.")


def _same(stored: dict[str, outputs.Study], shadows: Shadows) -> outputs.Study | None:
    """What an earlier call found out about a row by so many models, or None if by fewer or not at all."""
    study = stored.get(shadows.row.title)
    if study is None:
        return None
    known, asked = (results.key(flags, without=("half", "seed")) for flags in (study.flags, _flags(shadows)))
    contents = [flags.get("fingerprint", "") for flags in (study.flags, _flags(shadows))]
    other_data = contents[0] != contents[1] != ""  # data that are not here count as the same
    if known != asked or other_data or len(study.runs) > len(shadows.configs):
        what = "other flags" if known != asked else "other data" if other_data else f"{len(study.runs)} models"
        raise ValueError(
            f"there are results of {shadows.row.title!r} with {what}, which these would replace. Choose another --name "
            "or --output_dir."
        )
    return study if study.leakage and len(study.runs) == len(shadows.configs) else None


def _flags(shadows: Shadows) -> dict:
    """The flags of a row's models, as they read back from a file, and the content of data that have no name."""
    config, without = shadows.configs[0], (*names(recorded=False), "output_dir", "data_dir", "half", "seed")
    content = fingerprint(config)
    return json.loads(json.dumps(config.to_dict(without=without))) | ({"fingerprint": content} if content else {})


def _study(shadows: Shadows, sweep: plan.Sweep) -> outputs.Study:
    shadows.ask()
    runs = [sweep.runs.find(config) for config in shadows.configs]
    if None in runs:
        raise ValueError(f"the figures of a model of {shadows.row.title!r} are missing; give the --runs_file with them")
    was_asked = any(path.exists() for path in shadows.paths)
    answers = shadows.answers() if was_asked or not sweep.tables_only else None
    num_members = runs[0]["data.num_members"]
    return outputs.Study(
        title=shadows.row.title,
        flags=_flags(shadows),
        runs=runs,
        leakage=attackers.audit(answers) if answers else [],
        num_members=num_members,
        num_non_members=answers.in_mask.shape[1] - num_members if answers else num_members,
    )


if __name__ == "__main__":
    accelerate.set_threads()
    sys.exit(main())
