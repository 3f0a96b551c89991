"""Where thresholds come from: the figures of the authors' code, halves that are halves, errors that teach."""

import math
import pathlib
from types import SimpleNamespace

import mie
import numpy as np
import pytest

from pineat_tf import membership
from pineat_tf.membership import calibration, thresholds

YALE = pathlib.Path(__file__).resolve().parents[1].parent / "shared" / "truth" / "yale" / "pgd.npz"


def scored(signal, split):
    """Scores and labels of members and non-members, as `ScoreSets`."""
    (labels_in, logits_in), (labels_out, logits_out) = split
    score = membership.SIGNALS[signal]
    return membership.ScoreSets(score(labels_in, logits_in), score(labels_out, logits_out), labels_in, labels_out)


def accuracy(target, **options):
    return membership.calibrated_accuracy(**target._asdict(), **options)


# ---------------------------------------------------------------- published figures


PUBLISHED = {  # goldens.md, E: per class, thresholds of the shadow model
    "correctness": 0.5923611111,
    "confidence": 0.6159722222,
    "cross_entropy": 0.6159722222,
    "entropy": 0.6118055556,
    "modified_entropy": 0.6194444444,
}


@pytest.mark.parametrize("signal", PUBLISHED)
def test_shadow_thresholds_a_class_are_those_of_their_authors_code(signal):
    target, shadow = scored(signal, mie.TARGET), scored(signal, mie.SHADOW)
    found = accuracy(target, calibration="shadow", shadow=shadow, per_class=True)
    assert found == pytest.approx(PUBLISHED[signal], abs=1e-10)


def test_predictions_are_audited_with_the_thresholds_of_a_shadow_model():
    splits = (
        [SimpleNamespace(labels=labels, logits=logits) for labels, logits in split]
        for split in (mie.TARGET, mie.SHADOW)
    )
    (members, non_members), shadow = splits
    for result in membership.audit_predictions(
        members, non_members, queries="natural", calibration="shadow", shadow=tuple(shadow), per_class=True
    ):
        assert result.balanced_accuracy == pytest.approx(PUBLISHED[result.signal], abs=1e-10)
        assert result.calibration == "shadow" and sorted(result.class_thresholds) == [0, 1, 2, 3]
        assert result.to_dict()["class_thresholds"]["0"] == result.class_thresholds[0]


def yale(kind, score):
    if not YALE.exists():
        pytest.skip(f"the Yale predictions of reference [20] are not at ../shared/truth/yale: {YALE.name}")
    with np.load(YALE, allow_pickle=False) as arrays:
        labels = arrays["train_label"], arrays["test_label"]
        probs = (arrays[f"output_{split}_{kind}"] for split in ("train", "test"))
        scores = [np.asarray(score(y, p, from_logits=False)) for y, p in zip(labels, probs)]
    parts = (calibration.score_sets(*(column[i::2] for column in (*scores, *labels))) for i in (0, 1))
    return tuple(parts)  # even rows: shadow, odd rows: target


YALE_FIGURES = [  # goldens.md, E: kind, signal, per class by the first best threshold, by one threshold for all
    ("benign", membership.confidence_score, 0.5895699365, 0.5976),
    ("adversarial", membership.confidence_score, 0.6411325005, 0.6843),
    ("benign", mie.modified_entropy_score, 0.5949272988, None),
    ("adversarial", mie.modified_entropy_score, 0.6411325005, None),
]


@pytest.mark.parametrize("kind, score, per_class, overall", YALE_FIGURES)
def test_yale_figures_of_the_authors_code(kind, score, per_class, overall):
    # Where a saturated softmax leaves several thresholds equally good their code keeps the first, ours the largest.
    shadow, target = yale(kind, score)
    first_best = {c: mie.first_best_threshold(*shadow.of_class(c)[:2]) for c in shadow.classes()}
    found = calibration.Thresholds(math.inf, first_best).decide(target)
    assert found.balanced_accuracy == pytest.approx(per_class, abs=1e-10)
    if overall is not None:
        found = calibration.calibrate(target, calibration="shadow", shadow=shadow).decisions
        assert found.balanced_accuracy == pytest.approx(overall, abs=5e-5)


def test_the_largest_of_equally_good_thresholds_differs_from_the_first_by_little():
    shadow, target = yale("benign", membership.confidence_score)
    ours = calibration.calibrate(target, calibration="shadow", shadow=shadow, per_class=True).decisions
    assert ours.balanced_accuracy == pytest.approx(0.5854167520, abs=1e-10)  # 0.5895699365 by the first
    shadow, target = yale("adversarial", membership.confidence_score)
    ours = calibration.calibrate(target, calibration="shadow", shadow=shadow, per_class=True).decisions
    assert ours.balanced_accuracy == pytest.approx(0.6411325005, abs=1e-10)


