"""The benchmark: its baselines do our work, its counts are those of the passes, its ratios those of its timings."""

import json
import os
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from experiments import networks
from experiments.config import ExperimentConfig
from experiments.study.benchmark import __main__ as command
from experiments.study.benchmark import baselines, counts, ensembles, results, work, worker
from experiments.study.benchmark.ensembles import Stacked

ROOT = pathlib.Path(__file__).parents[1]


def small_network():
    keras.utils.set_random_seed(0)
    return networks.build("small_cnn", input_shape=(8, 8, 1), num_classes=10)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return tf.constant(rng.random((6, 8, 8, 1)), tf.float32), tf.constant(np.arange(6))


@pytest.mark.parametrize("compiled", [True, False])
def test_the_plain_loop_trains_as_we_do(compiled, batch):
    ours, plain = small_network(), small_network()
    model = pt.AdversarialTraining(ours, attack=pt.attacks.dist(coefficient=1.0, num_steps=8), ratio="1/0")
    model.compile(optimizer=keras.optimizers.Adam(1e-4, epsilon=1e-10))
    model.fit(*batch, batch_size=6, verbose=0)
    baselines.training(plain, "dist", compiled)(*batch)
    for got, wanted in zip(plain.get_weights(), ours.get_weights()):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert not np.allclose(plain.get_weights()[0], small_network().get_weights()[0], atol=1e-6)


@pytest.mark.parametrize("attack", ["pgd", "diff"])
def test_the_other_plain_attacks_stay_in_the_ball_and_raise_the_loss(attack, batch):
    network, (x, y) = small_network(), batch
    x_adv = baselines._ATTACKS[attack](network, x, y)
    assert np.max(np.abs(x_adv - x)) <= baselines.EPSILON + 1e-6 and 0 <= np.min(x_adv) and np.max(x_adv) <= 1
    losses = {
        "pgd": lambda images: np.mean(baselines._cross_entropy(y, network(images))),
        "diff": lambda images: np.mean(baselines._divergence(network(x), network(images))),
    }
    assert losses[attack](x_adv) > losses[attack](x) + 1e-4
    before = network.get_weights()
    baselines.training(network, attack, compiled=True)(x, y)
    assert not np.allclose(before[0], network.get_weights()[0])


def test_the_plain_evaluation_predicts_as_we_do(batch):
    network = small_network()
    epsilon, steps = baselines.EPSILON, baselines.EVALUATION_STEPS
    attack = pt.attacks.pgd(epsilon=epsilon, step_size=2.5 * epsilon / steps, num_steps=steps, random_start=False)
    ours = pt.predict_logits(network, tuple(map(np.asarray, batch)), attack=attack).logits
    np.testing.assert_allclose(baselines.evaluation(network, compiled=True)(*batch), ours, atol=1e-5)


@pytest.mark.parametrize(
    ("attack", "variant", "ratio", "passes", "forwards", "updates"),
    [  # passes and F of a round, in which an update costs 3F and one of Diff 6F by two passes back
        ("pgd", "pineat", "1/1", 10, 22, 2),
        ("dist", "pineat", "1/4", 13, 31, 5),
        ("pgd", "pineat", "2/1", 19, 41, 3),
        ("diff", "pineat", "1/1", 12, 29, 2),
        ("diff", "advnat", "1/1", 11, 26, 2),
        ("fgsm_rs", "original", "1/0", 2, 5, 1),
    ],
)
def test_counted_passes_are_those_of_the_cost_model(attack, variant, ratio, passes, forwards, updates):
    config = ExperimentConfig(attack=attack, variant=variant, ratio=ratio, width=1, batch_size=4)
    counted, formula = counts.counted(config), counts.by_formula(config)
    assert counted.gradient_passes * updates == pytest.approx(passes)
    network = networks.build("fmnist_vgg", input_shape=(28, 28, 1), num_classes=10, width=1)
    one = networks.forward_flops(network)
    assert formula.flops * updates == pytest.approx(forwards * one)
    # The model counts 2F back to images and weights; an update needs no gradient to the images: one first layer less,
    # 28 * 28 * 9 * 16 multiply-accumulates, and as much for each of the two passes of Diff's.
    first_layers = updates if attack != "diff" else passes - 8
    assert counted.flops * updates == pytest.approx(forwards * one - first_layers * 2 * 28 * 28 * 9 * 16)


def timing(engine, rates, task="pgd original"):
    return {"engine": engine, "task": task, "width": 1, "precision": "float32", "updates_per_second": rates}


