"""Losses, projections, schedules, ratios and objectives."""

import keras
import numpy as np
import oracles
import oracles_apgd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import pineat_tf as pt
from pineat_tf import projections, schedules
from pineat_tf.losses import cross_entropy, dlr, dlr_targeted, kl_divergence, margin
from pineat_tf.objectives import CrossEntropy, Trades
from pineat_tf.types import Ratio

LOGITS = np.random.default_rng(0).normal(size=(5, 4), scale=3)
OTHERS = np.random.default_rng(1).normal(size=(5, 4), scale=3)
LABELS = np.array([0, 3, 2, 1, 1])


def test_losses_equal_their_numpy_twins():
    np.testing.assert_allclose(cross_entropy(LABELS_TF, LOGITS), oracles.cross_entropy(LABELS, LOGITS))
    np.testing.assert_allclose(kl_divergence(OTHERS, LOGITS), oracles.kl_divergence(OTHERS, LOGITS))
    one_hot = tf.one_hot(LABELS, 4)
    np.testing.assert_allclose(cross_entropy(one_hot, LOGITS), oracles.cross_entropy(LABELS, LOGITS), rtol=1e-6)


LABELS_TF = tf.constant(LABELS)


@pytest.mark.parametrize("labels", [LABELS_TF, tf.one_hot(LABELS, 4)], ids=["classes", "one-hot"])
def test_margin_and_ratio_equal_their_numpy_twins_and_so_does_the_gradient(labels):
    np.testing.assert_allclose(margin(labels, LOGITS), oracles.margin(LABELS, LOGITS))
    np.testing.assert_allclose(dlr(labels, LOGITS), oracles.dlr(LABELS, LOGITS))
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(dlr(labels, logits))
    expected = [oracles_apgd.dlr_gradient(label, row) for label, row in zip(LABELS, LOGITS)]
    np.testing.assert_allclose(tape.gradient(total, logits), expected, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_labels_are_those_of_keras(smoothing):
    logits = tf.constant(np.random.default_rng(0).normal(size=(5, 4)), tf.float32)
    labels = tf.constant([0, 3, 1, 2, 2])
    one_hot = tf.one_hot(labels, 4)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
    for targets in (labels, one_hot):
        np.testing.assert_allclose(
            pt.losses.smoothed_cross_entropy(targets, logits, smoothing), keras_loss(one_hot, logits), rtol=1e-5
        )


@pytest.mark.parametrize("smoothing", [1.0, -0.1, float("nan"), True, "0.1"])
def test_smoothing_beyond_a_share_is_refused(smoothing):
    for make in (pt.objectives.CrossEntropy, lambda **options: pt.objectives.Trades(beta=1.0, **options)):
        with pytest.raises(ValueError, match=r"`label_smoothing` must be in \[0, 1\)"):
            make(label_smoothing=smoothing)


def test_margin_and_ratio_by_hand():
    # Logits (4, 1, 3, -1): class 0 is ahead by 4 - 3 = 1, class 1 behind by 4 - 1 = 3; the third largest is 1, so the
    # gap is 3. Equal logits are no one's lead.
    logits = tf.constant([[4.0, 1.0, 3.0, -1.0]] * 3 + [[2.0, 2.0, 2.0, 2.0]])
    np.testing.assert_allclose(margin(tf.constant([0, 1, 3, 2]), logits), [-1.0, 3.0, 5.0, 0.0])
    np.testing.assert_allclose(dlr(tf.constant([0, 1, 3, 2]), logits), [-1 / 3, 1.0, 5 / 3, 0.0], rtol=1e-6)


def test_the_ratio_needs_a_third_class():
    with pytest.raises(ValueError, match="third largest logit.*num_classes=2.*cross-entropy"):
        dlr(tf.constant([0]), tf.constant([[1.0, 2.0]]))


def test_half_precision_is_raised():
    half = tf.cast(LOGITS, tf.bfloat16)
    assert cross_entropy(LABELS_TF, half).dtype == kl_divergence(half, half).dtype == tf.float32
    assert margin(LABELS_TF, half).dtype == dlr(LABELS_TF, half).dtype == tf.float32


def test_the_divergence_of_a_prediction_from_itself_is_zero():
    np.testing.assert_allclose(kl_divergence(LOGITS, LOGITS), 0.0, atol=1e-12)


@pytest.mark.parametrize("labels", [tf.one_hot(LABELS, 3), tf.zeros((5, 4, 1)), tf.constant(["a"])])
def test_labels_that_do_not_fit_the_logits_are_refused(labels):
    with pytest.raises(ValueError, match="Labels must be class numbers.*num_classes=4"):
        cross_entropy(labels, LOGITS)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3), st.floats(0.01, 2.0))
