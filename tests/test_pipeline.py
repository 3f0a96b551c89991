"""From flags to results: what runs leave behind, and what is left when they end early."""

import contextlib
import csv
import dataclasses
import io
import json
import shutil
import struct
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from test_audit import audit_file

from experiments import cost, datasets, examples, method, networks, paper, pipeline, run, session, tracking
from experiments.audit import __main__ as audit_command
from experiments.config import ATTACKS, ExperimentConfig

# 200 training images, 50 at once: 4 rounds a pass.
SMOKE = [
    "--flagfile=quickstart.flags", "--flagfile=smoke.flags", "--variant=pineat", "--output_dir=runs/{variant}",
]  # fmt: skip
TINY = [*SMOKE, "--network=mlp", "--export=keras"]


def execute(folder, *arguments):
    """Runs the command in a folder; gives the exit code and what was printed, stderr among stdout."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run.main(["run", *arguments])
    return code, printed.getvalue()


def refusal(folder, *arguments):
    """The one line of a command that must fail."""
    code, printed = execute(folder, *arguments)
    assert code == 2 and printed.startswith("error: ") and printed.count("\n") == 1
    return printed


def refuse_constant(constant):
    raise AssertionError(f"{constant} is not strict JSON")


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse_constant)


def without_times(metrics):
    return {name: value for name, value in metrics.items() if name not in ("hours", "seconds")}


def weights_of(folder):
    return keras.models.load_model(folder / "network.keras").get_weights()


def rows_of_history(folder):
    """The rows of history.csv without the seconds."""
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def is_same(first, second):
    return len(first) == len(second) and all((a == b).all() for a, b in zip(first, second))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- a run that ends well


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two variants at smoke scale with all exports: the folder of the runs, and what was printed."""
    folder = tmp_path_factory.mktemp("finished")
    code, printed = execute(folder, *SMOKE, "--variant=original,pineat")
    assert code == 0
    return folder / "runs", printed


def test_an_audit_of_a_run_has_the_images_of_the_run(finished, tmp_path):
    run = finished[0] / "pineat"
    sources = [f"--members={run}:members", f"--non_members={run}:non_members", f"--json={tmp_path / 'audit.json'}"]
    assert audit_command.main(["audit", str(run / "network.keras"), *sources]) == 0
    audited, metrics = (json.loads(path.read_text()) for path in (tmp_path / "audit.json", run / "metrics.json"))
    for name in ("a_train", "a_test", "p_e_nat"):
        assert audited[name] == pytest.approx(metrics[name], abs=1e-6), name


def test_a_finished_run_leaves_these_files_and_nothing_beside_them(finished):
    runs, _ = finished
    assert sorted(path.name for path in runs.iterdir()) == ["original", "pineat"]
    for folder in runs.iterdir():
        assert sorted(path.name for path in folder.iterdir()) == [
            "checkpoints", "examples.png", "history.csv", "metrics.json", "network.keras", "predictions.npz",
            "run.flags", "saved_model", "tensorboard",
        ]  # fmt: skip
        assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))


def test_metrics_are_strict_json_with_the_columns_of_the_paper(finished):
    for folder in finished[0].iterdir():
        metrics = metrics_of(folder)
        assert all(isinstance(metrics[name], float) for name in paper.COLUMNS)
        assert all(0 <= metrics[name] <= 1 for name in paper.COLUMNS if name != "hours")
        assert metrics["p_max"] == max(metrics["p_e_nat"], metrics["p_e_adv"]) >= 0.5
        assert metrics["data"] == {"name": "digits", "num_members": 200, "num_non_members": 100, "fingerprint": ""}


def test_metrics_count_the_cost_of_the_training(finished):
    # small_cnn of width 1 on 8 x 8: convolutions 9*16 on 4 x 4 places and 9*16*32 on 2 x 2, then 128*64 and 64*10.
    flops = 2 * (9 * 16 * 16 + 9 * 16 * 32 * 4 + 128 * 64 + 64 * 10)
    parameters = (9 * 16 + 16) + (9 * 16 * 32 + 32) + (128 * 64 + 64) + (64 * 10 + 10)
    network = {"parameters": parameters, "flops_per_forward": flops}
    # K = 2: a round of 1/0 has 3 gradients and 2*2 + 3 forward units, one of 1/1 a gradient and 3 units more.
    original = {"rounds": 8, "updates": 8, "gradient_passes": 8 * 3, "forward_units": 8 * 7, **network}
    pineat = {"rounds": 4, "updates": 8, "gradient_passes": 4 * 4, "forward_units": 4 * 10, **network}
    assert metrics_of(finished[0] / "original")["cost"] == original
    assert metrics_of(finished[0] / "pineat")["cost"] == pineat


