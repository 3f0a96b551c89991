"""Runs ranked: what is one method, what it is called, who beats whom, and what AutoAttack left."""

import dataclasses
import json

import pytest
from made_up import keep, record_of

from experiments import compare
from experiments.config import ExperimentConfig
from experiments.sweep.grid import Row

PINEAT = ExperimentConfig(variant="pineat", seed=1)
ORIGINAL = dataclasses.replace(PINEAT, variant="original")
STOPPED = dataclasses.replace(ORIGINAL, schedule_scale=0.5, learning_rates=(1e-3, 1e-4), boundaries=(5,))


@pytest.fixture
def runs(tmp_path):
    """Directories of four runs: PINEAT twice, the original, and the original stopped early, which beats PINEAT."""
    figures = {
        "pineat1": (PINEAT, {"p_max": 0.53, "r_test": 0.70}),
        "pineat2": (dataclasses.replace(PINEAT, seed=2), {"p_max": 0.55, "r_test": 0.68}),
        "original": (ORIGINAL, {"p_max": 0.56, "r_test": 0.72}),
        "stopped": (STOPPED, {"p_max": 0.52, "r_test": 0.71}),
    }
    for name, (config, values) in figures.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(record_of(config, **values)))
    return tmp_path


def called(runs, *arguments):
    paths = [str(runs / name) for name in ("pineat1", "pineat2", "original", "stopped")]
    return compare.main(["compare", *paths, f"--output_dir={runs / 'out'}", *arguments])


def table(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_methods_are_ranked_with_who_beats_them(runs, capsys):
    assert called(runs) == 0
    _, _, *rows = table(capsys.readouterr().out)
    stopped = "fmnist pgd original, schedule_scale=0.5, learning_rates=0.001/0.0001, boundaries=5"
    assert [row[:3] for row in rows] == [
        ["1", stopped, "1"], ["2", "fmnist pgd original", "1"], ["3", "fmnist pgd pineat-1/1", "2"],
    ]  # fmt: skip
    assert [row[-1] for row in rows] == ["none", "none", "1"]
    assert rows[2][4] == "0.6900 ± 0.0141" and rows[2][5] == "0.5400 ± 0.0141"
    names = {path.name for path in (runs / "out").iterdir()}
    assert names == {f"compare{end}" for end in (".md", ".csv", ".html", "_pareto.png", "_ranking.md")}
    assert stopped in (runs / "out" / "compare_ranking.md").read_text()


def test_runs_on_other_data_are_other_methods(tmp_path, capsys):
    for seed, name in enumerate(("easy", "hard")):
        config = ExperimentConfig(dataset="npz", data_dir=f"/data/{name}.npz", seed=seed, variant="original")
        (tmp_path / f"{name}.json").write_text(json.dumps(record_of(config)))
    paths = [str(tmp_path / name) for name in ("easy.json", "hard.json")]
    assert compare.main(["compare", *paths, f"--output_dir={tmp_path}"]) == 0
    rows = table(capsys.readouterr().out)[2:]
    assert sorted(row[1:3] for row in rows) == [["easy.npz pgd original", "1"], ["hard.npz pgd original", "1"]]


def test_what_autoattack_left_of_other_images_stands_apart():
    audits = [{"epsilons": [0.05, e], "accuracies": [0.9, a], "num": n} for e, a, n in
              ((0.1, 0.5, 100), (0.1, 0.6, 100), (0.2, 0.4, 100), (0.1, 0.3, 200))]  # fmt: skip
    assert compare._left(audits) == "0.5500 at 0.1 (100); 0.3000 at 0.1 (200); 0.4000 at 0.2 (100)"


def test_differences_from_a_method_are_tested(runs, capsys):
    assert called(runs, "--reference=fmnist pgd original") == 0
    assert "## Paired differences" in (runs / "out" / "compare.md").read_text()
    assert called(runs, "--reference=Original") == 2
    assert "the methods are 'fmnist pgd pineat-1/1'" in capsys.readouterr().err


def test_what_autoattack_left_stands_beside(runs, capsys):
    left = {"epsilons": [0.0, 0.05, 0.1], "accuracies": [0.9, 0.8, 0.65], "num": 1000}
    (runs / "original" / "audit.json").write_text(json.dumps({"robustness": left}))
    assert called(runs) == 0
    header, _, *rows = table(capsys.readouterr().out)
    assert header[5] == "AutoAttack"
    assert [row[5] for row in rows] == ["-", "0.6500 at 0.1 (1,000)", "-"]


def test_a_file_of_runs_names_runs_too(runs, capsys):
    keep(runs / "runs.csv", *((Row(group="", label="", configs=()), config, {}) for config in (ORIGINAL, PINEAT)))
    arguments = [str(runs / "runs.csv"), str(runs / "stopped" / "metrics.json"), f"--output_dir={runs / 'out'}"]
    assert compare.main(["compare", *arguments]) == 0
    assert len(table(capsys.readouterr().out)) == 2 + 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "name at least one run"),
        (["original", "original"], "have the same seed and flags"),
        (["nothing"], "No such file"),
        (["."], "holds no finished run"),
        (["broken.json"], "is no record of runs"),
        (["badaudit"], "is no audit"),
    ],
)
def test_what_is_no_comparison_is_told(runs, capsys, arguments, message):
    (runs / "broken.json").write_text("{}")
    (runs / "badaudit").mkdir()
    (runs / "badaudit" / "metrics.json").write_text((runs / "original" / "metrics.json").read_text())
    (runs / "badaudit" / "audit.json").write_text("[]")
    if arguments == ["."]:
        (runs / "broken.json").unlink()
    assert compare.main(["compare", *(str(runs / name) for name in arguments), f"--output_dir={runs / 'out'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (runs / "out").exists()


def test_help_says_what_it_does(capsys):
    assert compare.main(["compare", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--reference" in text and "Ranks finished runs" in text
