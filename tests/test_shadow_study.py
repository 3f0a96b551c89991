"""A shadow study: independent halves, each model audited by the others, leaks found where they are."""

import dataclasses
import functools
import json
import pathlib
import shutil
import threading

import numpy as np
import pytest
from made_up import record_of

from experiments import datasets, method, run, statistics
from experiments.config import ExperimentConfig
from experiments.shadow import __main__ as shadow_main
from experiments.shadow import attackers, decisions, models, outputs
from experiments.shadow.__main__ import main
from experiments.shadow.models import Answers, Shadows
from experiments.sweep import executors, grid
from pineat_tf import membership

NAMES = ("natural", "adversarial", "reverse_symmetry", "random", *method.VIEWS)
NUM_MODELS, NUM, NUM_CLASSES = 16, 400, 3


def made_up_answers(leak, seed=0, num_models=NUM_MODELS, num=NUM, canaries=0, leak_of_canaries=0.0):
    """Logits of networks that are surer of their members by `leak`, the same for every kind of query but for noise."""
    rng = np.random.default_rng(seed)
    in_mask = np.stack([datasets.random_half(num, number + 100 * seed) for number in range(num_models)])
    labels = rng.integers(NUM_CLASSES, size=num)
    hardness = rng.normal(size=num)
    is_canary = np.arange(num) < canaries
    leak = np.where(is_canary, leak_of_canaries, leak)
    logits = {}
    for name in NAMES:
        of_truth = 2.0 + hardness + rng.normal(size=(num_models, num)) + leak * in_mask
        logits[name] = np.where(np.eye(NUM_CLASSES, dtype=bool)[labels], of_truth[:, :, None], 0.0)
    return Answers(in_mask, labels, is_canary, logits)


# ---------------------------------------------------------------- halves


def test_halves_are_halves_and_always_the_same():
    half = datasets.random_half(1001, 3)
    assert half.dtype == bool and half.shape == (1001,) and half.sum() == 500
    np.testing.assert_array_equal(half, datasets.random_half(1001, 3))


def test_halves_of_different_numbers_are_independent():
    halves = np.stack([datasets.random_half(2000, number) for number in range(40)])
    both = (halves @ halves.T.astype(int))[np.triu_indices(40, 1)]
    # Two halves share 500 of 2,000 on average, hypergeometric: standard deviation 11.2.
    assert abs(both.mean() - 500) < 4 * 11.2 / np.sqrt(len(both)) and 9 < both.std() < 13.5
    times = halves.sum(axis=0)  # binomial(40, .5), not always 20
    assert abs(times.mean() - 20) < 1e-9 and 2.7 < times.std() < 3.7


# ---------------------------------------------------------------- attackers


def test_no_attacker_finds_what_is_not_there(monkeypatch):
    monkeypatch.setattr(attackers, "QUERIES", {"natural": attackers.QUERIES["natural"]})  # which is looked at
    aucs = {name: [] for name in attackers.ATTACKERS}
    for seed in range(12):
        for one in attackers.audit(made_up_answers(0.0, seed, num_models=8, num=200), decided=()):
            aucs[one.attacker].append(np.mean(one.auc))
    for name, values in aucs.items():
        _, _, low, high, _ = statistics.estimate(values)
        width = (high - low) / 2
        assert low - width < 0.5 < high + width, f"{name}: {values}"  # twice as wide, for seven attackers
        assert width < 0.03


def test_a_leak_is_found_best_by_those_who_have_shadows():
    found = {(one.attacker, one.queries): one for one in attackers.audit(made_up_answers(1.5), decided=())}
    auc = {key: np.mean(one.auc) for key, one in found.items()}
    # Against the noise of one model alone, a shift of 1.5 has AUC Phi(1.5 / sqrt 2) = .856; hardness hides it.
    assert 0.70 < auc["global threshold", "natural"] < 0.80
    assert 0.82 < auc["LiRA online, fixed variance", "natural"] < 0.87
    assert auc["RMIA online", "natural"] > auc["global threshold", "natural"] + 0.03
    # Four looks with independent noise of their own: Phi(1.5 * 2 / sqrt 2) = .983.
    assert 0.96 < auc["LiRA online, fixed variance", "all four"] < 0.99
    assert set(found) == {(name, queries) for name in attackers.ATTACKERS for queries in attackers.QUERIES}


