"""The time that a search has taken, and the time that a run will take."""

import statistics
import time
from collections.abc import Sequence

from experiments import cost, method, session
from experiments.config import ExperimentConfig

_AROUND = 2.0  # times what this process needs to measure a run: a guess at what its start and end take


class Clock:
    """The time of a search that has taken so many seconds before, of so many runs at once on this machine."""

    def __init__(self, before: float, together: int):
        self._before, self._together = before, together
        self._begun = time.monotonic()
        self._seen: list[float] = []

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._begun

    def measure(self, config: ExperimentConfig) -> None:
        """Measures the speed of this machine on a few rounds of a run."""
        begun = time.monotonic()
        cost.leave_memory()
        self._speed = cost.measure(session.build(config, method.data(config)))
        self._guess = _AROUND * (time.monotonic() - begun)

    def expected(self, config: ExperimentConfig) -> float:
        """Seconds that a run takes, with its start and end."""
        return self._at_work(config) + (statistics.mean(self._seen) if self._seen else self._guess)

    def learn(self, configs: Sequence[ExperimentConfig], seconds: float) -> None:
        """Takes note of how long some runs at once took."""
        self._seen.append(max(0.0, seconds - max(map(self._at_work, configs))))

    def _at_work(self, config: ExperimentConfig) -> float:
        return self._together * (self._speed.training(config, config.rounds) + self._speed.evaluation(config))
