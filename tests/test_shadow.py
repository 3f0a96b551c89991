"""LiRA, BaVarIA, PMIA and RMIA against TensorFlow Privacy's values, twins written as loops, and planted leaks."""

import numpy as np
import pytest
from scipy import optimize, special, stats

from pineat_tf import membership
from pineat_tf.membership import shadow

LOG_NORMALISER = 0.5 * np.log(2 * np.pi)


def random_shadows(seed, num_models=9, num=13, queries=()):
    rng = np.random.default_rng(seed)
    in_mask = rng.permuted(np.arange(num_models)[:, None] < rng.integers(2, num_models - 1, num), axis=0)
    shadows = rng.normal(size=(num_models, num, *queries)) + in_mask.reshape(in_mask.shape + (1,) * len(queries))
    return rng.normal(size=(num, *queries)), shadows, in_mask


PUBLISHED = {  # goldens.md, B: -log p_in of TensorFlow Privacy, advanced_mia_test.py
    "per_example": [1.41893853, 1.41893853, 3.72152363, 2.72537178],
    "fixed": [2.69682468, 2.69682468, 4.15270703, 2.87983121],
}


@pytest.mark.parametrize("variance", PUBLISHED)
def test_lira_gives_the_published_values(variance):
    target = np.array([1.0, 0.0, 0.0, 0.0])
    trained_on_it = np.array([[-1.0, 0.0, 0.0], [1.0, 2.0, 20.0]])  # of the first three examples; the last has none
    without = np.stack([target - 1, target + 1])  # a deviation of 1 around the target, so its density there is known
    shadows = np.concatenate([np.concatenate([trained_on_it, [[-1.0], [1.0]]], axis=1), without])
    in_mask = np.array([[True, True, True, False]] * 2 + [[False] * 4] * 2)
    found = membership.lira_scores(target, shadows, in_mask, variance=variance)
    np.testing.assert_allclose(LOG_NORMALISER - found, PUBLISHED[variance], atol=1e-8)


@pytest.mark.parametrize("queries", [(), (3,)])
@pytest.mark.parametrize("variance", ["per_example", "fixed"])
def test_lira_is_the_mean_log_ratio_of_normal_densities(variance, queries):
    target, shadows, in_mask = random_shadows(0, queries=queries)
    online = membership.lira_scores(target, shadows, in_mask, variance=variance)
    offline = membership.lira_scores(target, shadows, in_mask, variance=variance, mode="offline")
    target, shadows = target.reshape(13, -1), shadows.reshape(9, 13, -1)
    for example in range(13):
        ratios, heights = [], []
        for query in range(target.shape[1]):
            observed, densities = target[example, query], []
            for mask in (in_mask, ~in_mask):
                values = shadows[mask[:, example], example, query]
                deviation = np.std(values)
                if variance == "fixed":
                    residuals = [
                        shadows[mask[:, i], i, query] - shadows[mask[:, i], i, query].mean() for i in range(13)
                    ]
                    deviation = np.sqrt(np.mean(np.concatenate(residuals) ** 2))
                densities.append(stats.norm(np.median(values), deviation))
            ratios.append(densities[0].logpdf(observed) - densities[1].logpdf(observed))
            heights.append((observed - densities[1].mean()) / densities[1].std())
        assert online[example] == pytest.approx(np.mean(ratios), rel=1e-10)
        assert offline[example] == pytest.approx(np.mean(heights), rel=1e-10)


def test_an_example_with_a_single_shadow_model_of_a_kind_borrows_the_deviation_of_the_others():
    target = np.array([5.0, 5.0])
    shadows = np.array([[0.0, 4.0], [2.0, 9.0], [9.0, 9.0]])
    in_mask = np.array([[False, False], [False, True], [True, True]])
    # The first: median 1, deviation 1. The second: median 4, and that same deviation.
    np.testing.assert_allclose(membership.lira_scores(target, shadows, in_mask, mode="offline"), [4.0, 1.0])


