"""One record of what a network is worth: accuracy, robustness and membership leakage together."""

import dataclasses
import json
import math
import numbers
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from pineat_tf import presentation
from pineat_tf.checks import check_attack, check_network
from pineat_tf.data import Data, as_batches
from pineat_tf.membership.audit import audit_predictions
from pineat_tf.membership.results import MembershipResult
from pineat_tf.membership.thresholds import NoiseFloor, TprAtFpr, gap_attack
from pineat_tf.predictions import Predictions, Predictor
from pineat_tf.progress import Verbose
from pineat_tf.robust_accuracy import Robustness
from pineat_tf.threat import ThreatModel
from pineat_tf.types import Attack, Seed
from pineat_tf.verification import Verification, check_not_below_proof
from pineat_tf.verification import verify as verified

__all__ = [
    "Markdown",
    "QueryFigures",
    "Report",
    "SCHEMA_VERSION",
    "evaluate",
    "markdown_table",
    "quoted",
    "rate_cell",
    "schema",
]

SCHEMA_VERSION = 2
_SCHEMA = pathlib.Path(__file__).with_name("report.schema.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryFigures:
    """Figures of one kind of input, natural or adversarial.

    Attributes:
        train_accuracy: on the training examples (members), in [0, 1].
        test_accuracy: on the test examples (non-members), in [0, 1].
        membership: one record a signal; the cross-entropy threshold is among them.

    Example:
        >>> predicted = [predict_logits(network, data) for data in (train, test)]
        >>> QueryFigures.from_predictions(*predicted, "natural").p_e >= 0.5
        True
    """

    train_accuracy: float
    test_accuracy: float
    membership: tuple[MembershipResult, ...]

    @classmethod
    def from_predictions(cls, members: Predictions, non_members: Predictions, queries: str) -> "QueryFigures":
        """Measures a network's predictions of members and non-members."""
        return cls(
            train_accuracy=members.accuracy,
            test_accuracy=non_members.accuracy,
            membership=audit_predictions(members, non_members, queries=queries),
        )

    @property
    def p_e(self) -> float:
        """Membership inference accuracy of the in-sample cross-entropy threshold (paper, section 4.3)."""
        return self.signal("cross_entropy").balanced_accuracy

    @property
    def gap(self) -> float:
        """Membership inference accuracy of calling a member whatever is classified correctly."""
        return gap_attack(self.train_accuracy, self.test_accuracy)

    def signal(self, name: str) -> MembershipResult:
        """Returns the record of one signal."""
        return next(result for result in self.membership if result.signal == name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Accuracy, robustness and leakage of one network.

    Attributes:
        natural: figures of natural inputs (A_train, A_test, P_Enat).
        adversarial: figures of adversarial inputs (R_train, R_test, P_Eadv), or None if there was no attack.
        verification: which non-members are proved to withstand every noise of a radius (V_test), or None.
        robustness: what an ensemble of attacks left of the accuracy, or None if it was not measured.
        cost: what training cost, by names of the caller's, e.g. "forward_passes"; may be empty.

    Example:
        >>> report = evaluate(network, members=train, non_members=test)
        >>> report.p_max >= 0.5
        True
        >>> print(report.to_text())
    """

    natural: QueryFigures
    adversarial: QueryFigures | None
    verification: Verification | None = None
    robustness: Robustness | None = None
    cost: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks that costs are finite numbers."""
        for name, value in self.cost.items():
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(f"`cost` must hold finite numbers. Received: {name}={value!r}.")

    @property
    def p_max(self) -> float:
        """The better of the two cross-entropy thresholds."""
        return max(figures.p_e for figures in self._queries())

    @property
    def noise_floor(self) -> NoiseFloor:
        """The balanced accuracy that an in-sample threshold would reach by chance."""
        return self.natural.membership[0].noise_floor

    def to_dict(self) -> dict[str, Any]:
        """Converts the record to JSON's own types; what an attack would have given is None without one.

        The figures of the paper's Table 1 have its column names: `a_train`, `a_test`, `r_train`, `r_test`,
        `p_e_nat`, `p_e_adv`, `p_max`. Beside them `v_test`, `verification` (`Verification.to_dict()`), `gap_nat`,
        `gap_adv`, `noise_floor`, `membership` (a list of `MembershipResult.to_dict()`), `robustness`
        (`Robustness.to_dict()`) and `cost`. `schema` describes it.
        """
        natural, adversarial = self.natural, self.adversarial
        return {
            "schema_version": SCHEMA_VERSION,
            "a_train": natural.train_accuracy,
            "a_test": natural.test_accuracy,
            "r_train": adversarial and adversarial.train_accuracy,
            "r_test": adversarial and adversarial.test_accuracy,
            "v_test": self.verification and self.verification.accuracy,
            "p_e_nat": natural.p_e,
            "p_e_adv": adversarial and adversarial.p_e,
            "p_max": self.p_max,
            "gap_nat": natural.gap,
            "gap_adv": adversarial and adversarial.gap,
            "noise_floor": self.noise_floor._asdict(),
            "membership": [result.to_dict() for figures in self._queries() for result in figures.membership],
            "verification": self.verification and self.verification.to_dict(),
            "robustness": self.robustness and self.robustness.to_dict(),
            "cost": dict(self.cost),
        }

    def to_markdown(self) -> str:
        """Lays the record out as a Markdown table, natural and adversarial inputs side by side."""
        return markdown_table(self._rows())

    def verdict(self) -> str:
        """Says in two sentences what the figures come to, with exact 95 % intervals."""
        return presentation.verdict(self)

    def to_text(self) -> str:
        """Writes the verdict, the table and what was not tested in plain text, for a terminal."""
        missing = [f"Not tested: {text}." for text in presentation.untested(self)]
        return "\n".join([self.verdict(), "", presentation.aligned(self._rows()), "", *missing])

    def plot(self, axes: Any = None) -> Any:
        """Draws accuracies and leakage, by Matplotlib; `axes` are two of its axes, or None for a new figure.

        Returns:
            The figure.
        """
        return presentation.plot_report(self, axes)

    def _repr_html_(self) -> str:
        return presentation.report_html(self, self._rows())

    def _queries(self) -> list[QueryFigures]:
        return [figures for figures in (self.natural, self.adversarial) if figures]

    def _rows(self) -> list[tuple[str, str, str]]:
        floor = self.noise_floor
        rows = [
            ("", "natural", "adversarial"),
            self._row("accuracy on members: A_train, R_train", lambda f: _cell(f.train_accuracy)),
            self._row("accuracy on non-members: A_test, R_test", lambda f: _cell(f.test_accuracy)),
            *self._verified_row(),
            self._row("gap attack", lambda f: _cell(f.gap)),
            *self._signal_rows("cross_entropy", "cross-entropy threshold: P_Enat, P_Eadv (in-sample)"),
            *self._signal_rows("confidence", "confidence threshold of [20] (in-sample)"),
            ("P_MAX (in-sample)", _cell(self.p_max), ""),
            ("noise floor of an in-sample threshold: mean, 95 %", _cell(floor.mean), _cell(floor.upper_95)),
        ]
        costs = [(f"cost: {name}", f"{value:,}", "") for name, value in self.cost.items()]
        return rows + self._robustness_rows() + costs

    def _verified_row(self) -> list[tuple[str, str, str]]:
        if self.verification is None:
            return []
        title = f"verified accuracy on non-members, linf radius {self.verification.epsilon:g}: V_test"
        return [(title, "", _cell(self.verification.accuracy))]

    def _robustness_rows(self) -> list[tuple[str, str, str]]:
        """The accuracy that the ensemble leaves at each radius, with its exact 95 % interval."""
        result = self.robustness
        if result is None:
            return []
        title = f"accuracy on {len(result.fooled_at):,} non-members against {', '.join(result.attacks)}"
        rows = [(title, _cell(result.accuracies[0]), "")]
        for epsilon in result.epsilons[1:]:
            low, high = result.interval(epsilon)
            left = f"{_cell(result.accuracy(epsilon))} [{low:.3f}, {high:.3f}]"
            rows.append((f"- {result.norm} radius {epsilon:g}", "", left))
        return rows

    def _signal_rows(self, signal: str, title: str) -> list[tuple[str, str, str]]:
        def tpr(index: int) -> Callable[[QueryFigures], str]:
            return lambda figures: rate_cell(figures.signal(signal).tpr_at_fpr[index])

        rates = [rate.fpr for rate in self.natural.signal(signal).tpr_at_fpr]
        return [
            self._row(title, lambda f: _cell(f.signal(signal).balanced_accuracy)),
            self._row("- AUC", lambda f: _cell(f.signal(signal).auc)),
            *(self._row(f"- TPR at {100 * rate:g} % FPR", tpr(index)) for index, rate in enumerate(rates)),
            self._row("- share of tied scores", lambda f: _cell(f.signal(signal).tie_share)),
        ]

    def _row(self, title: str, cell: Callable[[QueryFigures], str]) -> tuple[str, str, str]:
        return title, cell(self.natural), cell(self.adversarial) if self.adversarial else "-"


def evaluate(
    network: keras.Model,
    *,
    members: Data,
    non_members: Data,
    attack: Attack | None = None,
    verify: float | None = None,
    robustness: Robustness | None = None,
    cost: Mapping[str, float] | None = None,
    seed: Seed = 0,
    batch_size: int = 256,
    on_batch: Callable[[int], None] | None = None,
    verbose: Verbose = 0,
) -> Report:
    """Measures accuracy, robustness and membership leakage of a network, and joins them with what it cost.

    Args:
        network: gives logits of shape `(batch, num_classes)`, or one logit or sigmoid.
        members: its training data: arrays, or a finite dataset; see `pineat_tf.data`. Weights of examples are ignored.
        non_members: data that it was not trained on.
        attack: what robustness is measured against; None measures natural inputs only.
        verify: L-inf radius within which robustness of the non-members is proved as well (`verify`), in the pixel
            range of the attack, or [0, 1] without one; None proves nothing.
        robustness: of this network against stronger attacks, from `pineat_tf.robustness`, to stand in the record.
        cost: what its training cost, finite numbers by name, to stand in the record.
        seed: randomness of the attack.
        batch_size: images predicted at once, where the data is arrays.
        on_batch: called after each batch with how many images it had, e.g. to move a progress bar.
        verbose: Keras' progress bar, one a kind of input and data: "auto" or 1 for a bar, 2 for a line at the end, 0
            for nothing.

    Returns:
        The record. Its membership thresholds are in-sample: compare them with its noise floor.

    Raises:
        ValueError: if the network's outputs are probabilities, or images or labels are not as they must be.
        RuntimeError: if the attack leaves a smaller accuracy than is proved, by which one of them is wrong.

    Example:
        >>> attack = pgd(epsilon=0.1, step_size=0.0125, num_steps=20, random_start=False)
        >>> evaluate(network, members=train, non_members=test, attack=attack).p_max

    Reference:
        PINEAT, section 4.3.
    """
    check_network(network)
    if attack is not None:
        check_attack("attack", attack)
    for name, data in (("members", members), ("non_members", non_members)):
        several_passes = attack is not None or (verify is not None and name == "non_members")
        as_batches(data, batch_size, network=network, several_passes=several_passes, name=name)

    def figures(queries: str, attack: Attack | None) -> QueryFigures:
        predict = Predictor(network, attack)
        options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "on_batch": on_batch, "verbose": verbose}
        members_seen, non_members_seen = (
            predict(data, **options, title=f"{queries} accuracy on {name}")
            for name, data in (("members", members), ("non-members", non_members))
        )
        return QueryFigures.from_predictions(members_seen, non_members_seen, queries)

    natural = figures("natural", None)
    adversarial = figures("adversarial", attack) if attack is not None else None
    verification = None
    if verify is not None:
        bounds = ThreatModel.of(attack).bounds
        limits = (0.0, 1.0) if isinstance(bounds, str) else bounds
        verification = verified(network, non_members, verify, bounds=limits, batch_size=batch_size)
    if attack is not None and adversarial and verification:
        check_not_below_proof(network, attack, adversarial.test_accuracy, verification)
    return Report(
        natural=natural,
        adversarial=adversarial,
        verification=verification,
        robustness=robustness,
        cost=dict(cost or {}),
    )


def schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of `Report.to_dict`.

    Example:
        >>> schema()["type"]
        'object'
    """
    found: dict[str, Any] = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return found


def _cell(figure: float) -> str:
    return f"{figure:.4f}"


def rate_cell(rate: TprAtFpr) -> str:
    """Formats a TPR for a table: the figure, or "n/a" with the smallest rate at which there is one.

    Example:
        >>> rate_cell(TprAtFpr(0.001, None, None, 0.002))
        'n/a (smallest attainable FPR 0.002)'
    """
    if rate.tpr is None:
        return f"n/a (smallest attainable FPR {rate.smallest_attainable_fpr:.3g})"
    return _cell(rate.tpr)


class Markdown(str):
    """Text that is Markdown already, and not to be quoted.

    Example:
        >>> quoted(Markdown("**0.7**"))
        '**0.7**'
    """


def quoted(text: str) -> str:
    """Quotes text for Markdown, on one line: signs that would mark it up or end a cell are escaped.

    Example:
        >>> quoted("<b>")
        '&lt;b>'
    """
    if isinstance(text, Markdown):
        return text
    text = re.sub(r"([\\`*|])", r"\\\1", " ".join(str(text).split("\n")).replace("\r", " "))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lays rows of cells out as a Markdown table, titles first; cells are quoted unless they are `Markdown`.

    Example:
        >>> markdown_table([("method", "A_test"), ("natural", "0.88")]).splitlines()[-1]
        '| natural | 0.88 |'
    """
    lines = ["| " + " | ".join(map(quoted, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
