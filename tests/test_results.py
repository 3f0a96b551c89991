"""Finished runs as a file: what is written reads back, and what is damaged or foreign is one line naming the field."""

import copy
import json
import os
import threading

import pytest
from made_up import record_of

from experiments import command_line, compare, files, method, results
from experiments.config import ExperimentConfig
from experiments.results import Runs
from experiments.sweep.__main__ import main as sweep

GOOD = record_of(ExperimentConfig())


def changed(path, value):
    """A good metrics.json with another value at a path of names."""
    record = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    place = record
    for name in parents:
        place = place[name]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return record


# ---------------------------------------------------------------- kept and found


def test_a_run_is_found_by_its_flags_at_once_and_later_with_the_very_same_figures(tmp_path):
    config = ExperimentConfig(seed=3, epsilon=8 / 255, boundaries=(5,), learning_rates=(0.1, 1e-5), half=0, export=())
    record = record_of(config, a_test=0.1 + 0.2, p_max=2 / 3)
    record["membership"] = [
        {"signal": "entropy", "queries": "natural", "auc": 1 / 3, "threshold": "inf", "num_members": 5,
         "tpr_at_fpr": [{"fpr": 0.01, "tpr": None}, {"fpr": 0.1, "tpr": 0.3}]}
    ]  # fmt: skip
    record["machine"] = {"cpu": "3", "threads": [2, 2], "gpus": []}
    runs = Runs(tmp_path / "a" / "runs.csv")
    assert runs.find(config) is None and len(runs) == 0
    runs.add("PGD", "=1, 'a'\n", record)
    for kept in (runs, Runs(runs.path)):
        run = kept.find(config)
        assert (run["group"], run["label"], len(kept)) == ("PGD", "=1, 'a'\n", 1)
        assert (run["a_test"], run["p_max"], run["flags.epsilon"]) == (0.1 + 0.2, 2 / 3, 8 / 255)
        assert run["membership.natural.entropy.tpr_at_fpr.0.1.tpr"] == 0.3 and run["machine.cpu"] == "3"
        assert results.key(results.flags_of(run)) == results.key(config.to_dict())
        assert results.config_of(run).learning_rates == (0.1, 1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1}, {"variant": "original"}, {"epsilon": 0.2}, {"train_size": 100}, {"eval_steps": 3},
        {"precision": "mixed_bfloat16"}, {"schedule_scale": 0.5}, {"rs_clip": False}, {"learning_rates": (1e-3,)},
        {"dataset": "npz", "data_dir": "faces.npz"},
    ],
)  # fmt: skip
def test_a_run_with_other_flags_is_another_and_both_are_kept(tmp_path, other):
    runs, config = Runs(tmp_path / "runs.csv"), ExperimentConfig(**other)
    runs.add("", "run", GOOD)
    assert runs.find(config) is None
    runs.add("", "run", record_of(config))
    runs.add("", "run", record_of(config, a_test=0.25))  # once more
    assert len(Runs(runs.path)) == 2 and runs.find(config)["a_test"] == 0.25 and runs.find(ExperimentConfig())


def test_flags_that_change_no_figure_do_not_tell_runs_apart(tmp_path):
    places = {"output_dir": "elsewhere", "data_dir": "/data", "export": (), "checkpoint_seconds": 1}
    runs = Runs(tmp_path / "runs.csv")
    runs.add("", "run", record_of(ExperimentConfig(**places)))
    for options in {"resume": True}, {"overwrite": True}:
        assert runs.find(ExperimentConfig(**options)) is not None


def test_two_files_of_images_are_two_data_sets_and_one_of_other_content_is_another(tmp_path):
    path, runs = tmp_path / "mine.npz", Runs(tmp_path / "runs.csv")
    config = ExperimentConfig(dataset="npz", data_dir=str(path))
    path.write_bytes(b"one")
    record = record_of(config)
    record["data"]["fingerprint"] = method.data_fingerprint(config)
    runs.add("", "run", record)
    assert runs.find(config) is not None
    assert runs.find(ExperimentConfig(dataset="npz", data_dir="flowers.npz")) is None
    path.write_bytes(b"other")
    assert runs.find(config) is None
    path.unlink()  # tables are made elsewhere too
    assert runs.find(config) is not None