def test_canaries_are_judged_alone_too():
    found = attackers.audit(made_up_answers(0.0, canaries=100, leak_of_canaries=3.0), ["LiRA online, fixed variance"])
    auc = {(one.queries, one.examples): np.mean(one.auc) for one in found}
    assert len(found) == 2 * len(attackers.QUERIES)
    assert auc["natural", "canaries"] > 0.95 and auc["natural", "all"] < 0.7
    assert all(one.examples == "all" for one in attackers.audit(made_up_answers(0.0, num_models=4), ["RMIA online"]))


def test_each_model_is_audited_with_the_others_as_shadows():
    answers = made_up_answers(1.0, num_models=6, num=60)
    one = next(one for one in attackers.audit(answers, ["LiRA offline"]) if one.queries == "natural")
    target = 4
    signal = np.stack([membership.logit_score(answers.labels, logits) for logits in answers.logits["natural"]])
    others = [0, 1, 2, 3, 5]
    scores = membership.lira_scores(signal[target], signal[others], answers.in_mask[others], mode="offline")
    members, non_members = scores[answers.in_mask[target]], scores[~answers.in_mask[target]]
    curve = membership.roc(members, non_members)
    assert one.auc[target] == membership.auc(curve)
    assert membership.tpr_at_fpr(curve, 0.01).tpr is None and one.values("tpr_0.01") is None  # of 30 non-members
    assert one.values("balanced_accuracy")[target] == membership.best_threshold(members, non_members).balanced_accuracy


def test_base_is_the_likelihood_ratio_of_a_softmax_of_temperature_2():
    answers, target = made_up_answers(1.0, num_models=7, num=30), 3
    odds = np.exp(answers.logits["natural"] / 2)
    of_truth = odds[:, np.arange(30), answers.labels] / odds.sum(axis=2)
    expected = []
    for example in range(30):
        kinds = {True: [], False: []}
        for model in set(range(7)) - {target}:
            kinds[bool(answers.in_mask[model, example])].append(of_truth[model, example])
        if all(kinds.values()):
            of_all = (np.mean(kinds[True]) + np.mean(kinds[False])) / 2
            expected.append((example, np.log(of_truth[target, example] / of_all)))
    signals = [attackers._signal(membership.cross_entropy_score, answers, "natural")[..., None]] * 2
    signals.append(attackers._signal(attackers._tempered, answers, "natural")[..., None])
    name = "RMIA online, temperature 2 (BASE)"
    found = attackers.ATTACKERS[name](attackers._seen(signals, answers, target))
    examples, values = zip(*expected)
    assert len(examples) > 20
    np.testing.assert_allclose(found[list(examples)], values, rtol=1e-6)


def test_a_rate_that_one_model_does_not_show_has_no_mean():
    rng = np.random.default_rng(0)
    whole = [(rng.normal(size=50), np.arange(200.0)) for _ in range(3)]
    found = attackers._leakage("RMIA online", "natural", "all", whole)
    curves = [membership.roc(*pair) for pair in whole]
    assert found.values("tpr_0.01") == [membership.tpr_at_fpr(curve, 0.01).tpr for curve in curves]
    assert found.values("tpr_0.001") is found.values("tpr_0.0001") is None
    assert [tpr is None for tpr in found.curve] == [bool(rate < 0.005) for rate in attackers.GRID]
    assert found.curve[-1] == 1.0
    tied = [*whole, (np.ones(50), np.ones(200))]
    found = attackers._leakage("RMIA online", "natural", "all", tied)  # no mean over the three others
    assert found.values("tpr_0.01") is None and set(found.curve[:-1]) == {None} and found.curve[-1] == 1.0
    assert len(found.auc) == 4


# ---------------------------------------------------------------- what is written


@functools.cache
def audited(leak, canaries):
    return attackers.audit(made_up_answers(leak, num_models=6, num=100, canaries=canaries))


def study(title, leak, canaries=0):
    (config,) = grid.parse_row(f" | {title} | fmnist_pgd.flags", overlays=(), seeds=(0,), output_dir="runs").configs
    return outputs.Study(title, {"canaries": canaries}, [record_of(config)] * 6, audited(leak, canaries), 50, 50)


