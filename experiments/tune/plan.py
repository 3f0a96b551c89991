"""What is searched, and the runs that a search and its report are made of."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

from experiments import method, results
from experiments.config import ExperimentConfig
from experiments.tune.points import FIGURES

REDUCTION = 3
"""One in so many settings goes up a rung, to a training so many times as long."""


class Plan(NamedTuple):
    """What is searched, and for how long.

    Attributes:
        base: the run that the axes change.
        axes: their names.
        limits: of the user, by figure.
        trials: how many settings are tried at most.
        rungs: how many lengths of training there are, the last of which is the full one.
        budget: seconds for all of it; infinite for any.
        jobs: how many runs are trained at once.
        executor: where they are trained.
        report_seeds: how many trainings of the recommended settings are measured on the test split.
        folder: of all results.
    """

    base: ExperimentConfig
    axes: tuple[str, ...]
    limits: dict[str, float]
    trials: int
    rungs: int
    budget: float
    jobs: int
    executor: str
    report_seeds: int
    folder: pathlib.Path

    @property
    def figures(self) -> list[str]:
        """The figures that settings are judged by."""
        return [name for name in FIGURES if name != "verified" or self.base.verify]

    @property
    def last(self) -> int:
        """The rung of the full length."""
        return self.rungs - 1

    def trial(self, config: ExperimentConfig, rung: int) -> ExperimentConfig:
        """The run of settings on a rung. Members and validation images are both drawn from the training split.

        All runs of a search are made here, so that none has a test image, whatever the flags say of pools.
        Averages of weights (--ema_momentum) span the same share of a short training as of the full one. Else they would
        span most of it, untrained weights among them, and be judged by what they are not.
        """
        shorter = REDUCTION ** (self.last - rung)
        momentum = config.ema_momentum
        if momentum and shorter > 1:
            momentum = round(max(0.0, 1 - shorter * (1 - momentum)), 6)
        scale = config.schedule_scale / shorter
        return self._placed(config, schedule_scale=scale, ema_momentum=momentum, pools="exchangeable", export=())

    def report(self, config: ExperimentConfig) -> list[ExperimentConfig]:
        """The runs of settings that are measured on the test split, with seeds that no run of the search had."""
        seeds = range(config.seed + 1, config.seed + 1 + self.report_seeds)
        return [self._placed(config, seed=seed, pools="split") for seed in seeds]

    def identity(self) -> dict[str, Any]:
        """What tells searches apart, as it reads back from JSON."""
        says = results.deciding(self.base.to_dict()) | {"data": method.data_fingerprint(self.base)}
        says |= {"axes": sorted(self.axes), "rungs": self.rungs}
        return json.loads(json.dumps(says))

    def _placed(self, config: ExperimentConfig, **flags: Any) -> ExperimentConfig:
        run = dataclasses.replace(config, **flags, overwrite=False, resume=False)
        name = hashlib.sha256(results.key(run.to_dict()).encode()).hexdigest()[:12]
        return dataclasses.replace(
            run, output_dir=str(self.folder / "runs" / name).replace("{", "{{").replace("}", "}}")
        )
