"""The command line that audits predictions made elsewhere."""

import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from experiments.audit import predictions as audited
from experiments.audit.__main__ import main
from pineat_tf import accelerate, membership

ROOT = Path(__file__).resolve().parents[1]
YALE = ROOT.parent / "shared" / "truth" / "yale"

KEYS = [
    "schema_version", "a_train", "a_test", "r_train", "r_test", "v_test", "p_e_nat", "p_e_adv", "p_max",
    "gap_nat", "gap_adv", "noise_floor", "membership", "verification", "robustness", "cost", "scored_from",
]  # fmt: skip


def audit_file(path):
    report, scored_from = audited.audit(str(path))
    return report.to_dict() | {"scored_from": scored_from}


def softmax(logits):
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def predictions(form="output_", kinds=("benign", "adversarial"), num_train=60, num_test=40):
    """Arrays of an npz file, from a seeded network that is surer of its training examples."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, num, gain in (("train", num_train, 3.0), ("test", num_test, 1.0)):
        arrays[f"{split}_label"] = labels = rng.integers(0, 4, num)
        for kind in kinds:
            logits = rng.normal(size=(num, 4))
            logits[np.arange(num), labels] += gain
            arrays[f"{form}{split}_{kind}"] = logits if "logits" in form else softmax(logits)
    return arrays


def save(tmp_path, arrays, name="predictions.npz"):
    path = tmp_path / name
    np.savez(path, **arrays)
    return str(path)


def refusal(capsys, *arguments):
    """The one line on stderr of a call that must fail."""
    assert main(["audit", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    return err


# ---------------------------------------------------------------- published figures

PUBLISHED = {  # goldens.md, 5.1: A_train, A_test, R_train, R_test, and accuracies of the attack
    "natural": (1.0, 0.982490, 0.045263, 0.029183, 0.5585306164243293, 0.5427329510546794),
    "pgd": (0.998947, 0.966926, 0.99, 0.776265, 0.6168687282408356, 0.6882561949621135),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_yale_figures_are_those_of_reference_20(name, capsys):
    path = YALE / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the Yale predictions of reference [20] are not at ../shared/truth/yale: {name}")
    figures = audit_file(str(path))
    *accuracies, natural, adversarial = PUBLISHED[name]
    found = [figures[key] for key in ("a_train", "a_test", "r_train", "r_test")]
    np.testing.assert_allclose(found, accuracies, atol=5e-7)
    assert figures["p_e_nat"] == pytest.approx(natural, abs=1e-12, rel=0)
    assert figures["p_e_adv"] == pytest.approx(adversarial, abs=1e-12, rel=0)
    assert figures["p_max"] == max(figures["p_e_nat"], figures["p_e_adv"])
    by_confidence = {r["queries"]: r["balanced_accuracy"] for r in figures["membership"] if r["signal"] == "confidence"}
    assert by_confidence["natural"] == pytest.approx(natural, abs=1e-12, rel=0)
    assert by_confidence["adversarial"] == pytest.approx(adversarial, abs=1e-12, rel=0)
    assert main(["audit", str(path)]) == 0
    assert ("n/a (smallest attainable FPR 0.667)" in capsys.readouterr().out) == (name == "pgd")


# ---------------------------------------------------------------- figures


def test_figures_are_those_of_the_library(tmp_path):
    arrays = predictions()
    figures = audit_file(save(tmp_path, arrays))
    assert list(figures) == KEYS
    assert figures["schema_version"] == 2
    for kind, queries, short, letter in (
        ("benign", "natural", "nat", "a"),
        ("adversarial", "adversarial", "adv", "r"),
    ):
        train, test = (arrays[f"output_{split}_{kind}"] for split in ("train", "test"))
        member = membership.cross_entropy_score(arrays["train_label"], train, from_logits=False)
        non_member = membership.cross_entropy_score(arrays["test_label"], test, from_logits=False)
        result = membership.audit_scores(member, non_member, signal="cross_entropy", queries=queries)
        assert result.to_dict() in figures["membership"]
        assert figures[f"p_e_{short}"] == result.balanced_accuracy
        accuracies = figures[f"{letter}_train"], figures[f"{letter}_test"]
        assert accuracies == (
            np.mean(train.argmax(1) == arrays["train_label"]),
            np.mean(test.argmax(1) == arrays["test_label"]),
        )
        assert figures[f"gap_{short}"] == (1 + accuracies[0] - accuracies[1]) / 2
    assert figures["p_max"] == max(figures["p_e_nat"], figures["p_e_adv"])
    assert figures["noise_floor"] == membership.noise_floor(60, 40)._asdict()
    assert [(r["queries"], r["signal"]) for r in figures["membership"]] == [
        (queries, signal) for queries in ("natural", "adversarial") for signal in membership.SIGNALS
    ]
    assert figures["scored_from"] == {
        "natural": "probabilities", "adversarial": "probabilities",
    }  # fmt: skip


@pytest.mark.parametrize("form", ["logits_", "logits_output_"])
def test_logits_give_the_figures_of_their_probabilities(tmp_path, form):
    from_logits = audit_file(save(tmp_path, predictions(form)))
    from_probs = audit_file(save(tmp_path, predictions("output_")))
    assert from_logits["scored_from"]["natural"] == "logits"
    for key in ("a_train", "a_test", "r_train", "r_test", "v_test", "p_e_nat", "p_e_adv", "p_max"):
        assert from_logits[key] == from_probs[key]


def test_logits_are_preferred_to_probabilities_but_never_mixed(tmp_path):
    both = predictions("output_") | predictions("logits_")
    assert audit_file(save(tmp_path, both))["scored_from"]["natural"] == "logits"
    # Half a pair of logits is of no use: scores of members and non-members must be alike.
    del both["logits_test_benign"]
    scored_from = audit_file(save(tmp_path, both))["scored_from"]
    assert scored_from == {"natural": "probabilities", "adversarial": "logits"}
    del both["output_test_benign"]
    with pytest.raises(ValueError, match="lacks logits_test_benign"):
        audit_file(save(tmp_path, both))


def test_saturated_probabilities_tie_where_their_logits_do_not(tmp_path):
    arrays = predictions("logits_", kinds=["benign"])
    arrays = {n: 40 * a if "logits" in n else a for n, a in arrays.items()}
    from_logits = audit_file(save(tmp_path, arrays))["membership"][0]
    saturated = {
        name.replace("logits_", "output_"): softmax(a).astype(np.float32) if a.ndim == 2 else a
        for name, a in arrays.items()
    }
    from_probs = audit_file(save(tmp_path, saturated))["membership"][0]
    assert from_logits["tie_share"] == 0 and from_probs["tie_share"] > 0.5
    finest = 1 / from_logits["num_non_members"]
    assert from_logits["tpr_at_fpr"][0]["smallest_attainable_fpr"] == finest
    assert from_probs["tpr_at_fpr"][0]["smallest_attainable_fpr"] > 2 * finest
    assert from_probs["tpr_at_fpr"][0]["tpr"] is None


def test_without_adversarial_arrays_only_natural_figures(tmp_path, capsys):
    path = save(tmp_path, predictions(kinds=["benign"]))
    figures = audit_file(path)
    assert [key for key in KEYS if figures[key] is None] == [
        "r_train", "r_test", "v_test", "p_e_adv", "gap_adv", "verification", "robustness",
    ]  # fmt: skip
    assert figures["p_max"] == figures["p_e_nat"]
    assert {r["queries"] for r in figures["membership"]} == {"natural"}
    assert main(["audit", path]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "gap attack" in line)
    assert row.split()[-1] == "-"


def test_arrays_of_no_use_are_left_alone(tmp_path):
    arrays = predictions() | {"notes": np.array([{"not": "read"}], dtype=object)}
    audit_file(save(tmp_path, arrays))


# ---------------------------------------------------------------- command line


def test_table_shows_every_figure_in_columns(tmp_path, capsys):
    path = save(tmp_path, predictions())
    figures = audit_file(path)
    assert main(["audit", path]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("Membership audit of 60 members and 40 non-members")
    for word in ("A_train", "A_test", "R_train", "R_test", "P_Enat", "P_Eadv", "P_MAX", "in-sample",
                 "gap attack", "confidence threshold", "AUC", "TPR at 1 % FPR", "TPR at 0.1 % FPR",
                 "noise floor", "95 %"):  # fmt: skip
        assert word in out
    assert figures["v_test"] is None  # predictions prove nothing
    for key in KEYS[1:11]:
        assert key == "v_test" or f"{figures[key]:.4f}" in out
    assert "Not tested: " in out
    table = out.split("\n\n")[2].splitlines()
    start = table[0].index("natural")
    assert all(line[start - 2 : start] == "  " and line[start] != " " for line in table)


def test_json_holds_every_figure_and_is_strict(tmp_path, capsys):
    path, target = save(tmp_path, predictions()), tmp_path / "audit.json"
    target.write_text("an older audit")
    assert main(["audit", path, f"--json={target}"]) == 0
    assert "P_MAX" in capsys.readouterr().out

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    figures = json.loads(target.read_text(), parse_constant=refuse)
    assert figures == audit_file(path) and list(figures) == KEYS
    assert sorted(os.listdir(tmp_path)) == ["audit.json", "predictions.npz"]


def test_a_network_that_leaks_nothing_gives_strict_json_too(tmp_path):
    uniform = np.full((5, 4), 0.25)
    arrays = {"output_train_benign": uniform, "output_test_benign": uniform}
    arrays |= {"train_label": np.arange(5) % 4, "test_label": np.arange(5) % 4}
    target = tmp_path / "audit.json"
    assert main(["audit", "--json", str(target), save(tmp_path, arrays)]) == 0
    figures = json.loads(target.read_text())
    assert figures["p_max"] == 0.5 and figures["membership"][0]["threshold"] == "inf"


@pytest.mark.parametrize("flag", ["--help", "--helpshort", "-h"])
def test_help_is_readable(capsys, flag):
    assert main(["audit", flag]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: python -m experiments.audit FILE.npz [--json=PATH]\n")
    assert "output_train_benign" in out and err == ""
    assert max(map(len, out.splitlines())) <= 100


def test_main_uses_sys_argv_and_leaves_global_flags_alone(tmp_path, capsys, monkeypatch):
    before = set(flags.FLAGS)
    monkeypatch.setattr(sys, "argv", ["audit", save(tmp_path, predictions())])
    assert main() == 0 and main() == 0
    assert "P_MAX" in capsys.readouterr().out
    assert set(flags.FLAGS) == before


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # as other tests have imported it
def test_as_a_module(tmp_path, capsys, monkeypatch):
    absent, threads = str(tmp_path / "absent.npz"), []
    monkeypatch.setattr(accelerate, "set_threads", lambda: threads.append("set"))  # of this process they are by now
    monkeypatch.setattr(sys, "argv", ["audit", absent])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("experiments.audit", run_name="__main__", alter_sys=True)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, threads) == (2, "", ["set"])
    assert err.startswith(f"error: {absent!r} could not be read") and err.count("\n") == 1


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give one npz file, or one network, not 0"),
        (["a.npz", "b.npz"], "give one npz file, or one network, not 2"),
        (["a.npz", "--jsn=b"], "Unknown command line flag 'jsn'"),
        (["a.npz", "--json"], "json"),
        (["a.npz", "--helpshort=perhaps"], "helpshort"),
        (["absent.npz"], "'absent.npz' could not be read: it is absent"),
        (["."], "'.' could not be read: it is absent, damaged or not what its name says. Received: IsADirectoryError"),
        ([""], "'' could not be read"),
    ],
)
def test_bad_command_lines(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, *arguments)


def test_what_is_no_npz_is_refused(tmp_path, capsys):
    good = Path(save(tmp_path, predictions())).read_bytes()
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", **predictions() | {"train_label": np.array([None])})
    flipped = bytearray(good)
    flipped[good.index(b"NUMPY") + 200] ^= 255
    for name, content in {
        "text.npz": b"A_train 0.99\n",
        "empty.npz": b"",
        "cut.npz": good[: len(good) // 2],
        "flipped.npz": bytes(flipped),
    }.items():
        (tmp_path / name).write_bytes(content)
    for name in ("text.npz", "empty.npz", "cut.npz", "single.npy"):
        assert f"{name}' could not be read" in refusal(capsys, str(tmp_path / name))
    flipped = refusal(capsys, str(tmp_path / "flipped.npz"))
    assert "flipped.npz" in flipped and "Bad CRC-32" in flipped
    assert "objects is a pickle" in refusal(capsys, str(tmp_path / "objects.npz"))


@pytest.mark.parametrize(
    "absent",
    [
        ["train_label"],
        ["test_label", "train_label"],
        ["output_train_benign"],
        ["output_test_benign"],
        ["output_train_benign", "output_test_benign"],
        ["output_test_adversarial"],
        ["output_train_adversarial"],
        ["train_label", "output_test_benign"],
    ],
)
def test_missing_arrays_are_named(tmp_path, capsys, absent):
    arrays = {name: array for name, array in predictions().items() if name not in absent}
    message = refusal(capsys, save(tmp_path, arrays))
    lacking, held = message.split("It holds ")
    assert all(name in lacking for name in absent)
    assert all(name in held and name not in lacking for name in arrays)


def test_an_empty_archive_is_told_what_it_needs(tmp_path, capsys):
    message = refusal(capsys, save(tmp_path, {}))
    for name in ("train_label", "test_label", "output_train_benign", "output_test_benign"):
        assert name in message
    assert "holds nothing" in message


def changed(name, change):
    arrays = predictions()
    arrays[name] = change(arrays[name])
    return arrays


def with_one(value, index=(0, 0)):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("output_train_benign", lambda a: a[:-1], "output_train_benign must have shape"),
        ("output_test_adversarial", lambda a: a[1:], "output_test_adversarial must have shape"),
        ("output_test_benign", lambda a: a[:, :, None], "Received: (40, 4, 1) and (40,)"),
        ("output_test_benign", lambda a: a[:, 0], "equally many classes"),
        ("train_label", lambda a: np.stack([a, a], 1), "train_label (num,)"),
        ("test_label", lambda a: np.eye(4)[a], "test_label (num,)"),
        ("test_label", lambda a: a.astype(float), "test_label whole ones"),
        ("train_label", lambda a: a.astype(str), "must be an array of numbers"),
        ("output_train_benign", lambda a: a.astype(str), "must be an array of numbers"),
        ("output_train_benign", lambda a: a + 0j, "must hold real numbers"),
        ("output_test_benign", lambda a: softmax(np.ones((40, 7))), "equally many classes"),
        ("output_train_benign", with_one(np.nan), "output_train_benign holds NaN"),
        ("output_test_adversarial", with_one(np.nan), "output_test_adversarial holds NaN"),
        ("output_test_benign", with_one(np.inf), "in output_test_benign"),
        ("output_train_adversarial", lambda a: 5 * a, "Are these logits?"),
        ("output_train_adversarial", lambda a: a - 1, "in output_train_adversarial"),
        (
            "train_label",
            with_one(4, 0),
            "with train_label: `labels` must be labels of one class",
        ),
        (
            "test_label",
            with_one(-1, 0),
            "with test_label: `labels` must be labels of one class",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, capsys, name, change, message):
    assert message in refusal(capsys, save(tmp_path, changed(name, change)))


def test_no_examples_and_no_classes_are_refused(tmp_path, capsys):
    nobody = {name: array[:0] for name, array in predictions().items()}
    assert "at least one example" in refusal(capsys, save(tmp_path, nobody))
    one_class = {n: a[:, :1] if a.ndim == 2 else a for n, a in predictions().items()}
    assert "must lie in 0 .. 1" in refusal(capsys, save(tmp_path, one_class))  # one sigmoid, and labels 0..3


def test_infinite_logits_are_refused(tmp_path, capsys):
    arrays = predictions("logits_")
    arrays["logits_train_benign"][0, 0] = np.inf
    assert "in logits_train_benign" in refusal(capsys, save(tmp_path, arrays))


def test_an_unwritable_json_path_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    path = save(tmp_path, predictions())
    monkeypatch.setattr(audited, "audit", lambda path: pytest.fail("the work was done"))
    for target in (tmp_path / "no" / "such" / "folder.json", tmp_path):
        assert str(target) in refusal(capsys, path, f"--json={target}")
    assert "cannot write" in refusal(capsys, path, "--json=")
    assert "would overwrite what is audited" in refusal(capsys, path, f"--json={path}")
    assert os.listdir(tmp_path) == ["predictions.npz"]


def test_a_failed_audit_leaves_the_older_json_alone(tmp_path, capsys):
    target = tmp_path / "audit.json"
    target.write_text("an older audit")
    path = save(tmp_path, changed("output_train_benign", with_one(np.nan)))
    assert "NaN" in refusal(capsys, path, f"--json={target}")
    assert target.read_text() == "an older audit"
    assert sorted(os.listdir(tmp_path)) == ["audit.json", "predictions.npz"]


# ---------------------------------------------------------------- one output of two classes


def binary(form, shape, kind=np.int64):
    """Predictions of a head of one output, and the same as two columns."""
    rng = np.random.default_rng(0)
    one, two = {}, {}
    for split, num, gain in (("train", 60, 2.0), ("test", 40, 1.0)):
        labels = rng.integers(0, 2, num)
        z = rng.normal(size=num) + gain * (2 * labels - 1)
        p = 1 / (1 + np.exp(-z))
        one[f"{split}_label"], two[f"{split}_label"] = labels.astype(kind).reshape(shape), labels
        one[f"{form}{split}_benign"] = (z if "logits" in form else p).reshape(shape)
        two[f"{form}{split}_benign"] = np.stack([0 * z, z] if "logits" in form else [1 - p, p], 1)
    return one, two


@pytest.mark.parametrize("form", ["logits_", "output_", "logits_output_"])
@pytest.mark.parametrize("shape, kind", [((-1,), np.int64), ((-1, 1), np.uint8), ((-1, 1), np.float32)])
def test_one_column_is_two_classes(tmp_path, form, shape, kind):
    one, two = binary(form, shape, kind)
    figures = audit_file(save(tmp_path, one))
    assert figures == audit_file(save(tmp_path, two)) and figures["a_train"] > 0.9


@pytest.mark.parametrize(
    "form, change, message",
    [
        ("output_", {"output_test_benign": np.linspace(-1, 2, 40)}, "in output_test_benign.*[0, 1]. Are these logits?"),
        ("output_", {"test_label": np.arange(40)}, "must lie in 0 .. 1"),
        ("output_", {"test_label": np.full(40, 0.5)}, "test_label whole ones"),
        ("logits_", {"logits_train_benign": np.full(60, np.inf)}, "in logits_train_benign"),
        ("logits_", {"logits_test_benign": np.linspace(0, 1, 40)}, "logits_test_benign holds prob.*as output_test_b"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, capsys, form, change, message):
    line = refusal(capsys, save(tmp_path, binary(form, (-1,))[0] | change))
    assert all(part in line for part in message.split(".*"))


def test_probabilities_under_the_name_of_logits_are_refused(tmp_path, capsys):
    arrays = {name.replace("output", "logits"): array for name, array in predictions(kinds=["benign"]).items()}
    line = refusal(capsys, save(tmp_path, arrays))
    assert "logits_train_benign holds probabilities" in line and "Save them as output_train_benign" in line
