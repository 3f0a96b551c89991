"""The joint record: its schema, its tables, and what stands in it."""

import dataclasses
import json

import jsonschema
import keras
import numpy as np
import pytest

import pineat_tf as pt
from pineat_tf import membership, presentation
from pineat_tf.statistics import clopper_pearson
from pineat_tf.verification import check_not_below_proof

ATTACK = pt.attacks.pgd(epsilon=0.2, step_size=0.1, num_steps=3)


@pytest.fixture
def reports(network, images, labels):
    data = (images, labels)
    attacks = {"pgd": lambda epsilon: pt.attacks.pgd(epsilon=epsilon, step_size=epsilon, num_steps=1)}
    robustness = pt.robustness(network, data, attacks, epsilons=[0.1, 0.2], check=False)
    halves = {"members": (images[:5], labels[:5]), "non_members": (images[5:], labels[5:])}
    whole = pt.evaluate(
        network, **halves, attack=ATTACK, verify=0.2, robustness=robustness, cost={"forward_passes": 1234.5}
    )
    return whole, pt.evaluate(network, **halves)


def test_the_record_follows_its_schema(reports):
    jsonschema.Draft202012Validator.check_schema(pt.report.schema())
    for report in reports:
        jsonschema.validate(json.loads(json.dumps(report.to_dict(), allow_nan=False)), pt.report.schema())


@pytest.mark.parametrize("name", ["p_max", "membership", "robustness", "cost"])
def test_the_schema_refuses_what_lacks_figures(reports, name):
    record = reports[0].to_dict()
    del record[name]
    with pytest.raises(jsonschema.ValidationError, match=name):
        jsonschema.validate(record, pt.report.schema())


def test_robustness_and_cost_stand_in_record_and_tables(reports):
    whole, bare = reports
    record = whole.to_dict()
    assert record["robustness"] == whole.robustness.to_dict() and record["cost"] == {"forward_passes": 1234.5}
    text = whole.to_text()
    accuracy = whole.robustness.accuracy(0.2)
    (row,) = [line for line in text.splitlines() if line.startswith("- linf radius 0.2")]
    assert f"{accuracy:.4f} [" in row
    assert "cost: forward_passes" in text and "1,234.5" in text and "| cost: forward_passes |" in whole.to_markdown()
    assert bare.to_dict()["robustness"] is None and "- linf radius" not in bare.to_text()


def test_what_is_proved_stands_beside_what_an_attack_leaves(network, images, labels):
    sure = np.asarray(network(images)).argmax(axis=1)
    report = pt.evaluate(
        network, members=(images, sure), non_members=(images, sure), attack=dataclasses.replace(ATTACK), verify=1e-3
    )
    verified = pt.verify(network, (images, sure), 1e-3)
    assert report.verification.accuracy == verified.accuracy == report.to_dict()["v_test"] > 0.5
    low, high = verified.interval()
    sentence = f"verified accuracy {verified.accuracy:.3f} [{low:.3f}, {high:.3f}] at linf radius 0.001"
    assert sentence in report.verdict()
    (row,) = [line for line in report.to_text().splitlines() if "V_test" in line]
    assert row.split()[-1] == f"{verified.accuracy:.4f}" and "<b>V_test</b>" in report._repr_html_()
    assert (
        "proofs" not in report.to_text()
        and "proofs" in pt.evaluate(network, members=(images, sure), non_members=(images, sure)).to_text()
    )


@pytest.mark.parametrize(
    "change, contradicts",
    [
        ({}, True),
        ({"epsilon": 0.01}, True),  # of a smaller ball
        ({"epsilon": 0.2}, False),
        ({"bounds": None}, False),
        ({"bounds": (0.1, 0.9)}, True),
        ({"norm": "l2"}, True),  # its ball is inside
    ],
)
def test_an_attack_that_leaves_less_than_is_proved_is_an_error(network, images, labels, change, contradicts):
    attack = pt.attacks.pgd(**{"epsilon": 0.1, "step_size": 0.1, "num_steps": 1} | change)
    proved = pt.Verification(0.1, (0.0, 1.0), np.array([True, True, False, True]))
    check_not_below_proof(network, attack, 0.75, proved)
    if contradicts:
        with pytest.raises(RuntimeError, match="0.700000 .* 0.750000"):
            check_not_below_proof(network, attack, 0.7, proved)
    else:
        check_not_below_proof(network, attack, 0.7, proved)


def test_what_is_proved_of_float32_does_not_bind_half_precision(images):
    proved = pt.Verification(0.1, (0.0, 1.0), np.array([True]))
    half = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, dtype="bfloat16")])
    check_not_below_proof(half, pt.attacks.fgsm(epsilon=0.1), 0.5, proved)


def test_evaluate_holds_the_attack_against_the_proof(network, images, labels, monkeypatch):
    everything = pt.Verification(0.2, (0.0, 1.0), np.ones(len(labels), bool))
    monkeypatch.setattr(pt.report, "verified", lambda *_, **__: everything)
    with pytest.raises(RuntimeError, match="proved to withstand"):
        pt.evaluate(network, members=(images, labels), non_members=(images, labels), attack=ATTACK, verify=0.2)


