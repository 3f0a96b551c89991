"""The paper's Table 1, and results beside it."""

import csv
import dataclasses
import re
from pathlib import Path

import pytest

from experiments import paper
from experiments.config import ExperimentConfig

COLUMNS = ["a_train", "a_test", "r_train", "r_test", "p_e_nat", "p_e_adv", "p_max", "hours"]
FIGURES = {"a_train": 1.0, "a_test": 0.9, "r_train": 0.8, "r_test": 0.7, "p_e_nat": 0.6, "p_e_adv": 0.65, "p_max": 0.65}
DATA = {"name": "digits", "num_members": 60_000, "num_non_members": 10_000}
METRICS = {**FIGURES, "hours": 1.5, "data": DATA}


@pytest.fixture(scope="module")
def table():
    with open(Path(paper.__file__).with_name("paper_table1.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def config(dataset="fmnist", attack="pgd", variant="pineat", ratio="1/1"):
    radius = {"cifar10": {"epsilon": 8 / 255, "step_size": 2 / 255, "num_steps": 10}}.get(dataset, {})
    if (dataset, attack) == ("cifar10", "dist"):
        radius["dist_coefficient"] = 12 / 255
    if (dataset, attack) == ("cifar10", "diff"):
        radius |= {"epsilon": 0.0314, "step_size": 0.007}
    return ExperimentConfig(dataset=dataset, attack=attack, variant=variant, ratio=ratio, **radius)


def test_the_table_has_natural_and_four_variants_of_three_attacks_on_two_data_sets(table):
    expected = {(d, "none", "natural") for d in ("fmnist", "cifar10")} | {
        (d, a, v)
        for d in ("fmnist", "cifar10")
        for a in ("pgd", "dist", "diff")
        for v in ("original", "advnat", "advran", "pineat")
    }
    keys = [(row["dataset"], row["attack"], row["variant"]) for row in table]
    assert set(keys) == expected and len(keys) == len(expected) == 26
    assert list(table[0]) == ["dataset", "attack", "variant", *COLUMNS]


def test_p_max_of_every_row_is_the_larger_threshold_and_figures_are_shares(table):
    for row in table:
        assert float(row["p_max"]) == max(float(row["p_e_nat"]), float(row["p_e_adv"]))
        assert all(0 <= float(row[name]) <= 1 for name in FIGURES) and float(row["hours"]) > 0


def test_the_columns_have_the_names_of_the_table():
    assert list(paper.COLUMNS) == COLUMNS


def test_a_run_finds_its_row():
    row = paper.paper_row(config())
    assert row == {
        "a_train": 0.9977, "a_test": 0.9136, "r_train": 0.8791, "r_test": 0.6824, "p_e_nat": 0.5683,
        "p_e_adv": 0.6052, "p_max": 0.6052, "hours": 3.90,
    }  # fmt: skip
    assert paper.paper_row(config("cifar10", "diff", "advnat"))["hours"] == 20.67
    assert paper.paper_row(config(variant="original", ratio="4/1"))["hours"] == 6.18  # its ratio is 1/0 in any case


def test_images_in_a_folder_are_compared_with_the_data_set_that_they_are_said_to_be():
    of_paper = config("cifar10", "dist")
    folder = dataclasses.replace(of_paper, dataset="image_folder", data_dir="a", network="wrn8")
    assert paper.paper_row(folder) is None
    said = dataclasses.replace(folder, paper_dataset="cifar10")
    assert paper.paper_row(said) == paper.paper_row(of_paper) and paper.dataset_of(said) == "cifar10"


def test_natural_training_has_one_row_whatever_the_attack_says():
    assert paper.paper_row(config(variant="natural", attack="diff"))["a_test"] == 0.9281


@pytest.mark.parametrize(
    "fields", [{"dataset": "digits"}, {"attack": "pgd_l2"}, {"ratio": "1/2"}, {"ratio": "2/2"}, {"attack": "wrm_l2"}]
)
def test_a_run_that_is_not_in_the_paper_has_no_row(fields):
    assert paper.paper_row(config(**fields)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"epsilon": 0.3}, {"step_size": 0.5}, {"num_steps": 10}, {"random_start": False}, {"canaries": 5}, {"half": 0},
        {"rs_bounds": "valid"}, {"augment_flip": True}, {"schedule_scale": 0.5}, {"attack": "diff", "trades_beta": 6.0},
    ],
)  # fmt: skip
def test_an_ablation_or_an_attack_of_other_settings_is_no_method_of_the_paper(fields):
    assert paper.is_its_method(config()) and paper.is_its_method(config(ratio="3/1"))
    other = dataclasses.replace(config(), **fields)
    assert not paper.is_its_method(other) and paper.paper_row(other) is None
    assert paper.is_its_method(
        dataclasses.replace(config(), width=2, updates=100, train_size=500, precision="mixed_bfloat16")
    )


def test_results_stand_beside_the_papers_in_aligned_columns():
    fmnist, digits = {**METRICS, "data": {**DATA, "name": "fmnist"}}, config("digits", variant="original")
    lines = paper.results_table([(config(), fmnist), (digits, METRICS)]).splitlines()
    assert [re.split(r"  +", line.strip()) for line in lines[:4]] == [
        ["A_train", "A_test", "R_train", "R_test", "P_Enat", "P_Eadv", "P_MAX", "hours"],
        ["fmnist pgd pineat-1/1", *"1.0000 0.9000 0.8000 0.7000 0.6000 0.6500 0.6500 1.50".split()],
        ["in the paper, at full scale", *"0.9977 0.9136 0.8791 0.6824 0.5683 0.6052 0.6052 3.90".split()],
        ["digits pgd original", *"1.0000 0.9000 0.8000 0.7000 0.6000 0.6500 0.6500 1.50".split()],
    ]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[4:] == ["P_MAX without any leak, in-sample: 0.5044 (95 %: 0.5073)."]


def test_a_figure_that_there_is_not_is_a_dash():
    text = paper.results_table([(config("digits"), {**METRICS, "r_test": None})])
    assert text.splitlines()[1].split()[-5] == "-"


@pytest.mark.parametrize(
    "fields, label",
    [
        ({"variant": "natural"}, "faces natural"),
        ({"variant": "original", "attack": "dist"}, "faces dist original"),
        ({"variant": "advran", "ratio": "1/2"}, "faces pgd advran-1/2"),
    ],
)
def test_a_run_is_called_by_the_name_of_its_data_and_what_makes_it_different(fields, label):
    assert paper.label(config("npz", **fields), "faces") == label


def test_every_noise_floor_is_told_once():
    other = {**METRICS, "data": {**DATA, "num_members": 10_000}}
    lines = paper.results_table([(config("digits"), metrics) for metrics in (METRICS, other, METRICS)]).splitlines()
    assert [line.split(": ", 1)[1] for line in lines if line.startswith("P_MAX without")] == [
        "0.5044 (95 %: 0.5073).", "0.5057 (95 %: 0.5096).",
    ]  # fmt: skip
