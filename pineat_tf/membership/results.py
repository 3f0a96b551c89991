"""The record of one membership audit, which says what it was calibrated on."""

import dataclasses
import math

from pineat_tf.checks import check_choice
from pineat_tf.membership.thresholds import NoiseFloor, TprAtFpr

QUERIES = ("natural", "adversarial")
"""What the attacker shows the network: examples as they are, or attacked ones."""


@dataclasses.dataclass(frozen=True)
class MembershipResult:
    """What one signal reveals about membership.

    Attributes:
        signal: name of the score, e.g. "cross_entropy".
        queries: "natural" or "adversarial" inputs (P_Enat or P_Eadv of the PINEAT paper).
        calibration: what the threshold was chosen on. "in-sample": on the very scores that
            `balanced_accuracy` is measured on, so compare it with `noise_floor`, not with 0.5.
        num_members: scored training members.
        num_non_members: scored unseen examples.
        balanced_accuracy: 0.5 * (TPR + 1 - FPR) at `threshold`.
        threshold: member iff score >= threshold; `inf` accepts none.
        auc: area under the ROC curve, ties counting one half.
        tpr_at_fpr: TPR at low false positive rates (1 % and 0.1 %).
        noise_floor: best in-sample balanced accuracy where nothing leaks.
        tie_share: share of scores that equal another one.
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

    def __post_init__(self):
        check_choice("queries", self.queries, QUERIES)

    def to_dict(self) -> dict:
        """Gives the record as plain values for strict JSON.

        JSON has no infinities: an infinite float becomes the string "inf" or "-inf", which
        Python's `float()` reads back. A TPR that ties forbid is null.

        Returns:
            A dict of str, int, float, None, lists and dicts; never a NaN or an infinity.

        Example:
            >>> from pineat_tf.membership import audit_scores
            >>> result = audit_scores([0.0], [1.0], signal="confidence", queries="natural")
            >>> result.to_dict()["threshold"]
            'inf'
        """
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _plain(value):
    """Rewrites a field, a record or a tuple of records in JSON's own types."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