def test_a_flag_that_an_older_file_does_not_know_had_its_default(tmp_path):
    old = copy.deepcopy(GOOD)
    for name in ("order", "schedule_scale", "learning_rates", "export"):
        del old["flags"][name]
    results.write(tmp_path / "runs.csv", [{"group": "", "label": "old", **{n: v for n, v in results.flat(old).items()
                                          if n not in ("flags.order", "flags.learning_rates")}}])  # fmt: skip
    runs = Runs(tmp_path / "runs.csv")
    assert runs.find(ExperimentConfig())["flags.learning_rates"] == ExperimentConfig.learning_rates
    assert runs.find(ExperimentConfig(order="companions")) is None


def test_sweeps_that_write_one_file_at_once_keep_all_runs(tmp_path):
    def write(first):
        runs = Runs(tmp_path / "runs.csv")
        for seed in range(first, first + 6):
            runs.add("", "run", record_of(ExperimentConfig(seed=seed)))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 6, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Runs(tmp_path / "runs.csv")) == 18


# ---------------------------------------------------------------- damaged and foreign

NO_NUMBERS = [KeyError, None, "0.5", [0.5], {"mean": 0.5}, True, float("nan"), float("inf"), 10**400]
FIGURES = [("a_train", value) for value in NO_NUMBERS]
FIGURES += [(name, value) for name in ("p_max", "noise_floor.mean", "seconds.training", "cost.updates",
            "data.num_members") for value in (KeyError, "0.5", True)]  # fmt: skip
FLAGS = [("batch_size", "100"), ("batch_size", 1.5), ("epsilon", [0.1]), ("epsilon", None), ("dataset", 3),
         ("learning_rates", 1e-4), ("learning_rates", ["1e-4"]), ("boundaries", [[1]]), ("export", [1]),
         ("random_start", 1), ("epsilon", 10**400), ("seed", KeyError)]  # fmt: skip
PARTS = [(field, value) for field in ("flags", "versions", "data", "cost", "noise_floor", "data.name", "seconds")
         for value in (KeyError, None, [], 3)]  # fmt: skip
RANGES = [("r_test", -0.1), ("r_test", 1.1), ("cost.gradient_passes", -1), ("cost.forward_units", 0),
          ("cost.updates", 1e300), ("data.num_members", 0), ("data.num_non_members", -1), ("seconds.training", -1),
          ("schema_version", 99), ("schema_version", "x")]  # fmt: skip


@pytest.mark.parametrize(
    "field, value", [*FIGURES, *((f"flags.{name}", value) for name, value in FLAGS), *PARTS, *RANGES], ids=str
)
def test_a_field_that_is_none_is_named(tmp_path, field, value):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(changed(field, value)))
    with pytest.raises(ValueError, match="metrics.json' is no record of runs") as told:
        results.read_metrics(path)
    names = (field, "NaN", "Infinity", "digits")  # numbers of more than 4,300 digits are none to Python
    assert any(name in str(told.value) for name in names) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "field, value",
    [("a_test", ""), ("a_test", "high"), ("a_test", "1.5"), ("p_max", "nan"), ("cost.updates", "9" * 5000),
     ("flags.seed", ""), ("flags.epsilon", "wide"), ("flags.learning_rates", "[" * 100_000), ("flags.rs_clip", "1"),
     ("data.name", ""), ("schema_version", "99")],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_cell_that_is_none_is_named_with_its_line(tmp_path, field, value):
    runs = Runs(tmp_path / "runs.csv")
    for seed in (0, 1):
        runs.add("", "run", {**record_of(ExperimentConfig(seed=seed)), "schema_version": 1})
    good, bad = results.read_csv(runs.path)
    results.write(runs.path, [good, bad | {field: value}])
    with pytest.raises(ValueError, match=rf"runs.csv' is no record of runs: in line 3 it.*{field}"):
        Runs(runs.path)