def predictive(values):
    """Centre, scale and degrees of freedom of Student's t of each example, from the lists of what its models say."""
    logs, halves, within = [], [], []
    variances = [np.var(seen, ddof=1) for seen in values]
    for seen, variance in zip(values, np.maximum(variances, 1e-5 * np.median(variances))):
        half = (len(seen) - 1) / 2
        logs.append(np.log(variance) - special.digamma(half) + np.log(half))
        halves.append(half)
    beyond = np.var(logs) - np.mean(special.polygamma(1, halves))
    alpha = optimize.brentq(lambda a: special.polygamma(1, a) - max(beyond, special.polygamma(1, 100)), 0.4, 201)
    prior = np.exp(np.mean(logs) + special.digamma(alpha) - np.log(alpha))
    means = [np.mean(seen) for seen in values]
    apart = np.var(means) - prior * np.mean([1 / len(seen) for seen in values])
    kappa, mu, beta = prior / max(apart, prior / 200), np.mean(means), alpha * prior
    for seen, mean in zip(values, means):  # the conjugate update, as textbooks have it
        num = len(seen)
        after = beta + np.sum((seen - mean) ** 2) / 2 + kappa * num * (mean - mu) ** 2 / (2 * (kappa + num))
        shape = alpha + num / 2
        scale = np.sqrt(after * (kappa + num + 1) / (shape * (kappa + num)))
        within.append(stats.t(2 * shape, (kappa * mu + num * mean) / (kappa + num), scale))
    return within