def test_metrics_name_the_flags_and_versions_of_the_run_but_not_where_it_was(finished):
    metrics = metrics_of(finished[0] / "pineat")
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in metrics["flags"].items()}
    left_out = {field.name for field in dataclasses.fields(ExperimentConfig)} - fields.keys()
    assert left_out == {"output_dir", "overwrite", "resume"}
    config = ExperimentConfig(**fields)
    assert (config.variant, config.dataset, config.updates) == ("pineat", "digits", 8)
    assert metrics["versions"]["keras"] == keras.__version__


def test_the_flags_of_a_run_are_a_flag_file_that_repeats_it(finished, tmp_path):
    runs, _ = finished
    code, _ = execute(tmp_path, f"--flagfile={runs / 'pineat' / 'run.flags'}")
    assert code == 0
    first, second = metrics_of(runs / "pineat"), metrics_of(tmp_path / "runs" / "pineat")
    assert without_times(first) == without_times(second)
    assert is_same(weights_of(runs / "pineat"), weights_of(tmp_path / "runs" / "pineat"))


def test_the_audit_of_the_predictions_gives_the_figures_of_the_metrics(finished):
    for folder in finished[0].iterdir():
        metrics, audited = metrics_of(folder), audit_file(folder / "predictions.npz")
        assert audited.pop("scored_from") == {"natural": "logits", "adversarial": "logits"}
        assert audited.pop("cost") == {} and metrics["cost"]["updates"] > 0  # predictions do not tell what they cost
        assert {name: metrics[name] for name in audited} == audited
        assert {"a_train", "r_test", "p_e_nat", "p_e_adv", "p_max", "membership"} <= audited.keys()


def test_predictions_are_those_of_the_data_in_its_order(finished):
    data = datasets.load("digits", train_size=200, test_size=100, pools_seed=0)
    with np.load(finished[0] / "pineat" / "predictions.npz") as arrays:
        assert sorted(arrays) == sorted(
            [f"logits_{split}_{kind}" for split in ("train", "test") for kind in ("benign", "adversarial")]
            + ["train_label", "test_label"]
        )
        assert (arrays["train_label"] == data.train.labels).all() and (arrays["test_label"] == data.test.labels).all()
        assert arrays["logits_train_adversarial"].shape == (200, 10)
        assert arrays["logits_test_adversarial"].shape == (100, 10)
        assert (arrays["logits_train_adversarial"] != arrays["logits_train_benign"]).any()