STRANGE = {
    "empty": b"", "no csv": b'"', "latin-1": b'"\xe9"', "number": b"3\n3", "zeros": bytes(100), "json": b'{"a": 1}',
    "ragged": b"a,b\n1,2,3\n1,2,3,4\n", "only figures": b"a_test,p_max\n0.5,0.5\n",
}  # fmt: skip


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_commands_tell_a_file_that_holds_no_runs_in_one_line(tmp_path, capsys, content):
    (tmp_path / "runs.csv").write_bytes(content)
    row = "--row=PGD | Original | quickstart.flags --variant=original"
    commands = [
        lambda: compare.main(["compare", str(tmp_path / "runs.csv"), f"--output_dir={tmp_path / 'out'}"]),
        lambda: sweep(["sweep", row, f"--output_dir={tmp_path}", "--tables_only"]),
    ]
    for command in commands:
        code, told = command(), capsys.readouterr().err
        assert code == 2 and told.count("\n") == 1 and "runs.csv' is no record of runs: " in told


def test_a_file_without_a_run_is_nothing_to_compare(tmp_path, capsys):
    results.write(tmp_path / "runs.csv", [{"group": "", "label": "", **results.flat(GOOD)}])
    (tmp_path / "runs.csv").write_text((tmp_path / "runs.csv").read_text().splitlines()[0] + "\n")
    assert compare.main(["compare", str(tmp_path / "runs.csv"), f"--output_dir={tmp_path / 'out'}"]) == 2
    assert "there is no finished run in" in capsys.readouterr().err


JSON = {"no json": b"{", "latin-1": b'"\xe9"', "deep": b"[" * 100_000, "list": b"[]", "null": b"null",
        "long": b"9" * 10**4, "nan": b"NaN", "zeros": bytes(100), "half a character": b'{"a": "\\ud800"}'}  # fmt: skip


@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
def test_metrics_that_are_none_are_told_by_file(tmp_path, content):
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(ValueError, match="metrics.json' is no record of runs"):
        results.read_metrics(tmp_path / "metrics.json")


def test_a_pipe_is_no_file_of_runs_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "runs.csv")
    for read in (results.read_csv, results.read_metrics):
        with pytest.raises(ValueError, match="it is not a file"):
            read(tmp_path / "runs.csv")


@pytest.mark.parametrize(
    "audit, told",
    [
        (b"[]", "lacks robustness"),
        (b'{"robustness": null}', "lacks robustness"),
        (b'{"robustness": {"epsilons": [], "accuracies": [0.5], "num": 3}}', "robustness.epsilons"),
        (b'{"robustness": {"epsilons": [0.1], "accuracies": ["x"], "num": 3}}', "robustness.accuracies"),
        (b'{"robustness": {"epsilons": [0.1], "accuracies": [0.5], "num": "3"}}', "robustness.num"),
        (b"{" * 100_000, "is no audit"),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_damaged_audit_is_one_line(tmp_path, capsys, audit, told):
    (tmp_path / "metrics.json").write_text(json.dumps(GOOD))
    (tmp_path / "audit.json").write_bytes(audit)
    assert compare.main(["compare", str(tmp_path), f"--output_dir={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert told in said and "audit.json" in said and said.count("\n") == 1


def test_flags_of_no_run_name_the_file(tmp_path, capsys):
    (tmp_path / "metrics.json").write_text(json.dumps(changed("flags.epsilon", -1.0)))
    assert compare.main(["compare", str(tmp_path), f"--output_dir={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "metrics.json" in said and "epsilon" in said and said.count("\n") == 1


@pytest.mark.parametrize("template", ["{seed:>1000000000000}", "{seed:{updates}}", "{seed:010000}", "{seed:.99999f}"])
def test_a_template_cannot_ask_for_endless_names(template):
    with pytest.raises(ValueError, match="`output_dir` may hold names of flags"):
        ExperimentConfig(output_dir=f"runs/{template}")


def test_a_template_may_format_what_fits_in_a_name():
    assert ExperimentConfig(output_dir="runs/{seed:03d}-{epsilon:.2f}").run_dir == "runs/000-0.10"


def test_strict_json_only(tmp_path):
    assert command_line.guarded(lambda argv: files.read_json(tmp_path), []) == 2
    (tmp_path / "a").write_text('{"a": -Infinity}')
    with pytest.raises(ValueError, match="it holds -Infinity, which is no number"):
        files.read_json(tmp_path / "a")
