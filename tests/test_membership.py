"""Audits of scores and predictions, and their records."""

import dataclasses
import json
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from pineat_tf import membership
from pineat_tf.membership import audit, calibration, results, thresholds


def predictions(seed, num=40, num_classes=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num)
    return SimpleNamespace(labels=labels, logits=rng.normal(0, 3.0, (num, num_classes)))


def test_audit_scores_gathers_every_figure():
    member, non_member = [3.0, 2.0, 2.0, 0.0], [2.0, 1.0]
    result = audit.audit_scores(member, non_member, signal="margin", queries="adversarial")
    curve = thresholds.roc(member, non_member)
    assert result == results.MembershipResult(
        signal="margin",
        queries="adversarial",
        calibration="in-sample",
        num_members=4,
        num_non_members=2,
        balanced_accuracy=0.625,  # {3} gives 1/4 - 0, {3, 2, 2, 2} gives 3/4 - 1/2
        threshold=3.0,
        auc=0.625,  # of 8 pairs: 2 + 1 + 1 + 0 wins and two ties = 5
        tpr_at_fpr=tuple(thresholds.tpr_at_fpr(curve, fpr) for fpr in (0.01, 0.001, 0.0001)),
        noise_floor=thresholds.noise_floor(4, 2),
        tie_share=0.5,
        decisions=calibration.Decisions(1, 4, 0, 2),
    )
    assert result.tpr_at_fpr[0] == (0.01, None, None, 0.5)


def test_to_dict_is_strict_json_that_reads_back():
    best_is_none = audit.audit_scores([0.0, -np.inf], [1.0, 1.0], signal="s", queries="natural")
    figures = best_is_none.to_dict()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert list(figures) == [field.name for field in dataclasses.fields(best_is_none)] + ["advantage"]
    assert figures["threshold"] == "inf" and float(figures["threshold"]) == math.inf
    assert figures["tpr_at_fpr"][0] == {
        "fpr": 0.01,
        "tpr": None,
        "attained_fpr": None,
        "smallest_attainable_fpr": 1.0,
    }
    assert figures["noise_floor"] == best_is_none.noise_floor._asdict()
    accepts_all = dataclasses.replace(best_is_none, threshold=-math.inf)
    assert accepts_all.to_dict()["threshold"] == "-inf"


def test_records_are_frozen_and_know_their_queries():
    result = audit.audit_scores([1.0], [0.0], signal="s", queries="natural")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.auc = 1.0
    with pytest.raises(ValueError, match="`queries` must be one of.*adversarial"):
        audit.audit_scores([1.0], [0.0], signal="s", queries="adverserial")


def test_audit_predictions_audits_every_signal_in_order():
    members, non_members = predictions(3), predictions(4, num=30)
    by_loss, by_confidence, *others = audit.audit_predictions(members, non_members, queries="natural")
    assert (by_loss.signal, by_confidence.signal) == ("cross_entropy", "confidence")
    assert [result.signal for result in others] == ["correctness", "entropy", "modified_entropy"]
    expected = audit.audit_scores(
        membership.cross_entropy_score(members.labels, members.logits),
        membership.cross_entropy_score(non_members.labels, non_members.logits),
        signal="cross_entropy",
        queries="natural",
    )
    assert by_loss == expected
    assert (by_loss.num_members, by_loss.num_non_members) == (40, 30)
    assert audit.audit_predictions(members, non_members, queries="natural", signals="confidence") == (by_confidence,)


def test_a_planted_leak_is_found_and_no_leak_is_noise():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 10, 4000)
    logits = rng.normal(size=(4000, 10))
    logits[np.arange(4000), labels] += 2
    half = [SimpleNamespace(labels=labels[i::2], logits=logits[i::2].copy()) for i in (0, 1)]
    (none,) = audit.audit_predictions(*half, queries="natural", signals=["cross_entropy"])
    assert none.balanced_accuracy < none.noise_floor.upper_95 and abs(none.auc - 0.5) < 0.02
    half[0].logits[np.arange(2000), half[0].labels] += 1
    (leak,) = audit.audit_predictions(*half, queries="natural", signals=["cross_entropy"])
    assert leak.balanced_accuracy > leak.noise_floor.upper_95 + 0.1 and leak.auc > 0.65
    assert leak.tpr_at_fpr[0].tpr > 0.01


def test_a_signal_can_be_added(monkeypatch):
    monkeypatch.setitem(audit.SIGNALS, "largest_logit", lambda labels, logits: np.max(logits, axis=1))
    (result,) = audit.audit_predictions(predictions(6), predictions(7), queries="natural", signals=["largest_logit"])
    assert result.signal == "largest_logit"


def test_one_number_an_example_and_rows_of_labels_are_audited():
    labels, z = np.array([1, 0, 1, 0]), np.array([[2.0], [-3.0], [-0.5], [0.25]])
    members = SimpleNamespace(logits=z, labels=np.eye(2)[labels])
    non_members = SimpleNamespace(logits=-z, labels=labels[:, None].astype(float))
    for result in audit.audit_predictions(members, non_members, queries="natural"):
        expected = membership.SIGNALS[result.signal](labels, np.hstack([0 * z, z]))
        assert result.threshold in expected or math.isinf(result.threshold)
    shadow = {"calibration": "held-out", "per_class": True}
    assert audit.audit_predictions(members, non_members, queries="natural", **shadow)[0].class_thresholds is not None


def test_it_shows_names_of_audits_only():
    assert sorted(dir(membership)) == sorted(membership.__all__) and len(membership.__all__) <= 40
    assert all(hasattr(membership, name) for name in membership.__all__)


BAD_AUDITS = [
    (predictions(8), predictions(9), {"signals": ["confidense"]}, "Did you mean 'confidence'"),
    (predictions(8), predictions(9), {"signals": "zzz"}, "`signals` must be one of"),
    (predictions(8), predictions(9, num_classes=4), {}, r"predictions of one network.*5.*4"),
    (predictions(8), (1, 2), {}, "`non_members` must have `.logits`"),
    ({}, predictions(9), {}, "`members` must have `.logits`.*dict"),
    (SimpleNamespace(logits=1.0, labels=0), predictions(9), {}, "shape"),
]


@pytest.mark.parametrize("members, non_members, options, message", BAD_AUDITS)
def test_bad_audits_teach(members, non_members, options, message):
    with pytest.raises(ValueError, match=message):
        audit.audit_predictions(members, non_members, queries="natural", **options)


def test_losses_in_place_of_scores_are_told():
    # The balanced accuracy of the best threshold on losses is 0.5, as if nothing leaked.
    rng = np.random.default_rng(0)
    losses = rng.exponential(0.5, 300), rng.exponential(1.0, 200)
    with pytest.warns(UserWarning, match="larger scores of 'loss' than members, by an AUC of 0.3.*negate losses"):
        found = audit.audit_scores(*losses, signal="loss", queries="natural")
    assert found.balanced_accuracy < 0.51
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert audit.audit_scores(*(-one for one in losses), signal="loss", queries="natural").auc > 0.6
        audit.audit_scores(*losses, signal="entropy", queries="adversarial")
        for seed in range(20):  # chance is no reason
            rng = np.random.default_rng(seed)
            audit.audit_scores(rng.normal(size=30), rng.normal(size=40), signal="noise", queries="natural")
