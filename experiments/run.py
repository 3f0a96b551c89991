"""Trains, evaluates and exports image classifiers.

    python -m experiments.run --flagfile=fmnist_pgd.flags --flagfile=small.flags --variant=original,pineat

Flag files hold flags, one a line; the project's own are found by name. Flags that come later win.
"""

import sys

from absl import flags

from experiments import command_line, paper, pipeline
from pineat_tf import cpu

_SEVERAL = "variant"


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: program name and arguments; `sys.argv` if None.

    Returns:
        The exit code: 0, 2 for bad input after one line on stderr, 130 for Ctrl-C, 143 for SIGTERM.
    """
    return command_line.guarded(_run, argv)


def _run(argv: list[str]) -> None:
    values = flags.FlagValues()
    command_line.define_flags(values, several=[_SEVERAL])
    for name in ("help", "helpshort"):
        flags.DEFINE_bool(name, False, "Print this text.", flag_values=values)
    rest = values(command_line.expand_flagfiles(argv))[1:]
    if values.help or values.helpshort:
        print(command_line.usage(__doc__, values))
        return
    if rest:
        raise ValueError(f"there is no use for {rest}; flags begin with --. See --helpshort.")
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
    cpu.set_threads()
    sys.exit(main())
