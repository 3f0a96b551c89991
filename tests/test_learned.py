"""Attack models: equal to scikit-learn's, blind where nothing leaks, and never shown what they score."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import area
from scipy import special, stats
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from pineat_tf import membership
from pineat_tf.membership import label_only, learned

pytestmark = pytest.mark.usefixtures("one_thread")


def predictions(num, leak=0.0, seed=0, num_classes=4):
    """Predictions whose true class has a logit that is higher by `leak` deviations."""
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, num_classes, num), rng.normal(size=(num, num_classes))
    logits[np.arange(num), labels] += 1 + leak
    return SimpleNamespace(labels=labels, logits=logits)


def normal_features(num, leak, seed):
    """Two features of standard deviation 1, the first of them higher by `leak`."""
    return np.random.default_rng(seed).normal([leak, 0.0], 1.0, size=(num, 2))


def test_features_are_those_of_their_definition():
    seen = predictions(20)
    log_probs = special.log_softmax(seen.logits, axis=1)
    of_label = log_probs[np.arange(20), seen.labels]
    expected = np.column_stack(
        [
            -np.sort(-log_probs, axis=1),
            of_label,
            of_label - np.log1p(-np.exp(of_label)),
            np.sum(np.exp(log_probs) * log_probs, axis=1),
            log_probs.argmax(axis=1) == seen.labels,
        ]
    )
    found = learned.logit_features(seen)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_features_of_sure_predictions_stay_apart_and_finite():
    logits = np.array([[40.0, 0.0], [50.0, 0.0], [0.0, 5000.0]])
    found = learned.logit_features(SimpleNamespace(labels=[0, 0, 0], logits=logits))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 3], [40.0, 50.0, -5000.0])  # float64 probabilities of the first two are 1


@pytest.mark.parametrize("kind", learned.KINDS)
def test_scores_are_those_of_scikit_learn(kind):
    members, non_members = predictions(300, leak=1.0, seed=1), predictions(200, seed=2)
    audited = predictions(50, seed=3)
    features = [learned.logit_features(part) for part in (members, non_members, audited)]
    classifiers = {
        "logistic": LogisticRegression(max_iter=1000),
        "mlp": MLPClassifier((64,), alpha=1.0, learning_rate_init=0.01, early_stopping=True, random_state=7),
    }
    pipeline = make_pipeline(StandardScaler(), classifiers[kind])
    weights = np.repeat([500 / 2 / 300, 500 / 2 / 200], [300, 200])  # both kinds weigh 250
    pipeline.fit(
        np.concatenate(features[:2]),
        np.repeat([True, False], [300, 200]),
        **{f"{pipeline.steps[-1][0]}__sample_weight": weights},
    )
    probs = pipeline.predict_proba(features[2])
    expected = np.log(probs[:, 1] / probs[:, 0])
    found, again = membership.attack_model_scores(members, non_members, audited, audited, kind=kind, seed=7)
    assert found.dtype == np.float64 and found.shape == (50,)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("kind", learned.KINDS)
def test_scores_do_not_saturate(kind):
    members, non_members = normal_features(100, 0.0, 0), normal_features(100, 60.0, 1)
    model = membership.AttackModel.fit(members, non_members, kind=kind)
    far = np.array([[-1e4, 0.0], [-2e4, 0.0]])
    assert np.isfinite(model.scores(far)).all() and len(set(model.scores(far))) == 2


@pytest.mark.parametrize("kind", learned.KINDS)
def test_a_planted_leak_is_found_with_the_power_of_theory(kind):
    # Two normal distributions at 1.5 deviations: no attacker has a larger AUC than Phi(1.5 / sqrt 2) = .856.
    ideal = stats.norm.cdf(1.5 / np.sqrt(2))
    known = normal_features(1500, 1.5, 0), normal_features(1500, 0.0, 1)
    audited = normal_features(1500, 1.5, 2), normal_features(1500, 0.0, 3)
    assert area(*membership.attack_model_scores(*known, *audited, kind=kind)) == pytest.approx(ideal, abs=0.025)
    assert area(*membership.cross_fitted_scores(*audited, kind=kind)) == pytest.approx(ideal, abs=0.025)


@pytest.mark.parametrize("kind", learned.KINDS)
def test_a_leak_of_logits_is_found(kind):
    known = predictions(800, leak=1.0, seed=0), predictions(800, seed=1)
    audited = predictions(800, leak=1.0, seed=2), predictions(800, seed=3)
    plain = area(*(membership.logit_score(part.labels, part.logits) for part in audited))
    assert plain > 0.65
    # All that leaks here is in the log-odds of the true class, so that learning can tell hardly more than they do.
    assert area(*membership.attack_model_scores(*known, *audited, kind=kind)) > plain - 0.02
    assert area(*membership.cross_fitted_scores(*audited, kind=kind)) > plain - 0.02


def test_what_no_threshold_finds_a_network_learns():
    # Members are either much surer or much less sure than non-members: one threshold cannot part them.
    def sides(seed):
        rng = np.random.default_rng(seed)
        return rng.normal(rng.choice([-3.0, 3.0], 1000))[:, None], rng.normal(size=(1000, 1))

    areas = {kind: area(*membership.cross_fitted_scores(*sides(0), kind=kind)) for kind in learned.KINDS}
    assert areas["mlp"] > 0.9 and areas["logistic"] < 0.6


@pytest.mark.parametrize("kind, repeats", [("logistic", 12), ("mlp", 6)])
def test_without_a_leak_nothing_is_found(kind, repeats):
    areas, held_out = [], []
    for seed in range(repeats):
        parts = [predictions(300, seed=10 * seed + part) for part in range(4)]
        areas.append(area(*membership.attack_model_scores(*parts, kind=kind)))
        held_out.append(area(*membership.cross_fitted_scores(*parts[:2], kind=kind, seed=seed)))
    # An AUC of 300 against 300 without any leak has a standard deviation of sqrt(601 / (12 * 90000)) = .0236.
    for found in (areas, held_out):
        assert abs(np.mean(found) - 0.5) < 3.5 * 0.0236 / np.sqrt(repeats)


def test_a_classifier_that_memorises_gains_nothing_from_cross_fitting(monkeypatch):
    # A feature that is unique to each example and says nothing of membership.
    rng = np.random.default_rng(0)
    members, non_members = rng.normal(size=(400, 1)), rng.normal(size=(400, 1))

    class Tree(DecisionTreeClassifier):
        def decision_function(self, features):
            return self.predict_proba(features)[:, 1]

    monkeypatch.setattr(learned, "_pipeline", lambda kind, seed: make_pipeline(StandardScaler(), Tree(random_state=0)))
    by_heart = membership.attack_model_scores(members, non_members, members, non_members)
    assert area(*by_heart) == 1.0
    # A standard deviation of .0204; a single example that was seen would be scored right.
    assert abs(area(*membership.cross_fitted_scores(members, non_members)) - 0.5) < 3 * 0.0204


@pytest.mark.parametrize("num_folds", [2, 5])
def test_every_example_is_scored_once_and_by_a_model_that_has_not_seen_it(monkeypatch, num_folds):
    members, non_members = np.arange(30.0)[:, None], 100 + np.arange(23.0)[:, None]
    scored = []

    class Spy(BaseEstimator):
        def fit(self, features, is_member, sample_weight):
            self.seen, self.classes_ = set(features[:, 0]), np.unique(is_member)
            return self

        def decision_function(self, features):
            assert not self.seen & set(features[:, 0])
            assert len(self.seen) + len(features) == 53
            scored.extend(features[:, 0])
            return features[:, 0] ** 2

    monkeypatch.setattr(learned, "_pipeline", lambda kind, seed: make_pipeline("passthrough", Spy()))
    found = membership.cross_fitted_scores(members, non_members, num_folds=num_folds)
    assert sorted(scored) == sorted([*members[:, 0], *non_members[:, 0]])
    np.testing.assert_array_equal(found[0], members[:, 0] ** 2)  # in the order in which they came
    np.testing.assert_array_equal(found[1], non_members[:, 0] ** 2)


@pytest.mark.parametrize("kind", learned.KINDS)
def test_the_seed_decides(kind):
    parts = predictions(100, leak=1.0, seed=0), predictions(80, seed=1)
    first, again, other = (membership.cross_fitted_scores(*parts, kind=kind, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_answers_of_label_only_queries_are_features(network, images, labels):
    x, y = np.tile(images, (4, 1, 1, 1)), np.tile(labels, 4)
    answers = label_only.augmentation_answers(network, (x, y))
    found = membership.cross_fitted_scores(answers[:16], answers[16:])
    assert [part.shape for part in found] == [(16,), (16,)]


FEATURES = np.random.default_rng(0).normal(size=(40, 2))


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((FEATURES, FEATURES), {"kind": "mpl"}, "`kind` must be one of.*Did you mean 'mlp'"),
        ((FEATURES, FEATURES), {"seed": -1}, "`seed` must be a whole number >= 0"),
        ((FEATURES, FEATURES), {"num_folds": 1}, "`num_folds` must be a whole number >= 2"),
        ((FEATURES, FEATURES[:, :1]), {}, "same features. Received: 2 and 1"),
        ((FEATURES, FEATURES[:9]), {}, "at least 15 members and non-members.*40 members, 9 non-members"),
        ((FEATURES, FEATURES), {"num_folds": 41}, "at least 41"),
        ((FEATURES * np.nan, FEATURES), {}, r"`members` must be predictions.*shape \(40, 2\), all finite: False"),
        ((FEATURES, FEATURES[0]), {}, r"`non_members` must be predictions.*shape \(2,\)"),
        ((FEATURES, "scores"), {}, "`non_members` must be predictions.*Received: str"),
        ((predictions(40), predictions(40, num_classes=3)), {}, "same features. Received: 8 and 7"),
        ((SimpleNamespace(labels=[7], logits=[[1.0, 0.0]]), FEATURES), {}, r"must lie in 0 \.\. 1"),
    ],
)
def test_bad_input_teaches(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        membership.cross_fitted_scores(*arguments, **options)


def test_a_model_refuses_other_features_than_its_own():
    with pytest.raises(ValueError, match="at least 10 members"):
        membership.AttackModel.fit(FEATURES[:9], FEATURES)
    model = membership.AttackModel.fit(FEATURES, FEATURES)
    with pytest.raises(ValueError, match="Received: 1 features, not 2"):
        model.scores(FEATURES[:, :1])