def test_tables_name_methods_attackers_and_differences(tmp_path):
    outputs.write(tmp_path / "shadow", "Shadows", [study("Original", 1.5), study("PINEAT-1/1", 0.0)], ["Original"])
    record = json.loads((tmp_path / "shadow.json").read_text())
    assert [method["title"] for method in record["methods"]] == ["Original", "PINEAT-1/1"]
    assert len(record["methods"][0]["leakage"]) == len(attackers.ATTACKERS) * len(attackers.QUERIES)
    text = (tmp_path / "shadow.md").read_text()
    assert "| TPR at 0.1 % FPR: attacker | Original | PINEAT-1/1 |" in text
    assert "| RMIA online | n/a | n/a |" in text and record["methods"][0]["leakage"][0]["tpr_0.001"] is None
    (row,) = [line for line in text.splitlines() if line.startswith("| PINEAT-1/1 | LiRA online | natural |")]
    difference = float(row.split("|")[-2].split()[0])
    values = [
        statistics.estimate(next(one for one in method["leakage"] if one["attacker"] == "LiRA online")["auc"]).mean
        for method in record["methods"]
    ]
    assert difference == pytest.approx(values[1] - values[0], abs=1e-4) and difference < -0.1
    rows = (tmp_path / "shadow.csv").read_text().splitlines()
    assert "Original,global threshold,natural,all,tpr_0.001,,,,0" in rows
    num_decided = len(attackers.DECIDED) * (len(attackers.ATTACKERS) - 1)
    num_lines = len(outputs.FIGURES) * len(attackers.ATTACKERS) * len(attackers.QUERIES)
    num_lines += num_decided * (len(outputs.DECISIONS) + len(decisions.FPRS) * len(decisions.PRIORS))
    assert len(rows) == 1 + 2 * num_lines
    assert (tmp_path / "shadow.png").read_bytes()[:4] == b"\x89PNG"


def test_models_that_were_not_asked_are_laid_out_by_their_own_figures(tmp_path):
    not_asked = study("PINEAT-1/1", 0.0)._replace(leakage=[])
    outputs.write(tmp_path / "shadow", "Shadows", [study("Original", 1.5), not_asked], ["PINEAT-1/1"])
    text = (tmp_path / "shadow.md").read_text()
    assert "Trained, and not yet attacked: PINEAT-1/1." in text and text.count("PINEAT-1/1") == 2
    assert outputs.read(tmp_path / "shadow.json")["PINEAT-1/1"].leakage == []
    alone = outputs.markdown("Shadows", [not_asked], [], outputs.frame([not_asked]))
    assert "| PINEAT-1/1 |" in alone and "Attackers" not in alone


def test_canaries_have_tables_of_their_own():
    without, text = (
        outputs.markdown("Shadows", [one], [], outputs.frame([one]))
        for one in (study("Original", 1.5), study("Original", 1.0, canaries=20))
    )
    assert "## Canaries" not in without
    assert "the 20 images with wrong labels alone" in text[text.index("## Canaries") :]


# ---------------------------------------------------------------- the command


