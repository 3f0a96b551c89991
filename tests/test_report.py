"""The joint record: its schema, its tables, and what stands in it."""

import json

import jsonschema
import numpy as np
import pytest

import pineat_tf as pt

ATTACK = pt.attacks.pgd(epsilon=0.2, step_size=0.1, num_steps=3)


@pytest.fixture
def reports(network, images, labels):
    data = (images, labels)
    attacks = {"pgd": lambda epsilon: pt.attacks.pgd(epsilon=epsilon, step_size=epsilon, num_steps=1)}
    robustness = pt.robustness(network, data, attacks, epsilons=[0.1, 0.2], check=False)
    halves = {"members": (images[:5], labels[:5]), "non_members": (images[5:], labels[5:])}
    whole = pt.evaluate(network, **halves, attack=ATTACK, robustness=robustness, cost={"forward_passes": 1234.5})
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
    (row,) = [line for line in text.splitlines() if "linf radius 0.2" in line]
    assert f"{accuracy:.4f} [" in row
    assert "cost: forward_passes" in text and "1,234.5" in text and "| cost: forward_passes |" in whole.to_markdown()
    assert bare.to_dict()["robustness"] is None and "radius" not in bare.to_text()


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