def test_exported_networks_give_the_logits_of_the_predictions(finished):
    folder = finished[0] / "pineat"
    images = datasets.load("digits", train_size=200, test_size=100, pools_seed=0).train.images
    with np.load(folder / "predictions.npz") as arrays:
        expected = arrays["logits_train_benign"]
    saved_model = tf.saved_model.load(str(folder / "saved_model"))
    plain_keras = keras.models.load_model(folder / "network.keras")
    np.testing.assert_allclose(plain_keras(images, training=False), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(saved_model.serve(images), expected, rtol=0, atol=1e-5)


def test_history_counts_every_pass(finished):
    with open(finished[0] / "pineat" / "history.csv", newline="", encoding="utf-8") as file:
        assert [(row["epoch"], row["updates"]) for row in csv.DictReader(file)] == [("1", "8")]
    with open(finished[0] / "original" / "history.csv", newline="", encoding="utf-8") as file:
        assert [(row["epoch"], row["updates"]) for row in csv.DictReader(file)] == [("1", "4"), ("2", "8")]


def test_the_estimate_is_printed_before_training_and_the_place_of_the_results_after(finished):
    _, printed = finished
    estimates = (
        "runs/original: 8 rounds of 1/0 = 8 updates, 24 gradient passes of 50 images",
        "runs/pineat: 4 rounds of 1/1 = 8 updates, 16 gradient passes of 50 images",
    )
    where = -1
    for estimate, variant in zip(estimates, ("original", "pineat")):
        steps = [estimate, "images/s; estimated", "training:", "evaluation:", f"Results are in runs/{variant}."]
        for step in steps:
            where = printed.index(step, where + 1)  # raises unless it comes after the one before


def test_the_table_has_a_row_for_each_variant_with_the_figures_of_its_metrics(finished):
    runs, printed = finished
    rows = {line.split("  ")[0]: line.split()[-8:] for line in printed.splitlines() if line.startswith("digits ")}
    assert list(rows) == ["digits pgd original", "digits pgd pineat-1/1"]
    for variant, cells in zip(("original", "pineat"), rows.values()):
        figures_of_run = metrics_of(runs / variant)
        assert cells[:7] == [f"{figures_of_run[name]:.4f}" for name in paper.COLUMNS if name != "hours"]


def test_the_examples_are_a_picture_of_eight_images_in_five_rows(finished):
    for folder in finished[0].iterdir():
        png = (folder / "examples.png").read_bytes()
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", png[16:24])
        assert (width, height) == (round(120 * (1.25 * 8 + 2.0)), round(120 * 1.45 * 5))  # inches at 120 dpi
        pixels = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]
        halves = np.split(pixels[: height // 2 * 2, width // 2 :], 2)
        assert all(half.std() > 0.1 for half in halves)


@pytest.mark.parametrize("shape", [(5, 7, 1), (6, 6, 3), (6, 6, 2), (6, 1, 1), (1, 1, 1), (4, 4, 5)])
def test_images_of_any_shape_are_drawn(shape, tmp_path):
    network = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(3)])
    images = np.random.default_rng(0).uniform(size=(3, *shape)).astype(np.float32)
    split = datasets.Split(images, np.arange(3))
    examples.write(tmp_path / "a.png", ExperimentConfig(num_steps=1), network, split)
    picture = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    sides = np.array(shape[:2])
    for number, image in enumerate(images):  # of the first row, at 120 dpi: the middle of each pixel
        middle = examples._middle(0, number)[::-1]
        rows, columns = (
            np.int64(120 * (at + examples._SIDE / sides.max() * (np.arange(side) + 0.5 - side / 2)))
            for at, side in zip(middle, sides)
        )
        expected = image if shape[-1] == 3 else image[..., :1]
        drawn = picture[np.ix_(rows, columns)]
        np.testing.assert_allclose(drawn, np.broadcast_to(expected, drawn.shape), atol=0.01)


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack not in ("pgd_l2", "dist", "n_fgsm")])
def test_variants_of_every_attack_run_to_their_results(attack, tmp_path):
    # Of free, which has rounds of its own, two; of pgd what `finished` has not; the others differ in their attack only.
    variants = {"pgd": ("natural", "advnat", "advran"), "free": ("original", "pineat")}.get(attack, ("pineat",))
    code, printed = execute(tmp_path, *TINY, f"--attack={attack}", f"--variant={','.join(variants)}", "--updates=4")
    assert code == 0
    updates_of_round = {"natural": 1, "original": 2 if attack == "free" else 1, "advnat": 2, "advran": 2, "pineat": 2}
    for variant in variants:
        updates = updates_of_round[variant]
        metrics = metrics_of(tmp_path / "runs" / variant)
        assert (metrics["cost"]["updates"], metrics["cost"]["rounds"]) == (4, 4 // updates)
        assert metrics["flags"]["attack"] == attack and metrics["flags"]["variant"] == variant
        assert all(0 <= metrics[name] <= 1 for name in paper.COLUMNS if name != "hours")
    assert len([line for line in printed.splitlines() if line.startswith("digits ")]) == len(variants)
    logits = [np.load(tmp_path / "runs" / variant / "predictions.npz")["logits_test_benign"] for variant in variants]
    assert all((a != b).any() for i, a in enumerate(logits) for b in logits[:i])  # no two variants are the same


@pytest.mark.parametrize(
    "arguments, updates, rounds",
    [
        (["--ratio=1/2", "--updates=10"], 9, 3),  # 10 // 3 rounds: what is left over is not trained
        (["--network=small_cnn", "--precision=mixed_bfloat16", "--augment_pad=1", "--augment_flip"], 8, 4),
        (
            ["--export=", "--rs_bounds=valid", "--rs_decomposition=split", "--ratio=2/2", "--generation=update"]
            + ["--optimizer=sgd", "--momentum=0", "--weight_decay=1e-3", "--batch_size=60"],
            8,
            2,
        ),
    ],
)
def test_other_settings_run_and_do_as_many_updates_as_they_say(arguments, updates, rounds, tmp_path):
    code, _ = execute(tmp_path, *TINY, *arguments)
    assert code == 0
    cost = metrics_of(tmp_path / "runs" / "pineat")["cost"]
    assert (cost["updates"], cost["rounds"]) == (updates, rounds)
    assert (tmp_path / "runs" / "pineat" / "network.keras").exists() == ("--export=" not in arguments)


# ---------------------------------------------------------------- what is refused once the data are known


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batch_size=201"], "`batch_size` must be at most the number of training images, 200"),
        (
            ["--pools=split", "--train_size=1298"],
            "`train_size` must not be larger than the split. Received: train_size=1298 of 1297",
        ),
        (["--ratio=4/5"], "`updates` must be a whole number >= 9"),
        (["--dataset=npz"], "needs `data_dir`"),
        (["--dataset=npz", "--data_dir=no_such.npz"], "no_such.npz' could not be read"),
        (["--dataset=image_folder", "--data_dir=."], "must have directories 'train' and 'test'"),
        (["--dataset=cifar10", "--data_dir=no_such_folder"], "`data_dir` is not a directory"),
        (["--network=wrn32", "--dataset=npz", "--data_dir=odd.npz"], "multiples of 4"),
        (["--network=small_cnn", "--dataset=npz", "--data_dir=odd.npz"], "must be at least 4"),
        (["--attack=wrm_l2", "--ratio=2/1"], "This attack has no random start"),
        (["--optimizer=sgd", "--momentum=2"], "`momentum`"),
        (["--seed=4294967296"], "`seed` must be less than 4,294,967,296"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_in_one_line_and_leaves_nothing(arguments, message, tmp_path):
    images, labels = np.zeros((300, 3, 3), np.uint8), np.arange(300) % 2
    np.savez(tmp_path / "odd.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert message in refusal(tmp_path, *TINY, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.npz"]


# ---------------------------------------------------------------- runs that meet other runs


def test_a_finished_run_is_not_repeated_without_leave(finished):
    runs, _ = finished
    before = contents(runs)
    assert "holds earlier results" in refusal(runs.parent, *SMOKE)
    assert "not both" in refusal(runs.parent, *SMOKE, "--overwrite", "--resume")
    assert contents(runs) == before


def test_resuming_finished_runs_says_so_and_prints_their_table_again(finished):
    runs, printed = finished
    before = contents(runs)
    code, again = execute(runs.parent, *SMOKE, "--variant=original,pineat", "--resume")
    assert code == 0
    assert again.splitlines()[:2] == ["runs/original is finished already.", "runs/pineat is finished already."]
    table = printed[printed.index("Results are in runs/pineat.") :].splitlines()[1:]
    assert again.splitlines()[2:] == table
    assert contents(runs) == before


def test_resuming_a_finished_run_with_other_flags_is_refused_by_name(finished):
    runs, _ = finished
    assert "other flags: --epsilon, --seed differ" in refusal(
        runs.parent, *SMOKE, "--resume", "--seed=5", "--epsilon=0.2"
    )


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "runs" / "pineat").mkdir(parents=True)
    (tmp_path / "runs" / "pineat" / "thesis.txt").write_text("mine")
    for option in ("--overwrite", "--resume"):
        assert "something other than a run" in refusal(tmp_path, *TINY, option)
    assert contents(tmp_path) == {Path("runs/pineat/thesis.txt"): b"mine"}


# ---------------------------------------------------------------- runs that end early


def interrupt(*arguments, **keywords):
    raise KeyboardInterrupt


def crash(*arguments, **keywords):
    raise OSError(28, "No space left on device", "runs")


def test_an_interrupted_evaluation_is_resumed_without_training_again(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "evaluate", interrupt)
        code, printed = execute(tmp_path, *SMOKE)
    assert (code, printed.splitlines()[-1]) == (130, "interrupted")
    assert not (tmp_path / "runs" / "pineat").exists()
    code, printed = execute(tmp_path, *SMOKE, "--resume", "--checkpoint_seconds=7")  # which changes no result
    assert code == 0 and "Going on from update 8." in printed and "rounds of" not in printed
    resumed, whole = (without_times(metrics_of(runs / "pineat")) for runs in (tmp_path / "runs", finished[0]))
    assert resumed.pop("flags") == whole.pop("flags") | {"checkpoint_seconds": 7} and resumed == whole
    assert is_same(weights_of(tmp_path / "runs" / "pineat"), weights_of(finished[0] / "pineat"))


def test_a_crash_leaves_earlier_results_whole_until_the_resumed_run_replaces_them(finished, tmp_path, monkeypatch):
    shutil.copytree(finished[0] / "pineat", tmp_path / "runs" / "pineat")
    before = contents(tmp_path / "runs" / "pineat")
    changed = [*SMOKE, "--export=keras", "--seed=1"]
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.export, "export", crash)
        code, printed = execute(tmp_path, *changed, "--overwrite")
    assert code == 2 and printed.splitlines()[-1].startswith("error: [Errno 28] No space left on device: 'runs'. Free ")
    assert contents(tmp_path / "runs" / "pineat") == before
    code, _ = execute(tmp_path, *changed, "--resume")
    assert code == 0
    first, second = finished[0] / "pineat", tmp_path / "runs" / "pineat"
    assert metrics_of(second)["flags"]["seed"] == 1
    assert not is_same(weights_of(first), weights_of(second))  # another seed gives others, and other figures
    assert [metrics_of(first)[name] for name in paper.COLUMNS] != [metrics_of(second)[name] for name in paper.COLUMNS]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["pineat"]


