"""Records of runs, as anybody's files: what is damaged or foreign is one line that names file and field."""

import copy
import json
import os

import pytest
from made_up import record_of

from experiments import command_line, compare, files, method
from experiments.config import ExperimentConfig
from experiments.sweep import records
from experiments.sweep.__main__ import main as sweep

GOOD = record_of(ExperimentConfig())


def changed(path, value):
    """A good record with another value at a path of names."""
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


FIGURES = ["a_train", "p_max", "noise_floor.mean", "seconds.training", "cost.updates", "data.num_members"]
NO_NUMBERS = [KeyError, None, "0.5", [0.5], {"mean": 0.5}, True, float("nan"), float("inf"), 10**400]
FLAGS = [("batch_size", "100"), ("batch_size", 1.5), ("epsilon", [0.1]), ("epsilon", None), ("dataset", 3),
         ("learning_rates", 1e-4), ("learning_rates", ["1e-4"]), ("boundaries", [[1]]), ("export", [1]),
         ("random_start", 1), ("epsilon", 10**400), ("seed", KeyError)]  # fmt: skip


@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
@pytest.mark.parametrize("field", FIGURES)
def test_a_figure_that_is_none_is_named(tmp_path, field, value):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(changed(field, value)))
    with pytest.raises(ValueError, match="record.json' is no record of a run") as told:
        records.read(path)
    names = (field, "NaN", "Infinity", "digits")  # numbers of more than 4,300 digits are none to Python
    assert any(name in str(told.value) for name in names) and "\n" not in str(told.value)


@pytest.mark.parametrize("name, value", FLAGS, ids=str)
def test_a_flag_of_another_type_is_named(tmp_path, name, value):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(changed(f"flags.{name}", value)))
    with pytest.raises(ValueError, match=f"flags.{name}"):
        records.read(path)


@pytest.mark.parametrize("field", ["flags", "versions", "data", "cost", "noise_floor", "data.name", "seconds"])
@pytest.mark.parametrize("value", [KeyError, None, [], 3, "text"])
def test_a_part_of_another_type_is_named(tmp_path, field, value):
    if (field, value) == ("data.name", "text"):
        pytest.skip("which is a name")
    path = tmp_path / "record.json"
    path.write_text(json.dumps(changed(field, value)))
    with pytest.raises(ValueError, match=field):
        records.read(path)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_one(tmp_path, share):
    (tmp_path / "record.json").write_text(json.dumps(changed("r_test", share)))
    with pytest.raises(ValueError, match="its r_test is no share"):
        records.read(tmp_path / "record.json")


def test_what_older_records_lack_has_its_default(tmp_path):
    for name in ("teacher_share", "learning_rates", "export"):
        (tmp_path / "record.json").write_text(json.dumps(changed(f"flags.{name}", KeyError)))
        assert records.read(tmp_path / "record.json")["flags"]["batch_size"] == 100


STRANGE = {
    "empty": b"", "no json": b"{", "latin-1": b'"\xe9"', "deep": b"[" * 100_000, "list": b"[]", "null": b"null",
    "number": b"3", "long number": b"9" * 10_000, "nan": b"NaN", "zeros": bytes(100),
    "deep object": b'{"a":' * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_commands_tell_a_file_that_is_no_record_in_one_line(tmp_path, capsys, command, content):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "strange.json").write_bytes(content)
    if command == "compare":
        code = compare.main(["compare", str(tmp_path / "records"), f"--output_dir={tmp_path / 'out'}"])
    else:
        row = "--row=PGD | Original | quickstart.flags --variant=original"
        code = sweep(["sweep", row, f"--output_dir={tmp_path}", "--tables_only"])
    told = capsys.readouterr().err
    assert code == 2 and told.count("\n") == 1 and "strange.json' is no record of a run: " in told


def test_half_a_character_is_told_before_it_is_written_to_tables(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(changed("data.name", "\ud800")))
    with pytest.raises(ValueError, match="record.json' is no record of a run: it holds half a character"):
        records.read(tmp_path / "record.json")
    (tmp_path / "record.json").write_text(json.dumps(changed("data.name", "\U0001f600")))  # two escapes, one character
    assert records.read(tmp_path / "record.json")["data"]["name"] == "\U0001f600"


def test_a_pipe_is_no_record_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "record.json")
    with pytest.raises(ValueError, match="it is not a file"):
        records.read(tmp_path / "record.json")


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


def test_a_record_whose_name_is_too_long_is_told_before_its_run(tmp_path):
    kept = records.Records(tmp_path)
    kept.check_writable("short", ExperimentConfig())
    with pytest.raises(OSError, match="too long"):
        kept.check_writable("x" * 250, ExperimentConfig())
    assert not list(tmp_path.iterdir())


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


def test_a_record_of_a_file_with_other_content_is_not_found(tmp_path):
    path = tmp_path / "mine.npz"
    config = ExperimentConfig(dataset="npz", data_dir=str(path))
    kept = records.Records(tmp_path / "records")
    path.write_bytes(b"one")
    record = record_of(config)
    record["data"]["fingerprint"] = method.data_fingerprint(config)
    kept.add("run", record)
    assert kept.find(config) == record
    path.write_bytes(b"other")
    assert kept.find(config) is None
    path.unlink()  # tables are made elsewhere too
    assert kept.find(config) == record


@pytest.mark.parametrize(
    "field, value",
    [("cost.gradient_passes", -1), ("cost.forward_units", 0), ("cost.updates", 1e300), ("data.num_members", 0),
     ("data.num_non_members", -1), ("seconds.training", -1), ("schema_version", 99), ("schema_version", "x")],
)  # fmt: skip
def test_a_figure_out_of_range_is_named(tmp_path, field, value):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(changed(field, value)))
    with pytest.raises(ValueError, match=f"its {field} is"):
        records.read(path)