@pytest.mark.parametrize("kind, accuracy", [("benign", 0.5086749949), ("adversarial", 0.5978496826)])
def test_yale_correctness_needs_no_threshold(kind, accuracy):
    shadow, target = yale(kind, membership.correctness_score)
    found = calibration.calibrate(target, calibration="shadow", shadow=shadow).decisions
    assert found.balanced_accuracy == pytest.approx(accuracy, abs=1e-10)


# ---------------------------------------------------------------- thresholds


def test_each_class_has_its_threshold_and_falls_back_where_it_cannot():
    # Class 0: {3} | {2}, class 1: {9} | {8}; class 2 has no non-members. Overall: accept {9} (1/3) or {9, 8, 3} (2/3 -
    # 1/2) or {9, 8, 3, 2, 1} (0).
    scores = calibration.score_sets([3, 9, 1], [2, 8], [0, 1, 2], [0, 1])
    found = calibration.choose_thresholds(scores, per_class=True)
    assert found == (9.0, {0: 3.0, 1: 9.0})
    assert found.decide(scores) == (2, 3, 0, 2)
    unseen = calibration.score_sets([9.5, 7], [8.5], [5, 5], [5])
    assert found.decide(unseen) == (1, 2, 0, 1)
    assert calibration.choose_thresholds(scores) == (9.0, None)


def test_a_threshold_that_accepts_nobody_decides_for_nobody():
    found = calibration.choose_thresholds(calibration.score_sets([0.0], [1.0], [0], [0]), per_class=True)
    assert found == (math.inf, {0: math.inf})
    assert found.decide(calibration.score_sets([5.0], [5.0], [0], [1])) == (0, 1, 0, 1)


def test_in_sample_decisions_are_those_of_the_best_threshold():
    rng = np.random.default_rng(1)
    for decimals in (1, 9):
        member, non_member = rng.normal(0.3, 1, 70).round(decimals), rng.normal(0, 1, 50).round(decimals)
        result = membership.audit_scores(member, non_member, signal="s", queries="natural")
        best = thresholds.best_threshold(member, non_member)
        assert (result.threshold, result.balanced_accuracy) == best
        assert result.advantage == 2 * best.balanced_accuracy - 1
        assert result.decisions.balanced_accuracy == best.balanced_accuracy
        assert result.decisions[::2] == (np.sum(member >= best.threshold), np.sum(non_member >= best.threshold))


# ---------------------------------------------------------------- held-out


def test_the_held_out_half_has_half_of_each_kind_and_class():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 101), rng.integers(0, 3, 60)
    scores = calibration.score_sets(rng.normal(size=101), rng.normal(size=60), *labels)
    halves = calibration._halves(scores, np.random.default_rng(0))
    for kind in (0, 1):
        both = np.concatenate([half[kind] for half in halves])
        np.testing.assert_array_equal(np.sort(both), np.sort(scores[kind]))  # each example in one of them
        sizes = [np.bincount(half[2 + kind], minlength=3) for half in halves]
        assert np.abs(sizes[0] - sizes[1]).max() <= 1
    for half in halves:  # labels stay with their scores
        where = {score: label for score, label in zip(scores.member_scores, scores.member_labels)}
        assert all(where[score] == label for score, label in zip(half.member_scores, half.member_labels))


def test_held_out_figures_are_of_the_half_that_had_no_say():
    rng = np.random.default_rng(3)
    member, non_member = rng.normal(0.5, 1, 200), rng.normal(0, 1, 100)
    options = {"signal": "s", "queries": "natural", "calibration": "held-out"}
    result = membership.audit_scores(member, non_member, **options, seed=4)
    assert (result.calibration, result.decisions.num_members, result.decisions.num_non_members) == ("held-out", 100, 50)
    target = calibration.score_sets(member, non_member)
    chosen_on, judged = calibration._halves(target, np.random.default_rng([4, 0]))
    assert result.threshold == thresholds.best_threshold(*chosen_on[:2]).threshold
    hits, alarms = (np.mean(scores >= result.threshold) for scores in judged[:2])
    assert result.balanced_accuracy == pytest.approx(0.5 * (hits + 1 - alarms))
    assert (result.num_members, result.num_non_members) == (200, 100)  # AUC and TPR at low FPR are of all
    assert result.auc == thresholds.auc(thresholds.roc(member, non_member))
    assert result == membership.audit_scores(member, non_member, **options, seed=4)
    assert result.threshold != membership.audit_scores(member, non_member, **options, seed=5).threshold


@pytest.mark.parametrize("per_class", [False, True])
def test_only_in_sample_thresholds_profit_from_luck_and_their_noise_floor_says_how_much(per_class):
    rng = np.random.default_rng(6)
    found = {"in-sample": [], "held-out": []}
    for seed in range(20 if per_class else 60):
        labels = rng.integers(0, 5, 800), rng.integers(0, 5, 400)
        scores = calibration.score_sets(rng.normal(size=800), rng.normal(size=400), *labels)
        for name in found:
            figures = calibration.calibrate(scores, calibration=name, per_class=per_class, seed=seed)
            found[name].append((figures.decisions.balanced_accuracy, *figures.noise_floor))
    (in_sample, mean, upper_95), (held_out, half, held_out_upper) = (np.transpose(found[name]) for name in found)
    assert np.all(half == 0.5) and np.mean(held_out) == pytest.approx(0.5, abs=0.01)  # se .0027, .0047 a class
    assert np.mean(in_sample) == pytest.approx(np.mean(mean), abs=0.004)
    for figures, bound in ((in_sample, upper_95), (held_out, held_out_upper)):
        assert np.sum(figures > bound) <= 8  # of 60 draws 3 +- 1.7, of 20 one