def test_a_mistake_of_the_program_lets_go_of_the_directory(tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise RuntimeError("a bug")

    monkeypatch.setattr(pipeline, "train", fail)
    with pytest.raises(RuntimeError) as first:
        execute(tmp_path, *TINY)
    with pytest.raises(RuntimeError) as second:  # and not: the directory is in use
        execute(tmp_path, *TINY, "--resume")
    assert str(first.value) == str(second.value) == "a bug"


def test_a_run_that_ended_before_its_first_checkpoint_starts_over_on_resume(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cost, "estimate", interrupt)
        assert execute(tmp_path, *SMOKE)[0] == 130
    code, printed = execute(tmp_path, *SMOKE, "--resume")
    assert code == 0 and "Going on" not in printed
    assert without_times(metrics_of(tmp_path / "runs" / "pineat")) == without_times(metrics_of(finished[0] / "pineat"))


# ---------------------------------------------------------------- the stages alone


def test_a_network_that_is_not_trained_is_evaluated_by_the_stage_alone():
    config = ExperimentConfig(dataset="digits", train_size=20, test_size=10, network="mlp", batch_size=10, eval_steps=1)
    ready = session.build(config, method.data(config))
    assert (ready.plan.rounds_per_pass, ready.rounds_done) == (2, 0)
    evaluation = pipeline.evaluate(ready)
    images, labels = ready.data.test
    right = np.asarray(ready.model.network(images)).argmax(axis=1) == labels
    assert evaluation.report.natural.test_accuracy == pytest.approx(right.mean())
    assert evaluation.report.adversarial.test_accuracy <= evaluation.report.natural.test_accuracy
    assert len(evaluation.predictions["adversarial"]["train"].labels) == 20 and evaluation.seconds > 0


def test_training_alone_goes_on_from_its_checkpoint_and_writes_no_metrics(tmp_path, capsys):
    config = ExperimentConfig(
        dataset="digits", train_size=20, test_size=10, network="mlp", batch_size=10, updates=4, num_steps=1
    )
    data = method.data(config)
    ready = session.build(config, data)
    assert pipeline.train(ready, tmp_path) > 0 and ready.rounds_done == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "history.csv", "tensorboard"]
    again = session.build(config, data)
    pipeline.train(again, tmp_path)
    assert "Going on from update 4." in capsys.readouterr().out
    assert is_same(again.model.network.get_weights(), ready.model.network.get_weights())


