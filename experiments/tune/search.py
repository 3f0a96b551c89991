"""The search: settings drawn by Optuna, short runs first, longer ones of the best, as long as time allows."""

import dataclasses
import functools
import heapq
import math
import time
from collections.abc import Collection, Sequence
from typing import Any

import optuna
import pandas as pd
from optuna.trial import BaseTrial, TrialState

from experiments import cost, results
from experiments.config import ExperimentConfig
from experiments.sweep import executors
from experiments.sweep.executors import Job, Outcome
from experiments.tune import axes, points
from experiments.tune.clock import Clock
from experiments.tune.plan import REDUCTION, Plan
from experiments.tune.points import FIGURES, Point

_MOST_REFUSED = 50  # draws in a row
_GUIDED = (
    10  # of them, before the rest are random: where few settings are left, the same ones are drawn again and again
)
_LEAST = 0.1  # share of its length that a training is shortened to
_SHORTENED, _AS_GIVEN = "shortened", "as_given"  # of trials


class Search:
    """A search in a folder, which goes on where an earlier one stopped.

    Optuna judges settings by their first, short run. All runs are in `runs`, and what has risen is seen from there.

    Args:
        plan: what is searched.

    Raises:
        ValueError: if the folder holds another search.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.runs = results.Runs(plan.folder / "runs.csv")
        self._study = _study(plan)
        self._samplers = self._study.sampler, optuna.samplers.RandomSampler(plan.base.seed + len(self._study.trials))
        self.clock = Clock(self._study.user_attrs.get("seconds", 0.0), plan.jobs if plan.executor == "local" else 1)
        self._failed: dict[str, str] = {}
        self._known: dict[tuple[int, int], tuple[Point, ExperimentConfig]] = {}
        self._open: list[tuple[optuna.Trial, ExperimentConfig]] = []
        self._exhausted = False

    def cost(self) -> str:
        """Measures the speed of this machine; says what runs will cost."""
        first, full = (self.plan.trial(self.plan.base, rung) for rung in (0, self.plan.last))
        self.clock.measure(full)
        short = f", a first, short one {cost.minutes(self.clock.expected(first))}" if self.plan.last else ""
        return (
            f"Up to {self.plan.trials} settings of {', '.join(self.plan.axes)}, {self.plan.jobs} at once. A run of the "
            f"flags as they are takes {points.passes(full):,.0f} forward passes of 100 images, about "
            f"{cost.minutes(self.clock.expected(full))}{short}."
        )

    def run(self) -> None:
        """Searches until settings, or time, are used up.

        Raises:
            ValueError: if there is no time for a run of the full length, or none came to its end.
        """
        needed = self.clock.spent + self._full_seconds() + self._report_seconds()
        if not self.found(0) and needed > self.plan.budget:
            raise ValueError(
                "`budget` must have time for a run of the full length and those of --report_seeds, about "
                f"{cost.minutes(needed)}. Received: {cost.minutes(self.plan.budget)}. Give more, or fewer --updates."
            )
        while jobs := self._batch():
            self.train(jobs)
            self._tell()
            for job in jobs:
                print(self._line(job), flush=True)
        if not self.found(self.plan.last):
            why = next(iter(self._failed.values()), "there was no time")
            raise ValueError(f"no settings came to the end of a run of the full length ({why.removesuffix('.')}).")

    def report(self) -> pd.DataFrame:
        """Trains the recommended settings with fresh seeds; what `results.tidy` has of their runs on the test split.

        Raises:
            ValueError: if a run fails.
        """
        point, _ = points.recommended(self.found(self.plan.last), self.plan.limits)
        configs = self.plan.report(point.config)
        jobs = [
            Job(f"#{point.number}, seed {config.seed}", config, "on test images", f"#{point.number}")
            for config in configs
        ]
        executors.check_none(self.train(jobs), len(jobs))
        return results.tidy([self.runs.find(config) for config in configs], configs)

    def train(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Trains runs that have no record yet, and keeps the time that it takes; gives those that failed."""
        missing = [job for job in jobs if self.runs.find(job.config) is None]
        begun = time.monotonic()
        try:
            failed = executors.train(missing, self.plan.executor, self.plan.jobs, self.runs)
        finally:
            self._study.set_user_attr("seconds", self.clock.spent)
        if missing:
            self.clock.learn([job.config for job in missing], time.monotonic() - begun)
        self._failed |= {outcome.job.config.run_dir: outcome.error for outcome in failed}
        return failed

    def found(self, rung: int) -> list[Point]:
        """The settings that have had a run on a rung, each once."""
        by_place: dict[str, Point] = {}
        for trial in self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
            point, config = self._known.get((trial.number, rung)) or self._point(trial, rung)
            if not point.run:
                point = point._replace(run=self.runs.find(config) or {})
            self._known[trial.number, rung] = point, config
            if point.run:
                by_place.setdefault(config.output_dir, point)
        return list(by_place.values())

    def _drawn(self, trial: BaseTrial) -> tuple[dict[str, Any], ExperimentConfig]:
        """The settings of a trial, shortened if they were when it was drawn, and their config."""
        is_given = trial.user_attrs.get(_AS_GIVEN, False)
        settings = {} if is_given else axes.settings(self.plan.base, self.plan.axes, trial)
        settings |= trial.user_attrs.get(_SHORTENED, {})
        return settings, dataclasses.replace(self.plan.base, **settings)

    def _shortened(self, trial: optuna.Trial) -> ExperimentConfig:
        """The config of a new trial, at most as long as --max_passes allows.

        Optuna learns nothing from settings that are dropped, and would draw their like without end.
        """
        _, config = self._drawn(trial)
        share = self.plan.limits.get("passes", math.inf) / points.passes(config)
        if _LEAST <= share < 1:
            updates = math.floor(config.scaled_updates * share)
            trial.set_user_attr(_SHORTENED, {"schedule_scale": round(updates / config.updates, 6)})
            _, config = self._drawn(trial)
        return config

    def _point(self, trial: BaseTrial, rung: int) -> tuple[Point, ExperimentConfig]:
        settings, config = self._drawn(trial)
        return Point(trial.number, config, settings, {}), self.plan.trial(config, rung)

    def _batch(self) -> list[Job]:
        """The next runs: longer ones of what did well, then new ones, as many as fit beside the longest."""
        jobs: dict[str, Job] = {}
        while (wait := self._wait(jobs.values())) is not None:
            job = self._risen(jobs, wait, least=0) or self._new(wait)
            if job is None and not self._open:  # nothing more is drawn: what is best so far is the best there will be
                job = self._risen(jobs, wait, least=1)
            if job is None:
                break
            jobs[job.config.run_dir] = job
        return sorted(jobs.values(), key=lambda job: -self.clock.expected(job.config))

    def _wait(self, jobs: Collection[Job]) -> float | None:
        """Seconds until one more run begins beside others; None if a short one would end after all of them.

        A run whose search was broken off before Optuna knew of it takes no time.
        """
        missing = [job.config for job in jobs if self.runs.find(job.config) is None]
        seconds = sorted(map(self.clock.expected, missing), reverse=True)
        free = [0.0] * self.plan.jobs
        for one in seconds:
            heapq.heapreplace(free, free[0] + one)
        ends = free[0] + self.clock.expected(self.plan.trial(self.plan.base, 0))
        return free[0] if len(seconds) < self.plan.jobs or ends <= seconds[0] else None

    def _risen(self, taken: Collection[str], wait: float, least: int) -> Job | None:
        """A run on the next rung: of the flags as they are, or of the best, of which at least so many rise."""
        for rung in reversed(range(self.plan.last)):
            found = points.ranked(self.found(rung), self.plan.limits)
            given = [point for point in found if point.number in self._given]
            for point in (*given, *found[: max(least, len(found) // REDUCTION)]):
                config = self.plan.trial(point.config, rung + 1)
                is_new = config.run_dir not in taken and config.run_dir not in self._failed
                if is_new and self.runs.find(config) is None and self._affords(config, wait):
                    return self._job(point.number, config, rung + 1)
        return None

    def _new(self, wait: float) -> Job | None:
        """The first run of settings that are drawn; None if settings or time are used up."""
        if self._exhausted:
            return None
        short, why = self.plan.trial(self.plan.base, 0), ""
        for refused in range(_MOST_REFUSED):
            if self._tried() >= self.plan.trials or not self._affords(short, wait, is_new=True):
                return None
            self._study.sampler = self._samplers[refused >= _GUIDED]
            trial = self._study.ask()
            try:
                config = self._shortened(trial)
                first = self.plan.trial(config, 0)
                if points.passes(config) > self.plan.limits.get("passes", math.inf):
                    raise ValueError(f"they cost {points.passes(config):,.0f} forward passes. Raise --max_passes.")
                if config in [one.config for one in self.found(0)] + [one for _, one in self._open]:
                    raise ValueError("they have been tried")
                if first.run_dir in self._failed:
                    raise ValueError(f"they failed ({self._why(first)})")
            except ValueError as error:
                why = str(error)
            else:
                if self._affords(first, wait, is_new=True):
                    self._open.append((trial, config))
                    return self._job(trial.number, first, 0)
                why = "there is no time for it"
            self._study.tell(trial, state=TrialState.FAIL)
        self._exhausted = True
        text = f"{_MOST_REFUSED} settings in a row are no runs to train, the last one as: {why}"
        if not self.found(0) and not self._open:
            raise ValueError(text)
        print(text, flush=True)
        return None

    @functools.cached_property
    def _given(self) -> set[int]:
        """The numbers of the trials of the flags as they are."""
        return {trial.number for trial in self._study.get_trials(deepcopy=False) if _AS_GIVEN in trial.user_attrs}

    def _tried(self) -> int:
        """How many settings have had a run, or have one now."""
        trials = self._study.get_trials(deepcopy=False)
        done = sum(trial.state == TrialState.COMPLETE or "error" in trial.user_attrs for trial in trials)
        return done + len(self._open)

    def _tell(self) -> None:
        """Tells Optuna how the settings that it has drawn did."""
        for trial, config in self._open:
            first = self.plan.trial(config, 0)
            run = self.runs.find(first)
            if run is None:
                trial.set_user_attr("error", self._why(first))
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            figures = Point(trial.number, config, {}, run).figures
            for name, excess in points.excess(figures, self.plan.limits).items():
                trial.set_constraint(name, excess)
            self._study.tell(trial, [figures[name] for name in self.plan.figures])
        self._open = []

    def _affords(self, config: ExperimentConfig, wait: float, *, is_new: bool = False) -> bool:
        """Whether there is time for a run that waits and what comes after it: nothing, for a first full one."""
        has_full = bool(self.found(self.plan.last))
        after = self._report_seconds() if has_full or is_new else 0.0
        if is_new and self.plan.last and not has_full:
            after += self._full_seconds()
        return self.clock.spent + wait + self.clock.expected(config) + after <= self.plan.budget

    def _report_seconds(self) -> float:
        return -(-self.plan.report_seeds // self.plan.jobs) * self._full_seconds()

    def _full_seconds(self) -> float:
        """Seconds of the longest run of the full length that is known."""
        base = self.plan.trial(self.plan.base, self.plan.last)
        return max(self.clock.expected(one) for one in (base, *(point.config for point in self.found(self.plan.last))))

    def _job(self, number: int, config: ExperimentConfig, rung: int) -> Job:
        return Job(f"#{number}, rung {rung + 1} of {self.plan.rungs}", config, "search", f"#{number}")

    def _why(self, config: ExperimentConfig) -> str:
        return self._failed.get(config.run_dir, "it was stopped")

    def _line(self, job: Job) -> str:
        run = self.runs.find(job.config)
        said = Point(0, job.config, {}, run).text() if run else f"failed ({self._why(job.config)})"
        of = f" of {cost.minutes(self.plan.budget)}" if math.isfinite(self.plan.budget) else ""
        return f"{job.name}: {said}; {cost.minutes(self.clock.spent)}{of} spent"


def _study(plan: Plan) -> optuna.Study:
    """The study in the folder. First come what it was at when it was broken off, and the flags as they are."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{plan.folder.absolute() / 'study.db'}",
        study_name="tune",
        directions=["maximize" if FIGURES[name].sign > 0 else "minimize" for name in plan.figures],
        load_if_exists=True,
    )
    identity, found = plan.identity(), study.user_attrs.get("identity")
    if found is None:
        study.set_user_attr("identity", identity)
    elif found != identity:
        names = ", ".join(f"--{name}" for name in identity if found.get(name) != identity[name])
        raise ValueError(
            f"`tune_dir` holds a search with other flags ({names}). Received: {str(plan.folder)!r}. Name another."
        )
    seed = plan.base.seed + len(study.trials)  # the same seed would draw the same settings again
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, plan.trials // 4))
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
        study.tell(trial.number, state=TrialState.FAIL)
    wanted = TrialState.COMPLETE, TrialState.WAITING
    if not any(_AS_GIVEN in trial.user_attrs for trial in study.get_trials(states=wanted)):
        study.enqueue_trial({}, user_attrs={_AS_GIVEN: True})  # anew, where limits of an earlier call left them out
    return study