# ---------------------------------------------------------------- what a record tells


def test_precision_falls_with_the_prior_and_no_rate_is_taken_for_zero():
    member, non_member = np.arange(50.0, 150), np.arange(100.0)
    result = membership.audit_scores(member, non_member, signal="s", queries="natural")
    found = result.positive_predictive_values()
    # Threshold 100 accepts members 100 .. 149 and nobody else: of 100 non-members, it may be 1 in 101. At 1 % FPR:
    # members from 99, and one non-member.
    assert (result.decisions, result.tpr_at_fpr[0].tpr) == ((50, 100, 0, 100), 0.51)
    assert found["threshold"][0.5] == pytest.approx(0.25 / (0.25 + 0.5 / 101))
    assert found["threshold"][0.01] == pytest.approx(0.005 / (0.005 + 0.99 / 101))
    assert found["tpr_at_fpr_0.01"][0.01] == pytest.approx(0.0051 / (0.0051 + 0.99 * 0.01))
    # 100 non-members say nothing of 0.1 %.
    assert result.tpr_at_fpr[1] == (0.001, None, None, 0.01)
    assert found["tpr_at_fpr_0.001"] == found["tpr_at_fpr_0.0001"] == {0.5: None, 0.1: None, 0.01: None}


def test_precision_is_unknown_where_no_threshold_meets_the_rate():
    result = membership.audit_scores([1.0, 1.0], [1.0], signal="s", queries="natural")
    found = result.positive_predictive_values(priors=(0.1,))
    assert found["tpr_at_fpr_0.01"] == {0.1: None} and math.isnan(found["threshold"][0.1])


def test_epsilon_is_bounded_by_thresholds_chosen_elsewhere_only():
    member, non_member = np.ones(200), np.zeros(200)
    options = {"signal": "s", "queries": "natural"}
    held_out = membership.audit_scores(member, non_member, **options, calibration="held-out")
    assert held_out.decisions == (100, 100, 0, 100)
    assert held_out.epsilon_lower_bound() == pytest.approx(3.2813, abs=5e-5)  # goldens.md, 5.3
    assert held_out.epsilon_lower_bound(delta=0.5) < 3.2813
    with pytest.raises(ValueError, match='chosen on other scores. Received: calibration="in-sample"'):
        membership.audit_scores(member, non_member, **options).epsilon_lower_bound()


# ---------------------------------------------------------------- errors


def test_bad_calibrations_teach():
    scores, labels = ([1.0, 2.0], [0.0, 1.0]), {"member_labels": [0, 1], "non_member_labels": [0, 1]}
    shadow = membership.ScoreSets([1.0], [0.0])
    for options, message in [
        ({"calibration": "holdout"}, "`calibration` must be one of.*Did you mean 'held-out'"),
        ({"calibration": "shadow"}, '`shadow` goes with calibration="shadow".*absent'),
        ({"calibration": "in-sample", "shadow": shadow}, "`shadow` goes with.*given"),
        ({"per_class": True}, "`per_class` needs the class of every example"),
        ({"per_class": True, "calibration": "shadow", "shadow": shadow, **labels}, "of a shadow model too"),
        ({"member_labels": [0]}, "`member_labels` must have one label an example.*1 labels for 2 examples"),
        ({"non_member_labels": [0.0, 1.5]}, "`non_member_labels` must be labels.*be whole"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
        ({"calibration": "shadow", "shadow": ([], [0.0])}, "`shadow.member_scores` must have shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            membership.calibrated_accuracy(*scores, **options)
    with pytest.raises(ValueError, match="at least two members and two non-members. Received: 2 and 1"):
        membership.calibrated_accuracy([1.0, 2.0], [0.0])
    with pytest.raises(ValueError, match="`calibration` must be one of"):
        result = membership.audit_scores(*scores, signal="s", queries="natural")
        membership.MembershipResult(**{**vars(result), "calibration": "guessed"})


def test_the_noise_floor_of_classes_covers_shares_that_differ():
    rng, above = np.random.default_rng(0), 0
    labels = [np.repeat([0, 1], [1200, 800]), np.repeat([0, 1], [800, 1200])]
    for _ in range(200):
        scores = calibration.score_sets(rng.normal(size=2000), rng.normal(size=2000), *labels)
        figures = calibration.calibrate(scores, calibration="in-sample", per_class=True, seed=0)
        above += figures.decisions.balanced_accuracy > figures.noise_floor.upper_95
    assert above <= 20  # 5 % are 10; binomial deviation 3
