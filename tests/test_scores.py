"""Membership scores against published figures, their definitions, and every form of labels and outputs."""

import math
import warnings
from pathlib import Path

import keras
import mie
import numpy as np
import oracles
import pytest
import tensorflow as tf

from pineat_tf import membership
from pineat_tf.membership import scores, thresholds

YALE = Path(__file__).resolve().parents[1].parent / "shared" / "truth" / "yale"
SCORES = membership.SIGNALS | {"logit": membership.logit_score}


def yale_scores(name, kind, score):
    path = YALE / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the Yale predictions of reference [20] are not at ../shared/truth/yale: {name}")
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(
            score(arrays[f"{split}_label"], arrays[f"output_{split}_{kind}"], from_logits=False)
            for split in ("train", "test")
        )


def random_logits(seed, num=40, num_classes=5, scale=3.0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_classes, num), rng.normal(0, scale, (num, num_classes))


# ---------------------------------------------------------------- published figures


PUBLISHED = [  # goldens.md, 5.1 and A: model, inputs, membership inference accuracy, AUC
    ("natural", "benign", 0.5585306164243293, 0.557035),
    ("natural", "adversarial", 0.5427329510546794, 0.539978),
    ("pgd", "benign", 0.6168687282408356, 0.623561),
    ("pgd", "adversarial", 0.6882561949621135, 0.687985),
]


@pytest.mark.parametrize("name, kind, accuracy, area", PUBLISHED)
@pytest.mark.parametrize("signal", ["confidence", "cross_entropy"])
def test_yale_membership_accuracy_is_that_of_the_notebook(name, kind, accuracy, area, signal):
    member, non_member = yale_scores(name, kind, SCORES[signal])
    best = thresholds.best_threshold(member, non_member)
    assert best.balanced_accuracy == pytest.approx(accuracy, abs=1e-12, rel=0)
    assert thresholds.auc(thresholds.roc(member, non_member)) == pytest.approx(area, abs=5e-7)


def test_yale_confidence_saturates_so_low_false_positive_rates_have_no_threshold():
    member, non_member = yale_scores("pgd", "benign", membership.confidence_score)
    assert int(tf.math.count_nonzero(member == 1.0)) == 1712  # of 1900
    found = thresholds.tpr_at_fpr(thresholds.roc(member, non_member), 0.01)
    assert found.tpr is None and found.attained_fpr is None
    assert found.smallest_attainable_fpr == pytest.approx(343 / 514)


FIGURES = [  # goldens.md, 5.3 and B: TensorFlow Privacy, utils_test.py and the logit score
    ("cross_entropy", [1, 0], [[-0.3, 1.5, 0.2], [2, 3, 0.5]], [-0.36313551, -1.37153903]),
    ("cross_entropy", [0, 2], [[2, 0.3, 0.2], [0.3, -0.5, 0.2]], [-0.29860897, -0.95618669]),
    ("logit", [1, 2], [[1.0, 2.0, -3.0], [-1.0, 1.0, 0.0]], [0.98185009, -1.12692802]),
    ("modified_entropy", *(part[:4] for part in mie.TARGET[0]), [-0.04380077, -0.01890841, -0.00118822, -0.03794778]),
]


@pytest.mark.parametrize("name, labels, logits, expected", FIGURES)
def test_scores_are_those_of_other_implementations(name, labels, logits, expected):
    np.testing.assert_allclose(SCORES[name](labels, logits), expected, atol=1e-8)


def test_correctness_is_that_of_its_authors_code():
    accuracies = [membership.correctness_score(*split).numpy().mean() for split in mie.TARGET]
    np.testing.assert_allclose(accuracies, [0.6791666667, 0.4944444444], atol=1e-10)
    assert thresholds.gap_attack(*accuracies) == pytest.approx(0.5923611111, abs=1e-10)


# ---------------------------------------------------------------- definitions


@pytest.mark.parametrize("scale", [0.1, 3.0, 12.0])
def test_scores_are_those_of_their_definitions(scale):
    labels, logits = random_logits(11, scale=scale)
    probs = oracles.softmax(logits)
    for row, (label, p) in enumerate(zip(labels, probs)):
        others = np.delete(p, label)
        expected = {
            "cross_entropy": np.log(p[label]),
            "confidence": p[label],
            "correctness": float(np.argmax(p) == label),
            "entropy": np.sum(p * np.log(p)),
            "modified_entropy": (1 - p[label]) * np.log(p[label]) + np.sum(others * np.log1p(-others)),
            "logit": np.log(p[label] / others.sum()),
        }
        for name, value in expected.items():
            one = slice(row, row + 1)
            for outputs, from_logits in ((logits, True), (probs, False)):
                found = SCORES[name](labels[one], outputs[one], from_logits=from_logits)
                assert found.dtype == tf.float64 and found.shape == (1,)
                assert float(found[0]) == pytest.approx(value, rel=1e-6, abs=1e-12), (name, from_logits)