def test_rows_have_medians_of_the_ratios_of_each_repeat():
    timings = [
        timing("pineat_tf", [12.0, 6.0, 10.0]),
        timing("tf.function", [6.0, 4.0, 5.0]),  # ratios 2, 1.5, 2
        timing("pytorch", [6.0, 6.0, 4.0]),
        timing("pytorch compiled", [4.0, 3.0, 8.0]),  # of the faster in each repeat: 2, 1, 1.25
        timing("tf.function", [100.0], work.MATMUL),
    ]
    rows = results.summarised(timings, {"float32": 100.0})
    assert [row["engine"] for row in rows] == ["pineat_tf", "tf.function", "pytorch", "pytorch compiled"]
    ours = rows[0]
    assert (ours["images_per_second"], ours["images_per_second_range"]) == (1000.0, [600.0, 1200.0])
    assert (ours["ratio_to_tf_function"], ours["ratio_to_fastest_pytorch"]) == (2.0, 1.25)
    # 19F of 2 * 5,847,544 operations an image and update: 222 MFLOP, 1,000 times a second
    assert ours["gflops"] == pytest.approx(222.2, abs=0.1) and ours["share_of_matmul"] == 2.222
    assert "gflops" not in rows[1]
    table = results.to_markdown(rows).splitlines()
    assert len(table) == 6 and table[2].split(" | ")[3:] == ["pineat_tf", "1,000", "2.00", "1.25", "2.22 |"]


FAKE_TORCH = """
import sys
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print("torch alone", file=sys.stderr)
"""


