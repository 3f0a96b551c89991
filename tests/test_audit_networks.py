"""The command line that audits a network from a file on images named on the command line."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from experiments import datasets
from experiments.audit import networks
from experiments.audit.__main__ import main

DATA = ("--members=digits:train:60", "--non_members=digits:test:40")
SHAPE = (8, 8, 1)


def network(end="logits", num_classes=10):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(16, activation="tanh")]
    activation = "softmax" if end == "activation" else None
    layers.append(keras.layers.Dense(num_classes, activation=activation))
    return keras.Sequential(layers + ([keras.layers.Softmax()] if end == "layer" else []))


def audited(path, *options):
    """The figures that the command writes."""
    target = path.parent / "audit.json"
    assert main(["audit", str(path), *DATA, f"--json={target}", *options]) == 0
    return json.loads(target.read_text())


def refusal(capsys, *arguments):
    assert main(["audit", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize("end", ["logits", "activation", "layer"])
@pytest.mark.parametrize("kind", ["keras", "h5", "folder"])
def test_figures_are_those_of_the_logits_however_the_network_was_kept(tmp_path, kind, end):
    original = network(end)
    path = tmp_path / f"network.{kind}"
    original.export(path, verbose=False) if kind == "folder" else original.save(path)
    if kind == "folder" and end != "logits":
        pytest.skip("a softmax inside a SavedModel cannot be seen: the next test")
    figures = audited(path, "--epsilon=0.1", "--steps=3")
    members, non_members = datasets.load_source("digits:train:60"), datasets.load_source("digits:test:40")
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.25 / 3, num_steps=3, random_start=False)
    logits_only = network()
    logits_only.set_weights(original.get_weights())
    expected = pt.evaluate(logits_only, members=tuple(members), non_members=tuple(non_members), attack=attack).to_dict()
    for name in ("a_train", "a_test", "r_train", "r_test"):
        assert figures[name] == expected[name]
    assert figures["p_e_nat"] == pytest.approx(expected["p_e_nat"], abs=0.03)  # SavedModels round otherwise
    assert len(figures["notes"]) == (end != "logits")


def test_a_softmax_inside_a_saved_model_is_warned_of(tmp_path):
    network("activation").export(tmp_path / "network", verbose=False)
    with pytest.warns(UserWarning, match="look like probabilities"):
        figures = audited(tmp_path / "network", "--epsilons=0.1", "--num_attacked=5")
    assert any("look like probabilities" in sign for sign in figures["robustness"]["warnings"])


def test_the_ensemble_attacks_the_first_non_members(tmp_path, capsys):
    path = tmp_path / "network.keras"
    network(num_classes=10).save(path)
    images, labels = datasets.load_source("digits:test:40")
    figures = audited(path, "--epsilons=0.05,1/10", "--num_attacked=10")
    result = figures["robustness"]
    right = np.argmax(network()(images[:10]), axis=1) == labels[:10]
    assert result["num"] == 10 and result["epsilons"] == [0.0, 0.05, 0.1] and result["norm"] == "linf"
    assert result["attacks"] == ["apgd_ce", "apgd_t", "fab_t", "square"]
    assert result["accuracies"][0] == pytest.approx(right.mean())
    assert figures["r_test"] is None and "linf radius 0.1" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.state.json*"))


def test_further_attackers_are_asked_with_intervals(tmp_path, capsys):
    path = tmp_path / "network.keras"
    network().save(path)  # untrained: there is nothing to find
    figures = audited(path, "--members=digits:train:120", "--non_members=digits:test:120", "--attackers")
    names = [one["signal"] for one in figures["attackers"]]
    assert names == [
        "logistic (cross-fitted)", "mlp (cross-fitted)", "quantile regression", "labels only: noise",
        "labels only: shifts and flips", "distance to the boundary (white-box)",
    ]  # fmt: skip
    for one in figures["attackers"]:
        low, high = one["intervals"]["auc"]["low"], one["intervals"]["auc"]["high"]
        assert low <= one["auc"] <= high and 0.3 < one["auc"] < 0.7 and 0 <= one["p_values"]["auc"] <= 1
    assert figures["attackers"][2]["num_non_members"] == 60  # the other half is the population
    assert capsys.readouterr().out.count("labels only:") == 2


def test_networks_that_cannot_be_used_are_told(tmp_path, capsys):
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"PK no archive")
    assert "cannot be used as a network" in refusal(capsys, broken, *DATA)
    other = tmp_path / "other.keras"
    keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)]).save(other)
    assert "on images of shape (8, 8, 1)" in refusal(capsys, other, *DATA)
    one = tmp_path / "one.keras"
    network(num_classes=1).save(one)
    assert "must give a row of logits an image" in refusal(capsys, one, *DATA)
    unsafe = tmp_path / "unsafe.keras"
    keras.Sequential([keras.layers.Input(SHAPE), keras.layers.Lambda(lambda x: x[:, 0, :, 0])]).save(unsafe)
    assert "cannot be used as a network" in refusal(capsys, unsafe, *DATA)
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    assert "neither a function `serve`" in refusal(capsys, tmp_path / "empty", *DATA)


def test_bad_command_lines_are_told(tmp_path, capsys):
    path = tmp_path / "network.keras"
    network().save(path)
    assert "give --members and --non_members" in refusal(capsys, path)
    np.savez(tmp_path / "small.npz", x=np.zeros((3, 4, 4), np.uint8), y=np.zeros(3, int))
    assert "images of one shape" in refusal(capsys, path, DATA[0], f"--non_members={tmp_path}/small.npz")
    for option, message in (
        ("--epsilon=-1", "`epsilon` must be positive"),
        ("--epsilons=0.1,0", "`epsilon` must be positive"),
        ("--steps=0", "`steps`"),
        ("--norm=l1", "`norm`"),
        ("--num_attacked=0", "`num_attacked`"),
    ):
        assert message in refusal(capsys, path, *DATA, option)
    np.savez(tmp_path / "predictions.npz", a=1)
    assert "--epsilon is for networks" in refusal(capsys, tmp_path / "predictions.npz", "--epsilon=0.1")
    assert "--norm is for networks" in refusal(capsys, tmp_path / "predictions.npz", "--norm=l7")
    assert "--num_attacked is for networks" in refusal(capsys, tmp_path / "predictions.npz", "--num_attacked=-1")


def test_what_is_a_network(tmp_path):
    assert networks.is_network("a.keras") and networks.is_network("a.h5") and not networks.is_network("a.npz")
    assert not networks.is_network(str(tmp_path))
