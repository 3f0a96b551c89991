"""The record of one membership audit, which says what it was calibrated on."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pineat_tf.checks import check_choice
from pineat_tf.membership.bounds import epsilon_lower_bound, positive_predictive_value
from pineat_tf.membership.calibration import CALIBRATIONS, Decisions
from pineat_tf.membership.thresholds import NoiseFloor, TprAtFpr
from pineat_tf.statistics import Interval

__all__ = ["PRIORS", "QUERIES", "MembershipResult"]

QUERIES = ("natural", "adversarial")
"""Inputs that the attacker shows the network: examples as they are, or attacked ones."""

PRIORS = (0.5, 0.1, 0.01)
"""Shares of members for which the precision is reported: a balanced audit, and two nearer to the world."""


@dataclasses.dataclass(frozen=True)
class MembershipResult:
    """The record of what one signal reveals about membership.

    Attributes:
        signal: name of the score, e.g. "cross_entropy".
        queries: "natural" or "adversarial" inputs (P_Enat or P_Eadv of the PINEAT paper).
        calibration: what the threshold was chosen on. "in-sample": on the very scores that
            `balanced_accuracy` is measured on, so compare it with `noise_floor`, not with 0.5.
            "held-out": on a random half, judged on the other. "shadow": on a shadow model's scores.
        num_members: scored training members.
        num_non_members: scored unseen examples.
        balanced_accuracy: 0.5 * (TPR + 1 - FPR) of the threshold on the examples of `decisions`.
        threshold: member iff score >= threshold; `inf` accepts none.
        auc: area under the ROC curve of all scores, ties counting one half.
        tpr_at_fpr: TPR of all scores at low false positive rates (1 %, 0.1 % and 0.01 %). It is None at a rate below
            1 / `num_non_members`, or below the share of non-members that tie at the top: see `TprAtFpr`.
        noise_floor: balanced accuracy of a threshold so calibrated where nothing leaks.
        tie_share: share of scores that equal another one.
        decisions: how many members and non-members the threshold called members, of how many that it was judged
            on; None in a record without counts.
        class_thresholds: class number -> its own threshold; None if there is one threshold for all. A class that is
            not among them falls back on `threshold`.
        confidence: of the intervals; None without them.
        intervals: metric ("balanced_accuracy", "advantage", "auc", "tpr_at_fpr_0.01" ...) -> interval; None if not
            asked for. See `uncertainty.score_intervals` for what each covers.
        p_values: metric -> chance of a figure at least as large where membership does not matter; None if not asked
            for. See `uncertainty.leakage_p_values`. In-sample thresholds a class leave "balanced_accuracy" (and
            "advantage") out of both. A TPR that is None has both: what is known of it, a test of the highest scores.

    Example:
        >>> members = predict_logits(network, train)
        >>> non_members = predict_logits(network, test)
        >>> (result, *_) = audit_predictions(members, non_members, queries="natural")
        >>> result.balanced_accuracy >= 0.5
        True
    """

    signal: str
    queries: str
    calibration: str
    num_members: int
    num_non_members: int
    balanced_accuracy: float
    threshold: float
    auc: float
    tpr_at_fpr: tuple[TprAtFpr, ...]
    noise_floor: NoiseFloor
    tie_share: float
    decisions: Decisions | None = None
    class_thresholds: Mapping[int, float] | None = dataclasses.field(default=None, hash=False)
    confidence: float | None = None
    intervals: Mapping[str, Interval] | None = dataclasses.field(default=None, hash=False)
    p_values: Mapping[str, float] | None = dataclasses.field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Checks the two words of the record."""
        check_choice("queries", self.queries, QUERIES)
        check_choice("calibration", self.calibration, CALIBRATIONS)

    @property
    def advantage(self) -> float:
        """TPR - FPR of the threshold, i.e. 2 * balanced_accuracy - 1 (Yeom et al., CSF 2018, definition 4)."""
        return 2 * self.balanced_accuracy - 1

    def positive_predictive_values(self, priors: Sequence[float] = PRIORS) -> dict[str, dict[float, float | None]]:
        """Returns how often the attacker is right who says "member", if members are rare.

        Args:
            priors: shares of members among the examples that are judged, each in [0, 1).

        Returns:
            For "threshold" and for each rate of `tpr_at_fpr` ("tpr_at_fpr_0.01" ...): prior -> share of members among
            those called members. None where the TPR is, NaN where nobody is called a member. At a reported rate the
            FPR is taken as that rate, not the one attained; at the threshold as 1 / (non-members judged + 1) at least:
            none seen among so few does not make the attacker infallible.

        Raises:
            ValueError: if a prior is out of range, or the record has no counts.

        Example:
            >>> from pineat_tf.membership import audit_scores
            >>> result = audit_scores([1.0] * 50, [0.0] * 100, signal="margin", queries="natural")
            >>> found = result.positive_predictive_values(priors=(0.1,))
            >>> round(found["tpr_at_fpr_0.01"][0.1], 4), found["tpr_at_fpr_0.001"][0.1]
            (0.9174, None)

        Reference:
            Jayaraman et al., "Revisiting Membership Inference Under Realistic Assumptions", PoPETs 2021, section 3.
        """
        decisions = self._counted()
        smallest = 1 / (decisions.num_non_members + 1) if decisions.true_positives else 0.0
        rates: dict[str, tuple[float | None, float]] = {"threshold": (decisions.tpr, max(decisions.fpr, smallest))}
        rates |= {f"tpr_at_fpr_{rate.fpr:g}": (rate.tpr, rate.fpr) for rate in self.tpr_at_fpr}
        return {
            name: {p: None if tpr is None else positive_predictive_value(tpr, fpr, prior=p) for p in priors}
            for name, (tpr, fpr) in rates.items()
        }

    def epsilon_lower_bound(self, *, delta: float = 0.0, confidence: float = 0.95) -> float:
        """Bounds the epsilon of differential privacy from below by what the threshold achieved.

        Args:
            delta: of the privacy guarantee, in [0, 1).
            confidence: at least how often the bound is below the true epsilon, in [0, 1).

        Returns:
            The bound, >= 0 (see `bounds.epsilon_lower_bound`).

        Raises:
            ValueError: if the threshold was chosen on the scores it is judged on, which makes the bound too large, or
                an option is out of range.

        Example:
            >>> from pineat_tf.membership import audit_scores
            >>> result = audit_scores([1] * 200, [0] * 200, signal="s", queries="natural", calibration="held-out")
            >>> round(result.epsilon_lower_bound(), 4)  # 100 of 100 members and 0 of 100 non-members accepted
            3.2813
        """
        if self.calibration == "in-sample":
            raise ValueError(
                "A bound on epsilon needs a threshold that was chosen on other scores. Received: "
                'calibration="in-sample". Audit with calibration="held-out" or "shadow".'
            )
        return epsilon_lower_bound(*self._counted(), delta=delta, confidence=confidence)

    def to_dict(self) -> dict[str, Any]:
        """Converts the record to plain values for strict JSON.

        JSON has no infinities: an infinite float becomes the string "inf" or "-inf", which Python's `float()` reads
        back. A TPR that ties forbid is null, and so is what was not asked for. Class numbers become strings.

        Example:
            >>> from pineat_tf.membership import audit_scores
            >>> result = audit_scores([0.0], [1.0], signal="confidence", queries="natural")
            >>> result.to_dict()["threshold"]
            'inf'
        """
        fields = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return fields | {"advantage": self.advantage}

    def _counted(self) -> Decisions:
        if self.decisions is None:
            raise ValueError("The record has no counts. Received: decisions=None. Take a record of `audit_scores`.")
        return self.decisions


def _plain(value: Any) -> Any:
    """Converts a field, a record or a tuple of records to JSON's own types."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
