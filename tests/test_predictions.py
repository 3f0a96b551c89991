"""Predictions in batches, and the joint report."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt

PGD = pt.attacks.pgd(epsilon=0.1, step_size=0.03, num_steps=4, random_start=False)


def test_natural_logits_are_the_networks_in_the_order_of_the_data(network, images, labels):
    for batch_size in (1, 3, 8, 100):
        predictions = pt.predict_logits(network, (images, labels), batch_size=batch_size)
        np.testing.assert_allclose(predictions.logits, network(images), atol=1e-6)
        np.testing.assert_array_equal(predictions.labels, labels)
    assert predictions.accuracy == np.mean(network(images).numpy().argmax(axis=1) == labels)


def test_adversarial_logits_are_those_of_the_attack(network, images, labels):
    predictions = pt.predict_logits(network, (images, labels), attack=PGD, batch_size=3)
    np.testing.assert_allclose(predictions.logits, network(PGD(network, images, labels)), atol=1e-5)


def test_random_attacks_draw_by_seed_and_batch(network, images, labels):
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.001, num_steps=1)
    same = np.repeat(images[:1], 4, axis=0), np.repeat(labels[:1], 4)
    first, again, other = (pt.predict_logits(network, same, attack=attack, seed=s, batch_size=2) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.logits, again.logits)
    assert np.abs(first.logits - other.logits).max() > 0
    assert np.abs(first.logits[:2] - first.logits[2:]).max() > 0


def test_datasets_and_one_hot_labels_are_taken(network, images, labels):
    batches = tf.data.Dataset.from_tensor_slices((images, tf.one_hot(labels, 3))).batch(3)
    predictions = pt.predict_logits(network, batches, attack=PGD)
    np.testing.assert_array_equal(predictions.labels, labels)
    weighted = tf.data.Dataset.from_tensor_slices((images, labels, np.ones(8))).batch(3)
    np.testing.assert_allclose(pt.predict_logits(network, weighted, attack=PGD).logits, predictions.logits, atol=1e-5)


def test_one_predictor_traces_once_for_all_data(network, images, labels):
    traces = []

    def attack(*args, **options):
        traces.append(1)
        return PGD(*args, **options)

    predict, seen = pt.Predictor(network, attack), []
    for size in (8, 5, 7):
        predict((images[:size], labels[:size]), batch_size=3, on_batch=seen.append)
    assert len(traces) == 1
    assert seen == [3, 3, 2, 3, 2, 3, 3, 1]


def test_dropout_is_off_and_statistics_stay(images, labels):
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.9),
            keras.layers.Dense(3),
        ]
    )
    before = [np.array(weights) for weights in network.get_weights()]
    first, again = (pt.predict_logits(network, (images, labels), attack=PGD) for _ in range(2))
    np.testing.assert_array_equal(first.logits, again.logits)
    for old, new in zip(before, network.get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "data, match",
    [
        (lambda x, y: (x, y[:-1]), "as many labels as images.*8 images, 7 labels"),
        (lambda x, y: (x[:0], y[:0]), "at least one"),
        (lambda x, y: (x * 255, y), r"bounds \[0, 1\]"),
        (lambda x, y: (np.where(x > 2, x, np.nan), y), "pixel must"),
        (lambda x, y: (x, -1 - y), "class numbers must be >= 0"),
        (lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).batch(3).repeat(), "never ends"),
        (lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).batch(3).take(0), "no images"),
    ],
)
def test_bad_data_is_refused(data, match, network, images, labels):
    with pytest.raises(ValueError, match=match):
        pt.predict_logits(network, data(images, labels), attack=PGD)


def test_bad_batch_sizes_and_softmax_heads_are_refused(network, images, labels):
    with pytest.raises(ValueError, match="`batch_size` must be a whole number >= 1"):
        pt.predict_logits(network, (images, labels), batch_size=0)
    softmax = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    with pytest.raises(ValueError, match="must give logits"):
        pt.predict_logits(softmax, (images, labels))


def test_evaluate_joins_accuracy_robustness_and_leakage(network, images, labels):
    members, non_members = (images[:5], labels[:5]), (images[5:], labels[5:])
    report = pt.evaluate(network, members=members, non_members=non_members, attack=PGD)
    figures = report.to_dict()
    for name, data, attack in (
        ("a_train", members, None),
        ("a_test", non_members, None),
        ("r_train", members, PGD),
        ("r_test", non_members, PGD),
    ):
        assert figures[name] == pt.predict_logits(network, data, attack=attack).accuracy
    by_signal = {(r["signal"], r["queries"]): r for r in figures["membership"]}
    assert set(by_signal) == {(s, q) for s in pt.membership.SIGNALS for q in ("natural", "adversarial")}
    assert figures["p_e_nat"] == by_signal["cross_entropy", "natural"]["balanced_accuracy"]
    assert figures["p_e_adv"] == by_signal["cross_entropy", "adversarial"]["balanced_accuracy"]
    assert figures["p_max"] == report.p_max == max(figures["p_e_nat"], figures["p_e_adv"])
    assert figures["gap_nat"] == (1 + figures["a_train"] - figures["a_test"]) / 2
    assert figures["gap_adv"] == (1 + figures["r_train"] - figures["r_test"]) / 2
    json.dumps(figures, allow_nan=False)


def test_without_an_attack_there_are_no_adversarial_figures(network, images, labels):
    report = pt.evaluate(network, members=(images[:5], labels[:5]), non_members=(images[5:], labels[5:]))
    figures = report.to_dict()
    assert [figures[name] for name in ("r_train", "r_test", "p_e_adv", "gap_adv")] == [None] * 4
    assert figures["p_max"] == figures["p_e_nat"]
    assert report.to_text().splitlines()[3].endswith("-")


def test_tables_show_the_figures_and_say_what_is_in_sample(network, images, labels):
    report = pt.evaluate(network, members=(images[:5], labels[:5]), non_members=(images[5:], labels[5:]), attack=PGD)
    text, markdown = report.to_text(), report.to_markdown()
    for table in (text, markdown):
        assert f"{report.p_max:.4f}" in table and f"{report.noise_floor.upper_95:.4f}" in table
        assert table.count("in-sample") >= 4
    lines = markdown.splitlines()
    assert lines[1] == "| --- | --- | --- |"
    assert {line.count("|") for line in lines} == {4}


def test_rates_that_ties_forbid_are_not_shown_as_zero(images, labels):
    # A network of one answer for everything: all scores are tied, no threshold gives a rate below 1.
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, kernel_initializer="zeros")]
    )
    zeros = np.zeros(4, np.int64)
    report = pt.evaluate(network, members=(images[:4], zeros), non_members=(images[4:], zeros))
    assert "n/a (smallest attainable FPR 1)" in report.to_text()
    assert report.natural.p_e == 0.5


def test_a_predictor_takes_labels_of_several_kinds(network, images, labels):
    predictor = pt.Predictor(network, PGD)
    one_hot = tf.data.Dataset.from_tensor_slices((images, tf.one_hot(labels, 3))).batch(3)
    for data in ((images, labels), one_hot, (images, labels.astype(np.uint8))):
        predictions = predictor(data, batch_size=3)
        np.testing.assert_array_equal(predictions.labels, labels)
        np.testing.assert_allclose(predictions.logits, network(PGD(network, images, labels)), atol=1e-5)


def test_measuring_again_is_not_taken_for_tracing_again(network, images, labels, caplog):
    """TensorFlow warns by the code of a function: of the fifth predictor, say, as if it were the first traced again."""
    attack = pt.attacks.fgsm(epsilon=0.1)
    with caplog.at_level("WARNING", logger="tensorflow"):
        for _ in range(5):
            pt.evaluate(network, members=(images, labels), non_members=(images, labels), attack=attack)
            pt.robustness(network, (images, labels), attack, check=False)
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]
