"""How settings are judged: their figures, the limits of the user, the front that none beats, and the one to take."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import cost
from experiments.config import ExperimentConfig


class Figure(NamedTuple):
    """A figure of runs: its title, its column, 1 where more is better or -1, the flag that limits it, how it prints."""

    title: str
    column: str
    sign: int
    limit: str
    form: str = ".4f"


FIGURES = {
    "robust": Figure("robust accuracy", "r_test", 1, "min_robust"),
    "verified": Figure("verified accuracy", "v_test", 1, "min_verified"),
    "leakage": Figure("leakage P_MAX", "p_max", -1, "max_leakage"),
    "accuracy": Figure("accuracy", "a_test", 1, "min_accuracy"),
    "passes": Figure("forward passes", "forwards", -1, "max_passes", ",.0f"),
}
"""What settings are judged by; passes are of 100 images each, as in the tables of sweeps."""


class Point(NamedTuple):
    """Settings, and how a run of them did.

    Attributes:
        number: of the trial that drew them.
        config: of the run at full length.
        settings: its flags that differ from the base.
        run: its record, perhaps of a shorter one.
        figures: of it by name; the cost is that of the full length, which is what is paid in the end.
    """

    number: int
    config: ExperimentConfig
    settings: dict[str, Any]
    run: dict[str, Any]

    @property
    def figures(self) -> dict[str, float]:
        known = {**self.run, "forwards": passes(self.config)}
        return {name: known[one.column] for name, one in FIGURES.items() if known.get(one.column) is not None}

    def text(self, names: Sequence[str] = tuple(FIGURES)) -> str:
        """Its figures in words."""
        return ", ".join(f"{FIGURES[n].title} {self.figures[n]:{FIGURES[n].form}}" for n in names if n in self.figures)


def passes(config: ExperimentConfig) -> float:
    """The cost of a training, counted, in forward passes of 100 images."""
    return cost.forwards(config) / 100


def excess(figures: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """By how much figures miss their limits, as shares of these; at most 0 where they keep them."""
    return {name: FIGURES[name].sign * (limit - figures[name]) / limit for name, limit in limits.items()}


def missed(point: Point, limits: Mapping[str, float]) -> float:
    """By how much a point misses all limits together; 0 if it keeps them."""
    return sum(max(0.0, value) for value in excess(point.figures, limits).values())


def beats(one: Point, other: Point) -> bool:
    """Whether a point is as good as another in each figure and better in one."""
    gains = [FIGURES[name].sign * (value - other.figures[name]) for name, value in one.figures.items()]
    return min(gains) >= 0 and max(gains) > 0


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats."""
    return [point for point in points if not any(beats(other, point) for other in points)]


def ranked(points: Sequence[Point], limits: Mapping[str, float]) -> list[Point]:
    """The best first: what misses the limits by less, then what fewer beat, then what is nearer to the best of each."""
    beaten = {point.number: sum(beats(other, point) for other in points) for point in points}
    return sorted(points, key=lambda one: (missed(one, limits), beaten[one.number], _distance(one, points)))


def recommended(points: Sequence[Point], limits: Mapping[str, float]) -> tuple[Point, str]:
    """The point to take, and the sentence that says why; at least one point is needed."""
    keeping = [point for point in points if not missed(point, limits)]
    if not keeping:
        best = min(points, key=lambda point: missed(point, limits))
        by = [name for name, value in excess(best.figures, limits).items() if value > 0]
        wanted = ", ".join(f"--{FIGURES[name].limit}={limits[name]:g}" for name in by)
        return best, f"No settings keep all limits; #{best.number} misses {wanted} by the least ({best.text(by)})."
    candidates, kept = front(keeping), "that keep the limits " if limits else ""
    best = min(candidates, key=lambda point: _distance(point, candidates))
    return best, (
        f"Of the {len(keeping)} settings {kept}{len(candidates)} are beaten by none in all figures, of which "
        f"#{best.number} is the nearest to the best of each ({best.text()})."
    )


def _distance(point: Point, points: Sequence[Point]) -> float:
    """How far a point is from the best of each figure, in units of what the points span."""
    apart = []
    for name, value in point.figures.items():
        values = [FIGURES[name].sign * other.figures[name] for other in points]
        apart.append((max(values) - FIGURES[name].sign * value) / ((max(values) - min(values)) or 1.0))
    return math.hypot(*apart)
