"""Trains, evaluates and exports image classifiers.

    python -m experiments.run --flagfile=fmnist_pgd.flags --flagfile=small.flags --variant=original,pineat

Flag files hold flags, one a line; the project's own are found by name. Flags that come later win.
"""

import sys

from absl import flags

from experiments import command_line, paper, pipeline
from pineat_tf import accelerate

_SEVERAL = "variant"


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: program name and arguments; `sys.argv` if None.

    Returns:
        The exit code: 0, 2 for bad input after one line on stderr, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """
    return command_line.guarded(run, argv)


def run(argv: list[str]) -> None:
    """Does what a command line says, without care for what goes wrong."""
    values = flags.FlagValues()
    command_line.define_flags(values, several=[_SEVERAL])
    if not command_line.parsed(
        values, command_line.expand_flagfiles(argv), lambda: command_line.usage(__doc__, values)
    ):
        return
    configs = command_line.configs_from(values, several=_SEVERAL)
    run_dirs = [config.run_dir for config in configs]
    if len(set(run_dirs)) < len(configs) or not configs:
        raise ValueError(
            f"each variant needs a run directory of its own, as by {{variant}} in --output_dir, not {run_dirs}"
        )
    results = [(config, metrics) for config in configs if (metrics := pipeline.run(config))]
    if results:  # a worker that only helps has none
        print(paper.results_table(results))


if __name__ == "__main__":
    accelerate.set_threads()
    sys.exit(main())
