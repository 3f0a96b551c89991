"""The risk of each example and class, and canaries."""

import mie
import numpy as np
import pytest

from pineat_tf import membership


def sets(split, score=membership.modified_entropy_score):
    (labels_in, logits_in), (labels_out, logits_out) = split
    return membership.ScoreSets(score(labels_in, logits_in), score(labels_out, logits_out), labels_in, labels_out)


def test_risk_scores_are_those_of_their_authors_code():
    target = sets(mie.TARGET)
    found = membership.privacy_risk_scores(target.member_scores, target.member_labels, sets(mie.SHADOW))
    assert found.mean() == pytest.approx(0.5274665858, abs=1e-10)  # goldens.md, E
    expected = [0.44444444, 0.76190476, 1, 0.68085106, 0.44444444, 0.74576271]
    np.testing.assert_allclose(found[:6], expected, atol=5e-9)


def test_risk_scores_tell_the_truth_about_who_is_a_member():
    rng = np.random.default_rng(0)

    def drawn():
        scores = -rng.exponential(1.0, 20_000), -rng.exponential(2.0, 20_000)
        return membership.ScoreSets(*scores, *rng.integers(0, 2, (2, 20_000)))

    shadow, target = drawn(), drawn()
    risks = [
        membership.privacy_risk_scores(scores, labels, shadow, num_bins=20)
        for scores, labels in (target[::2], target[1::2])
    ]
    for low in np.arange(0.3, 0.7, 0.1):  # of those with a risk near r, a share of r are members
        num_in, num_out = (np.sum((risk >= low) & (risk < low + 0.1)) for risk in risks)
        if num_in + num_out > 1000:
            assert num_in / (num_in + num_out) == pytest.approx(low + 0.05, abs=0.06)


def test_an_empty_bin_takes_the_nearest_and_a_class_without_a_histogram_that_of_all():
    # Bins of a decade from 1 to 1000; the middle one is empty: the lower neighbour is asked first.
    shadow = membership.ScoreSets([-1, -1, -1000], [-1, -1000, -1000], [0, 0, 0], [0, 0, 0])
    found = membership.privacy_risk_scores([-0.5, -1, -50, -1000, -5000], [0, 0, 0, 0, 7], shadow, num_bins=3)
    np.testing.assert_allclose(found, [2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3])


def test_risk_scores_of_extremes():
    shadow = membership.ScoreSets([0.0, -1.0], [-1.0, -np.inf], [0, 0], [0, 0])
    found = membership.privacy_risk_scores([0.0, -1.0, -np.inf], [0, 0, 0], shadow, num_bins=2)
    np.testing.assert_allclose(found, [1, 1 / 3, 1 / 3])
    same = membership.ScoreSets([-1.0], [-1.0], [0], [0])
    np.testing.assert_array_equal(membership.privacy_risk_scores([-3.0, -1.0, -0.1], [0, 0, 0], same), [0.5] * 3)
    zeros = membership.ScoreSets([0.0], [0.0], [0], [0])
    np.testing.assert_array_equal(membership.privacy_risk_scores([0.0, -1.0], [0, 0], zeros), [0.5] * 2)
    none_finite = membership.ScoreSets([-np.inf], [-np.inf], [0], [0])
    np.testing.assert_array_equal(membership.privacy_risk_scores([0.0, -1.0], [0, 0], none_finite), [0.5] * 2)


def test_bad_risk_scores_teach():
    shadow = membership.ScoreSets([-1.0], [-2.0], [0], [0])
    for arguments, message in [
        (([0.5], [0], shadow), "at most 0.*up to 0.5"),
        (([np.nan], [0], shadow), "at most 0, and not NaN"),
        (([-1.0], [0], membership.ScoreSets([1.0], [-2.0], [0], [0])), "at most 0.*up to 1"),
        (([-1.0], [0, 1], shadow), "2 labels for 1 examples"),
        (([-1.0], [0.5], shadow), "`labels` must be labels.*be whole"),
        (([-1.0], [0], shadow[:2]), "`shadow` must have the labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            membership.privacy_risk_scores(*arguments)
    with pytest.raises(ValueError, match="`num_bins` must be a whole number >= 1"):
        membership.privacy_risk_scores([-1.0], [0], shadow, num_bins=0)


def test_the_class_that_leaks_is_found_among_those_that_do_not():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 4000), rng.integers(0, 4, 2000)
    members, non_members = rng.normal(size=4000) + 0.8 * (labels[0] == 2), rng.normal(size=2000)
    found = membership.audit_classes(members, non_members, *labels, signal="s", queries="natural", num_bootstrap=100)
    assert found.worst == 2 and list(found.by_class) == [0, 1, 2, 3]
    for label, result in found.by_class.items():
        assert result.num_members == np.sum(labels[0] == label)
        assert result.noise_floor == membership.noise_floor(result.num_members, result.num_non_members)
        assert (result.balanced_accuracy > result.noise_floor.upper_95 + 0.03) == (label == 2)
        assert (result.p_values["auc"] < 0.001) == (label == 2)


def test_classes_without_both_kinds_are_left_out():
    found = membership.audit_classes([1, 2, 3], [0, 1], [0, 0, 1], [0, 2], signal="s", queries="natural")
    assert list(found.by_class) == [0]
    with pytest.raises(ValueError, match="Some class must have both"):
        membership.audit_classes([1], [0], [0], [1], signal="s", queries="natural")
    with pytest.raises(ValueError, match="Some class must have both"):
        membership.audit_classes([1], [0], None, [1], signal="s", queries="natural")


# ---------------------------------------------------------------- canaries


def test_canaries_are_wrong_and_nothing_else_is():
    labels = np.random.default_rng(0).integers(0, 10, 5000).astype(np.uint8)
    before = labels.copy()
    planted, canaries = membership.plant_canaries(labels, num=900, num_classes=10, seed=3)
    np.testing.assert_array_equal(labels, before)
    assert planted.dtype == np.int64 and len(set(canaries.tolist())) == 900
    np.testing.assert_array_equal(np.sort(canaries), np.flatnonzero(planted != labels))
    # Each of the nine wrong classes is as likely: 100 +- 9.4 a step.
    steps = np.bincount((planted[canaries].astype(int) - labels[canaries]) % 10, minlength=10)
    assert steps[0] == 0 and steps[1:].min() > 60 and planted.max() < 10
    again = membership.plant_canaries(np.eye(10)[labels], num=900, num_classes=10, seed=3)  # one-hot
    np.testing.assert_array_equal(again[0], planted)
    np.testing.assert_array_equal(again[1], canaries)
    assert not np.array_equal(membership.plant_canaries(labels, num=900, num_classes=10, seed=4)[1], canaries)


def test_bad_canaries_teach():
    for arguments, message in [
        (([0, 1], 3, 2), "`num` must be at most the number of examples. Received: num=3 of 2"),
        (([0, 1], 0, 2), "`num` must be a whole number >= 1"),
        (([0, 0], 1, 1), "`num_classes` must be a whole number >= 2"),
        (([0, 2], 1, 2), r"must lie in 0 \.\. 1"),
        (([[0, 2]], 1, 2), "must sum to 1"),
        (([0.0, 1.5], 1, 2), "be whole"),
    ]:
        labels, num, num_classes = arguments
        with pytest.raises(ValueError, match=message):
            membership.plant_canaries(labels, num=num, num_classes=num_classes)