def test_confidence_is_the_float32_of_a_score_that_does_not_saturate():
    # 1 - p_y = exp(-gap) is below float32's 6e-8 from a gap of 17, below float64's from 37.
    gaps = np.array([20.0, 25.0, 30.0, 40.0, 50.0, 700.0])
    logits, labels = np.stack([gaps, 0 * gaps], axis=1), np.zeros(6, int)
    np.testing.assert_array_equal(membership.confidence_score(labels, logits), np.ones(6))
    score = membership.cross_entropy_score(labels, logits).numpy()
    np.testing.assert_allclose(score, -np.exp(-gaps), rtol=1e-8)
    assert np.all(np.diff(score) > 0) and np.all(score < 0)
    labels, logits = random_logits(0, scale=100.0)
    rounded = np.exp(membership.cross_entropy_score(labels, logits).numpy()).astype(np.float32)
    rounded[rounded < np.finfo(np.float32).tiny] = 0  # TensorFlow flushes subnormals
    np.testing.assert_array_equal(membership.confidence_score(labels, logits), rounded)


def test_modified_entropy_of_a_very_sure_network_keeps_its_order():
    gaps = np.array([20.0, 40.0, 60.0, 300.0])
    logits = np.stack([gaps, 0 * gaps], axis=1)
    right, wrong = (membership.modified_entropy_score(np.full(4, label), logits).numpy() for label in (0, 1))
    # Both terms of two classes are alike: exp(-gap) * exp(-gap) where right, 1 * gap where wrong, to first order.
    np.testing.assert_allclose(right, -2 * np.exp(-2 * gaps), rtol=1e-6)
    np.testing.assert_allclose(wrong, -2 * gaps, rtol=1e-6)
    assert np.all(np.diff(right) > 0) and np.all(np.diff(wrong) < 0)


def test_extreme_outputs_score_infinities_and_never_nan():
    logits = np.array([[1e308, -1e308], [-1e308, 1e308], [1e300, 1e300]])
    np.testing.assert_allclose(membership.cross_entropy_score([0, 0, 0], logits), [0, -np.inf, -math.log(2)])
    probs = {"from_logits": False}
    for score in (membership.cross_entropy_score, membership.modified_entropy_score, membership.logit_score):
        assert np.all(np.isneginf(score([0], [[0.0, 1.0]], **probs)))
    np.testing.assert_array_equal(membership.entropy_score([0], [[0.0, 1.0]], **probs), [0.0])
    tiny = membership.confidence_score([0, 0], np.float32([[1e-42, 1], [0, 1]]), **probs).numpy()
    assert tiny[0] > tiny[1] == 0  # a float32 subnormal is not zero


# ---------------------------------------------------------------- forms of labels and outputs

# Three examples of two classes: their labels in every form that `fit` takes, and outputs as heads give them.
Z = np.array([1.5, -0.5, 3.0])
SIGMOID = 1 / (1 + np.exp(-Z))
LABELS = {
    "int32": np.int32([1, 0, 0]),
    "uint8": np.uint8([1, 0, 0]),
    "uint64": np.uint64([1, 0, 0]),
    "bool": np.array([True, False, False]),
    "list": [1, 0, 0],
    "whole floats": np.float32([1, 0, 0]),
    "column": [[1], [0], [0]],
    "column of floats": [[1.0], [0.0], [0.0]],
    "one-hot": [[0, 1], [1, 0], [1, 0]],
    "soft": np.float32([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4]]),
    "tensor": tf.constant([1, 0, 0]),
}
OUTPUTS = {
    "logits": (np.stack([0 * Z, Z], axis=1), True),
    "float32 logits": (np.stack([0 * Z, Z], axis=1).astype(np.float32), True),
    "bfloat16 logits": (tf.cast(np.stack([0 * Z, Z], axis=1), tf.bfloat16), True),
    "one logit": (Z[:, np.newaxis], True),
    "flat logits": (Z, True),
    "float16 logit": (Z[:, np.newaxis].astype(np.float16), True),
    "logit in a tensor": (tf.constant(Z[:, np.newaxis], tf.float32), True),
    "Keras' own sigmoid": (keras.activations.sigmoid(tf.constant(Z[:, np.newaxis], tf.float32)), True),
    "probabilities": (np.stack([1 - SIGMOID, SIGMOID], axis=1), False),
    "one sigmoid": (SIGMOID[:, np.newaxis], False),
    "flat sigmoids": (SIGMOID, False),
    "sigmoid in a tensor": (tf.constant(SIGMOID[:, np.newaxis], tf.float32), False),
}