def test_projections_keep_inner_points_and_give_the_nearest_of_the_ball(noise, epsilon):
    center = np.full((1, 3), 0.3, np.float32)
    x = center + np.float32([noise])
    for project, length in ((projections.project_linf, np.inf), (projections.project_l2, 2)):
        projected = project(tf.constant(x), tf.constant(center), epsilon).numpy()
        norm = np.linalg.norm(projected - center, ord=length, axis=1)
        assert norm <= epsilon + 1e-5
        if np.linalg.norm(x - center, ord=length) < epsilon - 1e-5:
            np.testing.assert_allclose(projected, x, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_unit_l2_and_the_projection_leave_zero_alone(dtype):
    noise = tf.constant([[3.0, 4.0], [0.0, 0.0]], dtype)
    tolerance = 0.01 if "16" in dtype else 1e-7
    for length, found in ((1.0, projections.unit_l2(noise)), (2.0, projections.project_l2(noise, 0 * noise, 2.0))):
        wanted = [[0.6 * length, 0.8 * length], [0.0, 0.0]]
        np.testing.assert_allclose(tf.cast(found, tf.float64), wanted, rtol=tolerance)


def test_rounds_are_updates_over_the_examples_of_a_round():
    # 80,000 updates in rounds of 1, 2, 3, 4 and 5.
    rounds = [schedules.rounds_for(80_000, ratio) for ratio in ("1/0", "1/1", "1/2", "2/2", "1/4")]
    assert rounds == [80_000, 40_000, 26_666, 20_000, 16_000]
    with pytest.raises(ValueError, match="`updates` must be a whole number >= 5"):
        schedules.rounds_for(4, "1/4")


def test_the_update_on_a_boundary_has_the_rate_before_it():
    schedule = schedules.piecewise_learning_rate([2, 4], [1.0, 0.1, 0.01])
    np.testing.assert_allclose([float(schedule(i)) for i in range(6)], [1.0, 1.0, 1.0, 0.1, 0.1, 0.01], rtol=1e-6)
    assert schedules.piecewise_learning_rate([], [0.5]) == 0.5


@pytest.mark.parametrize(
    "boundaries, rates, match",
    [
        ([10], [0.1], "one learning rate more"),
        ([], [], "one learning rate more"),
        ([20, 10], [0.1, 0.1, 0.1], "must increase"),
        ([10, 10], [0.1, 0.1, 0.1], "must increase"),
        ([0], [0.1, 0.1], "`boundary` must be a whole number >= 1"),
        ([1.5], [0.1, 0.1], "`boundary` must be a whole number"),
        ([], [-0.1], "`learning rate` must be positive"),
    ],
)
def test_bad_schedules_are_refused(boundaries, rates, match):
    with pytest.raises(ValueError, match=match):
        schedules.piecewise_learning_rate(boundaries, rates)


def test_ratios_are_read_and_written():
    assert Ratio.parse("2/3") == Ratio.parse((2, 3)) == Ratio.parse(Ratio(2, 3)) == (2, 3)
    assert str(Ratio(2, 3)) == "2/3" and Ratio(2, 3).updates_per_round == 5


@pytest.mark.parametrize("ratio", ["0/0", "1:1", "1", "1/2/3", "-1/1", "a/b", "1.5/1", "", None, 1, (1,), (1.5, 1)])
def test_bad_ratios_are_refused(ratio):
    with pytest.raises(ValueError, match="`ratio` must be n/m.*'1/1'"):
        Ratio.parse(ratio)


def test_trades_is_cross_entropy_of_natural_plus_divergence():
    natural, other = tf.constant(LOGITS), tf.constant(OTHERS)

    def logits_fn(x):
        return {"natural": natural, "other": other}[x]

    loss, logits = Trades(beta=6.0)(logits_fn, "natural", "other", LABELS_TF)
    expected = oracles.cross_entropy(LABELS, LOGITS) + 6.0 * oracles.kl_divergence(LOGITS, OTHERS)
    np.testing.assert_allclose(loss, expected)
    np.testing.assert_array_equal(logits, other)
    alone, logits = Trades(beta=6.0)(logits_fn, "natural", "natural", LABELS_TF)  # an update by the natural image
    np.testing.assert_array_equal(alone, CrossEntropy()(logits_fn, "natural", "natural", LABELS_TF)[0])
    np.testing.assert_array_equal(logits, natural)
    with pytest.raises(ValueError, match="`beta` must be positive"):
        Trades(beta=0)


def test_detaching_stops_the_gradient_through_the_natural_prediction():
    natural = tf.Variable(LOGITS)
    for detach in (False, True):
        with tf.GradientTape() as tape:
            loss, _ = Trades(beta=6.0, detach_natural=detach)(
                lambda x: natural if x == "natural" else tf.constant(OTHERS), "natural", "other", LABELS_TF
            )
        gradient = tape.gradient(loss, natural)
        with tf.GradientTape() as tape:
            plain = cross_entropy(LABELS_TF, natural)
        is_plain = np.allclose(gradient, tape.gradient(plain, natural))
        assert is_plain == detach


def test_keras_agrees_on_cross_entropy():
    expected = keras.losses.sparse_categorical_crossentropy(LABELS, LOGITS, from_logits=True)
    np.testing.assert_allclose(cross_entropy(LABELS_TF, LOGITS), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_projections_keep_the_dtype_inside_a_graph(dtype):
    project = tf.function(lambda x: projections.project_l2(x, tf.zeros_like(x), 1.0), autograph=False)
    projected = project(tf.constant([[3.0, 4.0], [0.3, 0.4]], dtype))
    assert projected.dtype == dtype
    np.testing.assert_allclose(projected, [[0.6, 0.8], [0.3, 0.4]], atol=1e-6)


def test_targeted_dlr_by_hand_whatever_shifts_or_scales_the_logits():
    # (1 - 2) / (2 - (0.5 - 1) / 2) = -1 / 2.25; (1.2 - 0.3) / (1.2 - (0.3 + 0.1) / 2) = 0.9
    labels, targets = tf.constant([0, 0]), tf.constant([1, 1])
    logits = tf.constant([[2.0, 1.0, 0.5, -1.0], [0.3, 1.2, 0.9, 0.1]])
    for moved in (logits, 3 * logits + 7):
        np.testing.assert_allclose(dlr_targeted(labels, targets, moved), [-1 / 2.25, 0.9], rtol=1e-5)
    one_hot = tf.one_hot(labels, 4)
    np.testing.assert_array_equal(dlr_targeted(one_hot, targets, logits), dlr_targeted(labels, targets, logits))


def test_targeted_dlr_needs_four_classes():
    with pytest.raises(ValueError, match="fourth largest logit. Received: num_classes=3"):
        dlr_targeted(tf.constant([0]), tf.constant([1]), tf.constant([[1.0, 2.0, 3.0]]))
