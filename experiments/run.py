"""Trains, evaluates and exports image classifiers.

    python -m experiments.run --flagfile=fmnist_pgd.flags --flagfile=small.flags --variant=original,pineat

Flag files hold flags, one a line; the project's own are found by name. Flags that come later win.
"""

import pathlib
import sys

import tensorflow as tf
from absl import flags

from experiments import command_line, distribution, export, files, method, paper, pipeline, session
from experiments.config import ExperimentConfig
from pineat_tf import accelerate

_SEVERAL = "variant"


def run(argv: list[str]) -> None:
    """Does what a command line says, without care for what goes wrong."""
    values = flags.FlagValues()
    command_line.define_flags(values, several=[_SEVERAL])
    if not command_line.parsed(values, command_line.expand_flagfiles(argv), __doc__):
        return
    configs = command_line.configs_from(values, several=_SEVERAL)
    run_dirs = [config.run_dir for config in configs]
    if len(set(run_dirs)) < len(configs) or not configs:
        raise ValueError(
            f"each variant needs a run directory of its own, as by {{variant}} in --output_dir, not {run_dirs}"
        )
    for config in configs:
        export.check_available(config.export)
    results = [(config, metrics) for config in configs if (metrics := experiment(config))]
    if results:  # a worker that only helps has none
        print(paper.results_table(results))


main = command_line.program(run)


def experiment(config: ExperimentConfig) -> dict | None:
    """Loads, builds, trains, evaluates and writes one experiment.

    Args:
        config: what to do; its `run_dir` says where the results go.

    Returns:
        The contents of metrics.json; None in a worker that is not the chief, which only trains.

    Raises:
        ValueError: for data or flags that do not fit, and if training diverges.
        InterruptedRun: if a signal comes while it trains; the checkpoint is kept.
    """
    strategy = distribution.strategy(config.strategy)
    is_chief = distribution.is_chief(strategy)
    with distribution.lost_workers_told(strategy):
        metrics = _finished(config) if is_chief else None
        if distribution.from_chief(strategy, [metrics is not None])[0]:
            return metrics
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        data = method.data(config)
        distribution.check_batch_size(config.batch_size, strategy)
        with strategy.scope():
            ready = session.build(config, data)
        if is_chief:
            return _lead(ready)
        pipeline.follow(ready)
        return None


def _lead(ready: session.Session) -> dict:
    config = ready.config
    directory = files.RunDirectory(
        config.run_dir,
        flags=command_line.recorded_flags(config),
        data=method.data_fingerprint(config),
        may_differ=command_line.MAY_DIFFER,
        overwrite=config.overwrite,
        resume=config.resume,
    )
    try:
        seconds = pipeline.train(ready, directory.unfinished)
        metrics = pipeline.write(ready, pipeline.evaluate(ready), directory.unfinished, seconds)
        directory.commit()
    finally:
        directory.release()
    print(f"Results are in {config.run_dir}.")
    return metrics


def _finished(config: ExperimentConfig) -> dict | None:
    """The contents of metrics.json, if this run is to go on and has nothing left to do."""
    path = pathlib.Path(config.run_dir)
    is_finished = (path / pipeline.METRICS).exists() and not files.unfinished(path).exists()
    if not is_finished or not config.resume or config.overwrite:
        return None
    files.check_same_flags(path, command_line.recorded_flags(config), may_differ=command_line.MAY_DIFFER)
    files.check_same_data(path, method.data_fingerprint(config))
    print(f"{path} is finished already.")
    try:
        return files.read_json(path / pipeline.METRICS)
    except ValueError as error:
        raise ValueError(
            f"{str(path / pipeline.METRICS)!r} is damaged: {error}. Give --overwrite to begin again."
        ) from error


if __name__ == "__main__":
    accelerate.set_threads()
    sys.exit(main())