@pytest.mark.parametrize("queries", [(), (3,)])
def test_bavaria_is_the_mean_log_ratio_of_posterior_predictives(queries):
    target, shadows, in_mask = random_shadows(5, queries=queries)
    online = membership.bavaria_scores(target, shadows, in_mask)
    offline = membership.bavaria_scores(target, shadows, in_mask, mode="offline")
    target, shadows = target.reshape(13, -1), shadows.reshape(9, 13, -1)
    ratios, heights = np.zeros(13), np.zeros(13)
    for query in range(target.shape[1]):
        with_it, without = (
            predictive([shadows[mask[:, i], i, query] for i in range(13)]) for mask in (in_mask, ~in_mask)
        )
        for i, (one, other) in enumerate(zip(with_it, without)):
            ratios[i] += (one.logpdf(target[i, query]) - other.logpdf(target[i, query])) / target.shape[1]
            heights[i] += stats.norm.ppf(other.cdf(target[i, query])) / target.shape[1]
    np.testing.assert_allclose(online, ratios, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(offline, heights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("by_class", [False, True])
def test_proxies_are_other_images_of_which_models_were_trained(by_class):
    target, shadows, in_mask = random_shadows(6, num=12)
    labels = np.arange(12) // 3 % 2 if by_class else np.zeros(12, int)
    found = membership.lira_scores(target, shadows, in_mask, mode="proxy", labels=labels if by_class else None)
    for label in np.unique(labels):
        for place, example in enumerate(alike := np.flatnonzero(labels == label)):
            others = [i for j, i in enumerate(alike) if (j - place) % 2]
            seen = np.concatenate([shadows[in_mask[:, i], i] for i in others])
            without = shadows[~in_mask[:, example], example]
            expected = stats.norm(np.median(seen), np.std(seen)).logpdf(target[example])
            expected -= stats.norm(np.median(without), np.std(without)).logpdf(target[example])
            assert found[example] == pytest.approx(expected, rel=1e-10)
    moved = shadows + 100.0 * in_mask * (np.arange(12) == 4)  # what models that had it say of an example is not used
    again = membership.lira_scores(target, moved, in_mask, mode="proxy")
    assert again[4] == membership.lira_scores(target, shadows, in_mask, mode="proxy")[4]


def test_a_tuned_a_is_the_one_that_attacks_the_shadows_best():
    target, shadows, in_mask = random_shadows(7, num=40)
    target, shadows = -np.abs(target), -np.abs(shadows) + 0.0
    found = membership.relative_likelihood_scores(target, shadows, in_mask, offline_a="tuned")
    areas = {}
    for a in np.linspace(0, 1, 11).round(1):
        of_models = []
        for model in range(9):
            others = np.arange(9) != model
            scores = membership.relative_likelihood_scores(
                shadows[model], shadows[others], in_mask[others], offline_a=a
            )
            of_models.append(area(scores, in_mask[model]))
        areas[a] = np.mean(of_models)
    best = max(areas, key=areas.get)
    assert 0 < best < 1 or len(set(areas.values())) > 1
    expected = membership.relative_likelihood_scores(target, shadows, in_mask, offline_a=best)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("offline_a", [None, 0.0, 0.3, 1.0])
def test_relative_likelihood_is_that_of_its_definition(offline_a):
    target, shadows, in_mask = random_shadows(1)
    target, shadows = -np.abs(target), -np.abs(shadows)
    found = membership.relative_likelihood_scores(target, shadows, in_mask, offline_a=offline_a)
    for example in range(13):
        with_it, without = (np.exp(shadows[mask[:, example], example]).mean() for mask in (in_mask, ~in_mask))
        marginal = (with_it + without) / 2 if offline_a is None else ((1 + offline_a) * without + 1 - offline_a) / 2
        assert found[example] == pytest.approx(np.log(np.exp(target[example]) / marginal), rel=1e-10)


def test_several_queries_of_rmia_average_their_probabilities():
    target, shadows, in_mask = np.log([[0.2, 0.6]]), np.log([[[0.1, 0.3]], [[0.5, 0.7]]]), [[False], [True]]
    found = membership.relative_likelihood_scores(target, shadows, in_mask)
    np.testing.assert_allclose(found, np.log(0.4 / ((0.2 + 0.6) / 2)), atol=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_rmia_counts_whom_an_example_dominates(gamma):
    rng = np.random.default_rng(2)
    ratios, population = rng.normal(size=30), rng.normal(size=50)
    found = membership.rmia_scores(ratios, population, gamma=gamma)
    expected = [np.mean(np.exp(ratio) / np.exp(population) >= gamma) for ratio in ratios]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.1, 2.0, 3.0, 7.0])
def test_a_ratio_of_gamma_exactly_counts_whatever_its_logarithms_are_rounded_to(gamma):
    population = np.arange(1.0, 200.0)
    for factor, expected in ((1.0, 1.0), (1 + 1e-7, 1.0), (1 - 1e-7, 0.0)):
        ratios = np.log(gamma * factor * population)
        found = [
            membership.rmia_scores([one], [other], gamma=gamma)[0] for one, other in zip(ratios, np.log(population))
        ]
        assert set(found) == {expected}


def planted(leak, num=4000, num_models=32, seed=3):
    """Logit scores of networks on examples of their own difficulty, higher by `leak` deviations if trained on."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 4, num)
    in_mask = rng.permuted(np.arange(num_models)[:, None] % 2 * np.ones((1, num), int) == 1, axis=0)
    # Drawn on its own: if it were balanced with the others, their number would tell it.
    in_mask = np.concatenate([rng.permuted(np.arange(num) % 2 == 1)[None], in_mask])
    scores = difficulty + rng.normal(size=in_mask.shape) + leak * in_mask
    return scores[0], in_mask[0], scores[1:], in_mask[1:]


def area(scores, is_member):
    return membership.auc(membership.roc(scores[is_member], scores[~is_member]))


def test_a_planted_leak_is_found_with_the_power_of_theory_where_a_global_threshold_is_nearly_blind():
    target, is_member, shadows, in_mask = planted(leak=2.0)
    # Two normal distributions at 2 deviations: AUC = Phi(2 / sqrt 2) = .921; over all difficulties, Phi(2 / sqrt 34).
    ideal, blind = stats.norm.cdf(2 / np.sqrt(2)), stats.norm.cdf(2 / np.sqrt(2 * 17))
    assert area(target, is_member) == pytest.approx(blind, abs=0.03)
    for mode in ("online", "offline"):
        found = area(membership.lira_scores(target, shadows, in_mask, mode=mode, variance="fixed"), is_member)
        assert ideal - 0.03 < found < ideal + 0.015, mode
    log_probs, log_shadows = (-np.logaddexp(0, -values) for values in (target, shadows))
    ratios = membership.relative_likelihood_scores(log_probs, log_shadows, in_mask)
    assert area(ratios, is_member) > blind + 0.15  # its power over this model has no closed form
    shares = membership.rmia_scores(ratios, ratios[~is_member], gamma=1.0)
    assert area(shares, is_member) == pytest.approx(area(ratios, is_member), abs=0.01)


@pytest.mark.parametrize("spread", [0.0, 0.6])
def test_with_four_shadow_models_bavaria_finds_more_than_lira(spread):
    """Of networks whose answers to an example vary alike or not; a leak of 2 deviations."""
    rng, found = np.random.default_rng(8), []
    for _ in range(4):
        in_mask = rng.random((5, 2000)) < 0.5
        deviation = np.exp(rng.normal(0, spread, 2000))
        logits = rng.normal(0, 4, 2000) + deviation * (rng.normal(size=in_mask.shape) + 2 * in_mask)
        arguments = logits[0], logits[1:], in_mask[1:]
        for mode in ("online", "offline"):
            lira = [membership.lira_scores(*arguments, mode=mode, variance=v) for v in ("per_example", "fixed")]
            bavaria = membership.bavaria_scores(*arguments, mode=mode)
            found.append([area(scores, in_mask[0]) for scores in (bavaria, *lira)])
    bavaria, *lira = np.mean(found, axis=0)
    assert bavaria > max(lira) + 0.005, (bavaria, lira)


SCORES = {
    "LiRA": lambda *seen: membership.lira_scores(*seen, variance="fixed"),
    "PMIA": lambda *seen: membership.lira_scores(*seen, mode="proxy"),
    "BaVarIA": membership.bavaria_scores,
    "BaVarIA offline": lambda *seen: membership.bavaria_scores(*seen, mode="offline"),
    "RMIA tuned": lambda target, shadows, in_mask: membership.relative_likelihood_scores(
        -np.logaddexp(0, -target), -np.logaddexp(0, -shadows), in_mask, offline_a="tuned"
    ),
}


@pytest.mark.parametrize("scores", SCORES)
def test_without_a_leak_nothing_is_found(scores):
    areas = []
    for seed in range(20):
        target, is_member, shadows, in_mask = planted(leak=0.0, num=1000, num_models=8, seed=seed)
        areas.append(area(SCORES[scores](target, shadows, in_mask), is_member))
    # An AUC of 500 against 500 without any leak has a standard deviation of sqrt(1001 / (12 * 250000)) = .0183.
    assert abs(np.mean(areas) - 0.5) < 3 * 0.0183 / np.sqrt(20)
    assert np.std(areas) < 0.03


TARGET, SHADOWS, MASK = np.zeros(2), np.zeros((4, 2)), np.array([[True, False]] * 2 + [[False, True]] * 2)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((TARGET, SHADOWS, MASK), {"mode": "on-line"}, "Did you mean 'online'"),
        ((TARGET, SHADOWS, MASK), {"variance": "fix"}, "Did you mean 'fixed'"),
        ((TARGET, SHADOWS[:, :1], MASK), {}, r"target \(2,\), shadows \(4, 1\)"),
        ((TARGET, SHADOWS, MASK[:3]), {}, r"in_mask bool \(3, 2\)"),
        ((TARGET, SHADOWS, MASK.astype(int)), {}, "booleans.*int64"),
        ((TARGET * np.nan, SHADOWS, MASK), {}, "`target` must be finite.*2 values NaN"),
        ((TARGET, SHADOWS - np.inf, MASK), {}, "`shadows` must be finite.*8 values"),
        ((TARGET[:0], SHADOWS[:, :0], MASK[:, :0]), {}, "not empty"),
        ((TARGET, SHADOWS, MASK | True), {}, "No example has two shadow models without it. Received: 4"),
        ((TARGET, SHADOWS, MASK & False), {}, "No example has two shadow models with it"),
        ((TARGET, SHADOWS, MASK), {"labels": [0, 1]}, 'Give mode="proxy"'),
        ((TARGET, SHADOWS, MASK), {"mode": "proxy", "labels": [0, 1]}, "other images of class 0. Received: 0"),
    ],
)
def test_bad_input_of_lira_teaches(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        membership.lira_scores(*arguments, **options)


def test_bad_input_of_rmia_teaches():
    with pytest.raises(ValueError, match="must be log-probabilities.*0.5"):
        membership.relative_likelihood_scores(TARGET + 0.5, SHADOWS, MASK)
    with pytest.raises(ValueError, match="`offline_a` must lie in"):
        membership.relative_likelihood_scores(TARGET, SHADOWS, MASK, offline_a=2)
    with pytest.raises(ValueError, match="No example has a shadow model with it. Received: "):
        membership.relative_likelihood_scores(TARGET, SHADOWS, MASK & False)
    with pytest.raises(ValueError, match="`gamma` must be positive"):
        membership.rmia_scores([0.0], [0.0], gamma=0)
    with pytest.raises(ValueError, match="`population_ratios` must be finite, of rank 1"):
        membership.rmia_scores([0.0], [[0.0]])
    membership.relative_likelihood_scores(TARGET, SHADOWS, MASK & False, offline_a=0.5)  # offline needs none with it


def test_the_smallest_deviation_keeps_equal_observations_finite():
    found = [attack(TARGET, SHADOWS, MASK) for attack in (membership.lira_scores, membership.bavaria_scores)]
    assert np.isfinite(found).all() and shadow._SMALLEST_DEVIATION > 0