def test_private_training_that_is_broken_off_within_a_pass_ends_in_the_same_weights_and_epsilon(tmp_path):
    config = ExperimentConfig(
        dataset="digits", train_size=30, test_size=10, network="mlp", batch_size=10, updates=8, num_steps=1,
        dp_noise=1.0, learning_rates=(1e-2,),
    )  # fmt: skip
    data = method.data(config)
    whole, first, second = (session.build(config, data) for _ in range(3))
    assert (whole.plan.rounds, whole.plan.updates) == (8, 8)  # of 1/1: a round is one update
    pipeline.train(whole, tmp_path / "whole")
    dataclasses.replace(first, plan=dataclasses.replace(first.plan, rounds=4)).fit([])  # a pass and a round
    checkpoints = tracking.Checkpoints(first.model, tmp_path / "broken" / "checkpoints", 60, tracking.Clock())
    checkpoints.save()
    pipeline.train(second, tmp_path / "broken")
    assert second.rounds_done == 8
    assert is_same(second.model.network.get_weights(), whole.model.network.get_weights())
    assert second.model.epsilon_spent == whole.model.epsilon_spent > 0
    rows = (tmp_path / "whole" / "history.csv").read_text().splitlines()
    assert rows[0].split(",")[-1] == "epsilon_spent" or "epsilon_spent" in rows[0]