def test_an_engine_on_pytorch_is_a_process_without_tensorflow(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(FAKE_TORCH)
    (tmp_path / "torch-2.9.0.dist-info").mkdir()
    (tmp_path / "torch-2.9.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert {"pytorch", "pytorch compiled"} <= set(work.engines()) and "art" not in work.engines()
    assert "torch" not in sys.modules  # nor is PyTorch here, beside TensorFlow
    engine = command._Process("pytorch", 1, "float32")
    assert engine.updates_per_second("pgd pineat 1/1", 0.0) is None  # which it does not do, and says so
    assert [process.poll() for process in engine.processes] == [None]
    engine.close()
    engine.errors.seek(0)
    assert engine.errors.read().startswith("torch alone\n")


ECHO = """
import json, os, sys
for line in sys.stdin:
    cores = os.sched_getaffinity(0)
    print(json.dumps({"updates_per_second": 100.0 * len(cores) + min(cores)}), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are kept to cores on Linux alone")
def test_networks_side_by_side_have_a_process_and_a_core_each(tmp_path, monkeypatch):
    (tmp_path / "echo_cores.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(work, "module_of", lambda engine: "echo_cores")
    cores = sorted(os.sched_getaffinity(0))
    for name, rate in (
        (work.A_CORE_EACH, sum(100 + core for core in cores)),
        ("pineat_tf", 100 * len(cores) + cores[0]),
    ):
        engine = command._Process(name, 1, "float32")
        try:
            assert engine.updates_per_second("pgd original", 0.0) == rate
        finally:
            engine.close()
    assert sorted(os.sched_getaffinity(0)) == cores


@pytest.mark.parametrize("make", [ensembles.interleaved, ensembles.stacked])
def test_networks_that_train_at_once_train_as_each_does(make, batch, monkeypatch):
    monkeypatch.setitem(baselines._ATTACKS, "pgd", lambda network, x, y: x)  # whose random starts differ
    alone, together = ([small_network() for _ in range(2)] for _ in range(2))
    for networks_of_one in (alone, together):
        networks_of_one[1].set_weights([0.5 * weights for weights in networks_of_one[1].get_weights()])
    made = []
    monkeypatch.setattr(ensembles, "Stacked", lambda networks: made.append(Stacked(networks)) or made[-1])
    x, y = (tf.stack([values, values[::-1]]) for values in batch)
    make(together, "pgd")(x, y)
    for number, network in enumerate(alone):
        baselines.training(network, "pgd", compiled=True)(x[number], y[number])
    weights = [variable.numpy() for variable in made[0].trainable_variables] if made else None
    for number, network in enumerate(alone):
        got = [stack[number] for stack in weights] if made else together[number].get_weights()
        for own, theirs in zip(network.get_weights(), got, strict=True):
            np.testing.assert_allclose(theirs, own, rtol=0, atol=2e-5)


def test_an_ensemble_counts_the_updates_of_all_networks(monkeypatch):
    threads = []  # which are fixed by now
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", threads.append)
    engine = worker.Ensemble(
        1, "float32", make=lambda networks, attack: lambda x, y: None, num=3, threads_an_operation=1
    )
    assert threads == [1] and engine.training("pgd original")(2) == 6
    assert engine.training("pgd pineat 1/1") is None and engine.evaluation("evaluation pgd") is None


def test_the_command_writes_figures_and_picture_by_engines_without_pytorch(tmp_path, capsys, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit('PyTorch beside TensorFlow')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    files = {"json": tmp_path / "figures.json", "picture": tmp_path / "bars.png"}
    tasks = ["pgd original", "pgd pineat 1/1"]
    monkeypatch.setattr(results, "TRAINING", {task: work.TRAINING[task] for task in tasks})  # whose costs are counted
    argv = ["benchmark", "--widths=1", "--precisions=float32", f"--tasks={','.join(tasks)}", "--repeats=1"]
    argv += ["--engines=pineat_tf,tf.function", "--seconds=0", *(f"--{name}={path}" for name, path in files.items())]
    assert command.main(argv) == 0
    record = json.loads(files["json"].read_text())
    assert {(row["engine"], row["task"]) for row in record["rows"]} == {
        ("pineat_tf", "pgd original"), ("pineat_tf", "pgd pineat 1/1"), ("tf.function", "pgd original"),
    }  # fmt: skip
    assert all(row["images_per_second"] > 0 for row in record["rows"])
    assert record["machine"]["matmul_gflops"]["float32"] > 1
    assert [row["task"] for row in record["costs"]] == tasks
    assert all(row["gradient_passes"] == pytest.approx(row["gradient_passes_formula"]) for row in record["costs"])
    assert files["picture"].read_bytes().startswith(b"\x89PNG")
    assert "| pineat_tf |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--widths=0", "whole numbers >= 1"),
        ("--tasks=pgd", "tasks"),
        ("--engines=pinat_tf", "Did you mean 'pineat_tf'"),
        ("--precisions=float16", "precisions"),
        ("--repeats=0", "repeats"),
        ("more", "no use for"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(flag, words, capsys):
    assert command.main(["benchmark", flag]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_help_names_every_flag(capsys):
    assert command.main(["benchmark", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  --{name} (default: " in text for name in ("widths", "tasks", "engines", "repeats", "picture"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--widths="], "Received: ''"),
        (["--json=nowhere/a.json"], "'nowhere/a.json' is in no folder that there is"),
        (["--json=."], "it is a folder"),
        (["--picture=/dev/null"], "it is not a file"),
    ],
)
def test_what_would_be_in_vain_is_refused_before_it_is_measured(arguments, message, capsys):
    assert command.main(["benchmark", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_page_has_the_timings_of_the_methods():
    root = pathlib.Path(__file__).parents[1]
    record = json.loads((root / "experiments/study/results/benchmark/methods_1.json").read_text())
    rows = {row["task"]: row for row in record["rows"]}
    page = (root / "docs" / "performance.md").read_text(encoding="utf-8")
    table = (
        page.split("| method | images/s | of PGD's | share of the matmul rate |\n")[1].split("\n\n")[0].splitlines()[1:]
    )
    assert list(rows) == ["pgd original", *work.METHODS] and len(table) == len(rows)
    for line, row in zip(table, rows.values()):
        speed, share = row["images_per_second"], row["share_of_matmul"]
        of_pgd = speed / rows["pgd original"]["images_per_second"]
        assert line.endswith(f" | {speed:,.0f} | {of_pgd:.2f} | {share:.2f} |")
    shares = [row["share_of_matmul"] for row in rows.values()]
    assert "nearly the same for all" in page and max(shares) - min(shares) < 0.1


def test_the_page_has_the_timings_of_ensembles():
    root = pathlib.Path(__file__).parents[1]
    record = json.loads((root / "experiments/study/results/benchmark/ensembles_1.json").read_text())
    page = (root / "docs" / "performance.md").read_text(encoding="utf-8")
    table = (
        page.split("| engine | images/s of all networks | of one after the other |\n")[1]
        .split("\n\n")[0]
        .splitlines()[1:]
    )
    speeds = {row["engine"]: row["images_per_second"] for row in record["rows"]}
    turns = {timing["engine"]: np.array(timing["updates_per_second"]) for timing in record["timings"]}
    ratios = {engine: np.median(turns[engine] / turns["pineat_tf"]) for engine in ("pineat_tf", *work.ENSEMBLES)}
    assert len(table) == len(ratios)
    for line, (engine, ratio) in zip(table, ratios.items()):
        assert line.endswith(f" | {speeds[engine]:,.0f} | {ratio:.2f} |")
    assert "nearly as fast as one graph" in page and 0.9 < ratios[work.A_CORE_EACH] / ratios[work.INTERLEAVED] < 1
    assert "slower than one after the other" in page and ratios[work.STACKED] < 1