@pytest.mark.parametrize("name", SCORES)
def test_every_form_of_labels_and_outputs_scores_the_same(name):
    expected = SCORES[name]([1, 0, 0], np.stack([0 * Z, Z], axis=1)).numpy()
    for form, labels in LABELS.items():
        np.testing.assert_array_equal(SCORES[name](labels, OUTPUTS["logits"][0]), expected, err_msg=form)
    for form, (outputs, from_logits) in OUTPUTS.items():
        found = SCORES[name](LABELS["one-hot"], outputs, from_logits=from_logits)
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=form)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("columns", [1, 5])
def test_scores_trace_into_a_graph(name, columns):
    labels, logits = random_logits(2)
    labels, logits = (labels, logits.astype(np.float32)) if columns == 5 else (labels % 2, logits[:, :1])
    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, columns], logits.dtype)]
    graph = tf.function(SCORES[name], autograph=False, input_signature=signature)
    np.testing.assert_allclose(graph(labels, logits), SCORES[name](labels, logits), rtol=1e-12)


GOOD = np.array([[0.75, 0.25], [0.5, 0.5]])
BAD_PREDICTIONS = [
    ([0, 1], GOOD[None], r"must have shape \(num, num_classes\)"),
    ([0, 1], 0.5, r"must have shape \(num, num_classes\)"),
    ([], np.zeros((0, 3)), "at least one example"),
    ([0, 1], np.zeros((2, 0)), "at least one example"),
    ([0, 1], np.full((2, 2), np.nan), "NaN|Received: values from nan"),
    ([0, 1], [[0.5, np.nan], [0.5, 0.5]], "NaN|nan"),
    ([0, 1], [[np.inf, 0], [0.5, 0.5]], "infinite|inf"),
    ([0, 1], [[np.nan], [1.0]], "NaN|nan"),
    ([0, 1, 1], GOOD, "3 labels for 2 examples"),
    ([[0, 1, 0], [1, 0, 0]], GOOD, "num_classes=2"),
    (0, GOOD, "class numbers of shape"),
    ([0.0, 0.5], GOOD, "be whole"),
    (["a", "b"], GOOD, "class numbers of shape"),
    ([0, 2], GOOD, r"must lie in 0 \.\. 1"),
    ([-1, 0], GOOD, r"must lie in 0 \.\. 1"),
    ([[0.5, 0.6], [0.5, 0.5]], GOOD, "must sum to 1"),
    ([0, 1], [["a", "b"], ["c", "d"]], "real numbers"),
    ([0, 1], GOOD > 0.6, "real numbers"),
    ([0, 1], GOOD + 0j, "real numbers"),
]
NO_PROBABILITIES = [
    [[-0.1, 1.1], [0.5, 0.5]],
    [[0.5, 0.502], [0.5, 0.5]],
    [[0.5, 0.498], [0.5, 0.5]],
    [[3.0, -2.0], [0.0, 1.0]],  # logits whose rows happen to sum to 1
    [[1.5], [0.5]],
]


@pytest.mark.parametrize("name", SCORES)
def test_bad_predictions_are_refused(name):
    for labels, outputs, message in BAD_PREDICTIONS:
        for from_logits in (True, False):
            with pytest.raises(ValueError, match=message):
                SCORES[name](labels, outputs, from_logits=from_logits)
    for probs in NO_PROBABILITIES:
        with pytest.raises(ValueError, match="Are these logits.*from_logits=False"):
            SCORES[name]([0, 1], probs, from_logits=False)
    for sigmoids in (SIGMOID, SIGMOID[:, np.newaxis]):
        with pytest.raises(ValueError, match="from_logits=False. with sigmoids"):
            SCORES[name]([0, 1, 1], sigmoids)
    with pytest.raises(ValueError, match="probabilities"):
        SCORES[name]([0, 1], keras.activations.softmax(tf.constant(GOOD)))


def test_row_sums_may_be_off_by_rounding():
    membership.confidence_score([0], [[0.5, 0.5009]], from_logits=False)
    np.testing.assert_array_equal(scores.as_float64("x", [0.1]), [0.1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_in_place_of_logits_are_told(dtype):
    labels, logits = random_logits(0)
    probs = tf.nn.softmax(logits).numpy().astype(dtype)
    for score in SCORES.values():
        with pytest.warns(UserWarning, match="All 40 rows of logits lie in .* pass `from_logits=False`"):
            score(labels, probs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for score in SCORES.values():
            score(labels, logits)
            score(labels, probs, from_logits=False)
            score([0, 1], [[1.0, 0.0], [0.0, 1.0]])  # small whole numbers may be anything
            score(labels, np.log(probs))