def test_a_tpr_finer_than_the_non_members_stands_nowhere():
    rng = np.random.default_rng(0)

    def predictions(num):
        return pt.Predictions(rng.normal(size=(num, 3)), rng.integers(3, size=num))

    figures = [
        pt.report.QueryFigures.from_predictions(predictions(2000), predictions(20), queries)
        for queries in ("natural", "adversarial")
    ]
    report = pt.Report(natural=figures[0], adversarial=figures[1])
    jsonschema.validate(report.to_dict(), pt.report.schema())
    for result in report.to_dict()["membership"]:
        assert [rate["tpr"] for rate in result["tpr_at_fpr"]] == [None] * 3
        assert all(rate["smallest_attainable_fpr"] >= 0.05 for rate in result["tpr_at_fpr"])
    for table in (report.to_text(), report.to_markdown()):
        rows = [line for line in table.splitlines() if "- TPR at" in line]
        assert len(rows) == 6 and all(row.count("n/a (smallest attainable FPR 0.05)") == 2 for row in rows)


def test_costs_must_be_numbers(reports):
    for bad in (np.nan, np.inf, "much"):
        with pytest.raises(ValueError, match="`cost` must hold finite numbers"):
            pt.Report(natural=reports[0].natural, adversarial=None, cost={"hours": bad})


def predictions_of(right, num, scale=1.0):
    """As many predictions, of which so many are right, all equally sure."""
    labels = np.zeros(num, np.int64)
    logits = np.tile([[-scale, scale]], (num, 1))
    logits[:right] *= -1
    return pt.Predictions(logits, labels)


def report_of(train_right, test_right, num=1000, *, attacked=False):
    def figures(queries):
        pair = predictions_of(train_right, num), predictions_of(test_right, num)
        return pt.report.QueryFigures.from_predictions(*pair, queries)

    return pt.Report(natural=figures("natural"), adversarial=figures("adversarial") if attacked else None)


@pytest.mark.parametrize("attacked", [False, True])
def test_the_verdict_is_that_of_the_figures(attacked):
    """A network that is right of 900 of 1,000 non-members and of more members has a gap to be seen from."""
    low, high = clopper_pearson(900, 1000)
    # The better of k thresholds is past .5 + .5 sqrt(log(k / .05) / (2 n n / 2 n)) by chance in at most 5 % of audits.
    band = 0.5 + 0.5 * np.sqrt(np.log((1 + attacked) / 0.05) / 1000)
    for train_right, words in ((1000, "a leak is shown"), (905, "no leak shown by these attackers")):
        report = report_of(train_right, 900, attacked=attacked)
        verdict = report.verdict()
        assert f"Accuracy 0.900 [{low:.3f}, {high:.3f}]" in verdict
        assert f"(P_MAX) {report.p_max:.4f}" in verdict and f"({band:.4f}): {words}." in verdict
        assert ("under attack 0.900" in verdict) == attacked
        assert report.to_text().startswith(verdict)


def test_the_band_of_no_leakage_holds_where_nothing_leaks():
    """Of 400 audits without a leak, by two signals each, at most 5 % (and what chance adds) are past it."""
    rng = np.random.default_rng(0)
    past = 0
    for _ in range(400):
        pairs = [[pt.Predictions(rng.normal(size=(200, 3)), np.zeros(200, np.int64)) for _ in "mn"] for _ in "na"]
        figures = [  # by the signal that the band is of, without intervals
            pt.report.QueryFigures(
                train_accuracy=pair[0].accuracy,
                test_accuracy=pair[1].accuracy,
                membership=membership.audit_predictions(
                    *pair, queries=queries, signals="cross_entropy", num_bootstrap=0
                ),
            )
            for pair, queries in zip(pairs, ("natural", "adversarial"))
        ]
        report = pt.Report(natural=figures[0], adversarial=figures[1])
        past += report.p_max > presentation.floor_of_p_max(report)
    assert 2 <= past <= 30


def test_what_was_not_tested_is_said(reports):
    whole, bare = reports
    assert "no attack was given" in bare.to_text() and "stronger attacks" in bare.to_text()
    assert "no attack was given" not in whole.to_text() and "stronger attacks" not in whole.to_text()
    for report in reports:
        assert "shadow models" in report.to_text()


def test_a_notebook_shows_verdict_table_and_glossary(reports):
    for report in reports:
        page = report._repr_html_()
        assert page.startswith(f"<p><b>{report.verdict()}</b></p><table>".replace("'", "&#x27;"))
        assert f"<td>{report.p_max:.4f}</td>" in page
        assert all(f"<b>{word}</b>" in page for word in pt.report.presentation.GLOSSARY)


def test_robustness_reads_itself(reports):
    result = reports[0].robustness
    low, high = result.interval(0.2)
    sentence = f"Robust accuracy {result.accuracy(0.2):.3f} at linf radius 0.2 [{low:.3f}, {high:.3f}]."
    assert result.to_text().startswith(sentence)
    rows = [line.split() for line in result.to_text().splitlines()[3:]]
    assert [row[0] for row in rows] == ["0", "0.1", "0.2"]
    assert [float(row[1]) for row in rows] == pytest.approx(result.accuracies, abs=1e-4)
    assert sentence in result._repr_html_()


def test_pictures_show_the_figures(reports):
    whole, bare = reports
    accuracies, leakage = whole.plot().axes
    heights = [bar.get_height() for bar in accuracies.patches]
    natural, attacked = whole.natural, whole.adversarial
    assert heights == [natural.train_accuracy, attacked.train_accuracy, natural.test_accuracy, attacked.test_accuracy]
    np.testing.assert_allclose(leakage.lines[0].get_ydata(), [natural.p_e, attacked.p_e])
    assert len(bare.plot().axes[0].patches) == 2
    (curve,) = whole.robustness.plot().axes
    np.testing.assert_allclose(curve.lines[0].get_xydata().T, [whole.robustness.epsilons, whole.robustness.accuracies])
