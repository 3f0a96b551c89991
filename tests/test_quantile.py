"""Quantile regression on scores of known distribution: calibrated, finds what is planted, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import area
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold

from pineat_tf import membership

pytestmark = pytest.mark.usefixtures("one_thread")


def planted(num, leak, seed):
    """Logit scores normal around a difficulty that the features tell, with a deviation that they tell as well.

    Members lie `leak` deviations higher.
    """
    rng = np.random.default_rng(seed)
    features = rng.uniform(size=(num, 3))
    deviation = np.where(features[:, 1] > 0.5, 2.0, 0.5)
    scores = 10 * features[:, 0] + deviation * (leak + rng.normal(size=num))
    logits = np.column_stack([scores, np.zeros(num)])  # of two classes, the logit score is the difference
    return SimpleNamespace(labels=np.zeros(num, int), logits=logits), features


def attacked(leak, num=3000, num_population=6000, seed=0):
    parts = [
        planted(size, height, seed + i) for i, (size, height) in enumerate([(num_population, 0), (num, leak), (num, 0)])
    ]
    seen, features = zip(*parts)
    return seen, membership.quantile_regression_scores(*seen, features=features)


def test_a_planted_leak_is_found_where_a_global_threshold_is_nearly_blind():
    seen, found = attacked(leak=1.5)
    plain = area(*(membership.logit_score(part.labels, part.logits) for part in seen[1:]))
    ideal = stats.norm.cdf(1.5 / np.sqrt(2))  # .856, were mean and deviation known
    assert plain < 0.68
    assert ideal - 0.03 < area(*found) < ideal + 0.02


def test_thresholds_have_the_false_positive_rate_that_they_promise():
    _, (members, non_members) = attacked(leak=1.5, num=6000)
    for rate in (0.2, 0.05, 0.01):
        threshold = stats.norm.isf(rate)
        # Of 6000 examples, the rate of .01 has a standard error of .0013; mean and deviation have errors of their own.
        assert 0.6 * rate < np.mean(non_members >= threshold) < 1.5 * rate
        power = stats.norm.sf(threshold - 1.5)
        assert np.mean(members >= threshold) == pytest.approx(power, abs=0.06)
    assert np.std(non_members) == pytest.approx(1.0, abs=0.1)


def test_without_a_leak_nothing_is_found():
    areas = [area(*attacked(0.0, num=400, num_population=400, seed=10 * seed)[1]) for seed in range(4)]
    # An AUC of 400 against 400 has a standard deviation of sqrt(801 / (12 * 160000)) = .0204.
    assert abs(np.mean(areas) - 0.5) < 3.5 * 0.0204 / np.sqrt(4)


def test_scores_are_those_of_scikit_learn():
    (population, population_features), (audited, features) = planted(300, 0.0, 0), planted(50, 0.0, 1)
    target = population.logits[:, 0]

    def predicted(values, **options):
        trees = HistGradientBoostingRegressor(early_stopping=True, random_state=4, **options)
        return trees.fit(population_features, values).predict(features)

    centre = predicted(target, max_leaf_nodes=8)
    held_out, trees = (
        np.empty(300),
        HistGradientBoostingRegressor(early_stopping=True, random_state=4, max_leaf_nodes=8),
    )
    for known, rest in KFold(5, shuffle=True, random_state=4).split(target):
        held_out[rest] = trees.fit(population_features[known], target[known]).predict(population_features[rest])
    variance = predicted((target - held_out) ** 2, loss="gamma", max_leaf_nodes=4, min_samples_leaf=50)
    found, again = membership.quantile_regression_scores(
        population, audited, audited, features=(population_features, features, features), seed=4
    )
    np.testing.assert_allclose(found, (audited.logits[:, 0] - centre) / np.sqrt(variance), rtol=1e-6)
    np.testing.assert_array_equal(found, again)


def test_equal_scores_stay_finite():
    seen, features = planted(60, 0.0, 0)
    seen.logits[:] = [1.0, 0.0]
    found, _ = membership.quantile_regression_scores(seen, seen, seen, features=[features] * 3)
    assert np.isfinite(found).all()


def test_images_become_components_and_classes():
    rng = np.random.default_rng(0)
    population, others = rng.uniform(size=(30, 4, 4, 1)), rng.uniform(size=(5, 4, 4, 1))
    classes, other_classes = np.arange(30) % 3, np.array([0, 1, 2, 3, 0])
    of_population, of_others = membership.image_features(
        (population, classes), (others, other_classes), num_components=6
    )
    assert of_population.shape == (30, 6 + 4) and of_others.shape == (5, 6 + 4)
    pca = PCA(6, random_state=0).fit(population.reshape(30, -1))
    np.testing.assert_allclose(of_others[:, :6], pca.transform(others.reshape(5, -1)), atol=1e-9)
    np.testing.assert_array_equal(of_others[:, 6:], np.eye(4)[other_classes])
    (few,) = membership.image_features((population, classes))
    assert few.shape == (30, 16 + 3)  # no more components than pixels


def test_from_images_to_scores_of_a_network_that_is_surer_of_bright_ones():
    rng = np.random.default_rng(0)

    def part(num, leak):
        images, labels = rng.uniform(size=(num, 1)) * rng.uniform(0.9, 1, size=(num, 9)), rng.integers(0, 2, num)
        scores = 20 * images.mean(axis=1) + rng.normal(size=num) + leak
        logits = np.zeros((num, 2))
        logits[np.arange(num), labels] = scores
        return (images, labels), SimpleNamespace(labels=labels, logits=logits)

    data, seen = zip(part(2000, 0), part(800, 2), part(800, 0))
    found = membership.quantile_regression_scores(*seen, features=membership.image_features(*data))
    plain = area(*(membership.logit_score(p.labels, p.logits) for p in seen[1:]))
    assert plain < 0.65 and area(*found) > 0.85  # ideally Phi(2 / sqrt 2) = .921


def test_bad_input_teaches():
    seen, features = planted(60, 0.0, 0)

    def scores(*predictions, **options):
        return membership.quantile_regression_scores(*predictions, **{"features": [features] * 3, **options})

    with pytest.raises(ValueError, match="`seed` must be a whole number >= 0"):
        scores(seen, seen, seen, seed=-1)
    with pytest.raises(ValueError, match="`members` must have `.logits` and `.labels`. Received: list"):
        scores(seen, [1.0], seen)
    for bad in ([features] * 2, [features, features, features[:, :2]], [features[:, 0]] * 3, [features[:9]] * 3):
        with pytest.raises(ValueError, match=r"`features` must be three arrays.*num = \[60, 60, 60\]"):
            scores(seen, seen, seen, features=bad)
    small, of_small = planted(49, 0.0, 0)
    with pytest.raises(ValueError, match="`population` must have at least 50 examples.*Received: 49"):
        scores(small, seen, seen, features=[of_small, features, features])
    images = np.zeros((4, 2, 2))
    with pytest.raises(ValueError, match="`labels` must be labels of one class an example.*must sum to 1"):
        membership.image_features((images, np.eye(4)[:, :3]))
    with pytest.raises(ValueError, match=r"one shape. Received: images of \[4, 9\] pixels"):
        membership.image_features((images, np.zeros(4, int)), (np.zeros((4, 3, 3)), np.zeros(4, int)))
    with pytest.raises(ValueError, match="`num_components` must be a whole number >= 1"):
        membership.image_features((images, np.zeros(4, int)), num_components=0)