# ---------------------------------------------------------------- passes and what is left of them


@pytest.mark.parametrize(
    "first, expected",
    [
        (0, [(0, 10, 2), (2, 3, 1)]),  # two whole passes, then three rounds
        (4, [(0, 6, 1), (1, 10, 1), (2, 3, 1)]),
        (10, [(1, 10, 1), (2, 3, 1)]),
        (20, [(2, 3, 1)]),
        (22, [(2, 1, 1)]),
        (23, []),
    ],
)
def test_what_is_left_of_training_is_cut_into_epochs_of_equal_length(first, expected):
    plan = session.Plan(rounds=23, rounds_per_pass=10, updates_per_round=2)
    assert plan.segments(first) == expected
    assert sum(rounds * alike for _, rounds, alike in expected) == 23 - first


def test_less_than_a_pass_is_one_short_epoch():
    assert session.Plan(rounds=3, rounds_per_pass=10, updates_per_round=1).segments(0) == [(0, 3, 1)]


def test_averaged_weights_are_put_in_place_once_at_the_end_of_all_passes(tmp_path):
    options = [*TINY, "--variant=original", "--updates=6", "--learning_rates=0.01"]  # one pass of 4 rounds, and 2 more
    assert execute(tmp_path, *options, "--output_dir=runs/plain")[0] == 0
    assert execute(tmp_path, *options, "--output_dir=runs/averaged", "--ema_momentum=0.5")[0] == 0
    plain, averaged = (weights_of(tmp_path / "runs" / name) for name in ("plain", "averaged"))
    config = ExperimentConfig(dataset="digits", network="mlp", variant="original", ema_momentum=0.5)
    model = method.trainer(config, networks.build("mlp", input_shape=(8, 8, 1), num_classes=10))
    model.optimizer.build(model.trainable_variables)
    checkpoints = tracking.Checkpoints(model, tmp_path / "runs" / "averaged" / "checkpoints", 60, tracking.Clock())
    assert checkpoints.restore()
    assert is_same(model.network.get_weights(), plain)  # averages do not change the training
    model.optimizer.finalize_variable_values(model.trainable_variables)
    assert is_same(model.network.get_weights(), averaged) and not is_same(plain, averaged)


def test_the_estimate_says_where_bfloat16_is_slow(monkeypatch):
    config = ExperimentConfig(precision="mixed_bfloat16")
    monkeypatch.setattr(cost.machine, "emulates_bfloat16", lambda: True)
    assert "--precision=float32 is several times as fast here" in cost.precision_note(config)
    assert cost.precision_note(ExperimentConfig(precision="float32")) == ""
    monkeypatch.setattr(cost.machine, "emulates_bfloat16", lambda: False)
    assert cost.precision_note(config) == ""