ONE_AT_A_TIME = threading.Lock()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of three models of seconds."""
    path = tmp_path_factory.mktemp("shadow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "run", run_here)
        assert main(command(path)) == 0
    return path


def run_here(job, num_shares):
    """`executors.run` without a process of its own."""
    with ONE_AT_A_TIME:
        return executors.Outcome(job, run.experiment(dataclasses.replace(job.config, resume=True)), "")


def command(path, *more):
    row = "PGD | Original | fmnist_pgd.flags smoke.flags --dataset=digits --network=mlp --variant=original"
    return ["shadow", f"--row={row}", "--name=small", "--num_models=3", f"--output_dir={path}", *more]


def test_the_command_trains_asks_and_attacks(finished):
    record = json.loads((finished / "small.json").read_text())
    (method,) = record["methods"]
    assert method["title"] == "PGD Original" and method["num_members"] == 100 and method["num_non_members"] == 100
    assert all(len(one["auc"]) == 3 for one in method["leakage"]) and len(method["models"]["a_test"]) == 3
    shadows = Shadows(row_of(finished), 3, finished / "queries")
    answers = shadows.answers()
    assert answers.in_mask.shape == (3, 200) and set(answers.logits) == set(NAMES)
    for number, config in enumerate(shadows.configs):
        np.testing.assert_array_equal(answers.in_mask[number], datasets.random_half(200, number))
        with np.load(pathlib.Path(config.run_dir, "predictions.npz")) as predicted:  # of the run's own members
            np.testing.assert_allclose(
                answers.logits["natural"][number][answers.in_mask[number]], predicted["logits_train_benign"], atol=1e-5
            )
            np.testing.assert_array_equal(answers.labels[answers.in_mask[number]], predicted["train_label"])
    assert len({answers.logits["natural"][number].tobytes() for number in range(3)}) == 3


def test_canaries_keep_their_wrong_labels_in_every_half():
    options = {"dataset": "digits", "train_size": 200, "test_size": 50}
    plain = ExperimentConfig(**options)
    config = dataclasses.replace(plain, canaries=30)
    pool = method.pool(config)
    labels = method.pool(plain).data.train.labels
    assert pool.is_canary.sum() == 30
    np.testing.assert_array_equal(pool.data.train.labels != labels, pool.is_canary)
    for number in range(3):
        chosen = datasets.random_half(200, number)
        half = method.data(dataclasses.replace(config, half=number, seed=number)).train
        np.testing.assert_array_equal(half.labels, pool.data.train.labels[chosen])
        np.testing.assert_array_equal(half.images, pool.data.train.images[chosen])
    np.testing.assert_array_equal(method.data(plain).train.labels, labels)
    with pytest.raises(ValueError, match="`num` must be at most"):
        method.pool(dataclasses.replace(plain, canaries=500))


def row_of(path):
    text = command(path)[1].removeprefix("--row=")
    return grid.parse_row(text, overlays=(), seeds=(0,), output_dir=f"{path}/runs")


def test_the_same_command_again_does_only_what_is_missing(finished, tmp_path, capsys):
    path = tmp_path / "copy"
    shutil.copytree(finished, path)
    (path / "queries" / "pgd-original-half1.npz").unlink()
    before = (path / "small.json").read_bytes()
    (path / "small.json").unlink()
    assert main(command(path, "--dry_run")) == 0
    assert "3 shadow models; 0 rows are done, and 0 models are to be trained" in capsys.readouterr().out
    assert main(command(path)) == 0
    assert (path / "small.json").read_bytes() == before
    (path / "small.json").unlink()
    shutil.rmtree(path / "runs")  # what they said is enough
    assert main(command(path)) == 0 and (path / "small.json").read_bytes() == before


def test_results_are_enough_to_lay_a_row_out_beside_others(finished, tmp_path, capsys):
    path = tmp_path / "copy"
    path.mkdir()
    shutil.copy(finished / "small.json", path)
    assert main(command(path, "--tables_only")) == 0 and "1 rows are done" in capsys.readouterr().out
    for name in ("small.json", "small.md", "small.csv"):
        assert (path / name).read_bytes() == (finished / name).read_bytes()
    assert main(command(path, "--num_models=4", "--dry_run")) == 0
    assert "0 rows are done, and 4 models are to be trained" in capsys.readouterr().out
    (path / "small.json").write_text('{"schema_version": 1}')
    assert main(command(path)) == 2 and "holds no results of shadow models" in capsys.readouterr().err


def test_figures_alone_make_a_row_without_attackers(finished, tmp_path, capsys):
    path = tmp_path / "copy"
    path.mkdir()
    shutil.copy(finished / "runs.csv", path)
    assert main(command(path, "--tables_only")) == 0
    (method,) = json.loads((path / "small.json").read_text())["methods"]
    assert method["leakage"] == [] and len(method["models"]["a_test"]) == 3
    assert "Trained, and not yet attacked: PGD Original." in (path / "small.md").read_text()
    assert main(command(path, "--dry_run")) == 0  # they are not done: their networks are gone
    assert "0 rows are done, and 3 models are to be trained" in capsys.readouterr().out


def test_results_that_a_call_does_not_name_stay_and_others_are_not_replaced(finished, tmp_path, capsys):
    path = tmp_path / "copy"
    path.mkdir()
    shutil.copy(finished / "small.json", path)
    stored = json.loads((path / "small.json").read_text())
    (method,) = stored["methods"]
    del method["flags"]["paper_dataset"]  # results of before there was this flag
    stored["methods"].append({**method, "title": "PGD Another"})
    (path / "small.json").write_text(json.dumps(stored))
    assert main(command(path, "--tables_only")) == 0
    assert [method["title"] for method in json.loads((path / "small.json").read_text())["methods"]] == [
        "PGD Original", "PGD Another",
    ]  # fmt: skip
    other = command(path)
    other[1] += " --epsilon=0.05"
    capsys.readouterr()
    assert main(other) == 2 and "results of 'PGD Original' with other flags" in capsys.readouterr().err


def test_a_model_whose_figures_were_not_recorded_is_called_again(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(executors, "run", run_here)
    path = tmp_path / "copy"
    shutil.copytree(finished, path)
    (path / "small.json").unlink()
    before = (path / "runs.csv").read_text().splitlines()
    (path / "runs.csv").write_text("\n".join([before[0], *before[2:]]) + "\n")
    flags = path / "runs" / "pgd-original-half0" / "run.flags"
    flags.write_text(flags.read_text().replace(str(finished), str(path)))
    assert main(command(path, "--dry_run")) == 0 and "1 models are to be trained" in capsys.readouterr().out
    assert main(command(path)) == 0  # it is finished already, and says so
    assert sorted((path / "runs.csv").read_text().splitlines()) == sorted(before)


@pytest.mark.parametrize("ending", [".json", ".png"])
def test_results_that_cannot_be_written_are_noticed_before_a_run(tmp_path, capsys, ending):
    (tmp_path / "out" / f"small{ending}").mkdir(parents=True)
    assert main(command(tmp_path / "out")) == 2
    assert f"small{ending}" in capsys.readouterr().err and not (tmp_path / "out" / "runs").exists()


def test_answers_and_results_are_of_the_data_by_content(tmp_path):
    """Of the same flags and file name, with one label changed: neither answers nor results are taken up."""
    images, labels = np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2
    np.savez(tmp_path / "d.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    line = f"PGD | Original | smoke.flags --dataset=npz --data_dir={tmp_path}/d.npz --network=mlp"
    shadows = Shadows(grid.parse_row(line, overlays=(), seeds=(0,), output_dir=f"{tmp_path}/runs"), 3, tmp_path)
    blank = {name: np.zeros(8) for name in ("in_mask", "labels", "is_canary", *NAMES)}
    for path, config in zip(shadows.paths, shadows.configs):
        np.savez(path, flags=models._digest(config), **blank)
    shown = study("PGD Original", 0.0)
    known = {shown.title: shown._replace(runs=shown.runs[:3], flags=shadow_main._flags(shadows))}
    assert shadows.answers().labels.shape == (8,) and shadow_main._same(known, shadows)
    (tmp_path / "d.npz").rename(tmp_path / "away.npz")  # data that are not here count as the same
    assert shadows.answers().labels.shape == (8,) and shadow_main._same(known, shadows)
    np.savez(tmp_path / "d.npz", x_train=images, y_train=labels[::-1], x_test=images, y_test=labels)
    with pytest.raises(ValueError, match="of other data"):
        shadows.answers()
    with pytest.raises(ValueError, match="results of 'PGD Original' with other data"):
        shadow_main._same(known, shadows)


def test_what_is_missing_or_wrong_is_told(finished, tmp_path, capsys):
    path = tmp_path / "copy"
    shutil.copytree(finished, path)
    (path / "small.json").unlink()
    np.savez(path / "queries" / "pgd-original-half2.npz", labels=np.arange(3))
    assert main(command(path)) == 2
    assert (
        "lacks ['adversarial', 'flags', 'in_mask', 'is_canary', 'mirrored', 'natural', 'random', 'reverse_symmetry', "
        "'shifted_down', " in capsys.readouterr().err
    )
    other = command(path)
    other[1] += " --epsilon=0.05"
    assert main(other) == 2 and "is of a model with other flags" in capsys.readouterr().err
    shutil.rmtree(path / "queries")
    shutil.rmtree(path / "runs")
    assert main(command(path, "--tables_only")) == 0
    assert "PGD Original: only its figures are left" in capsys.readouterr().out
    assert main(command(path, "--num_models=2")) == 2 and "whole number >= 3" in capsys.readouterr().err
    assert main(["shadow", "--helpshort"]) == 0 and "--num_models" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--seeds=0,1"], ["--row= | half | --dataset=digits --half=3"]])
def test_what_every_shadow_has_of_its_own_cannot_be_chosen(flags, capsys):
    assert main(["shadow", "--row= | tiny | --dataset=digits", *flags, "--dry_run"]) == 2
    assert "every shadow model has a half and a seed of its own. Received: " in capsys.readouterr().err
