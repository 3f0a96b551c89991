"""The command line that audits a network from a file on images named on the command line."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from experiments import datasets, stored
from experiments.audit.__main__ import main
from pineat_tf.serialization import network_identity

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


@pytest.fixture(scope="module")
def expected():
    """What the library says of the logits."""
    members, non_members = datasets.load_source("digits:train:60"), datasets.load_source("digits:test:40")
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.25 / 3, num_steps=3, random_start=False)
    return pt.evaluate(network(), members=tuple(members), non_members=tuple(non_members), attack=attack).to_dict()


@pytest.mark.parametrize(
    "kind, end",  # a softmax inside a SavedModel cannot be seen: the next test
    [("keras", "logits"), ("keras", "activation"), ("h5", "layer"), ("folder", "logits")],
)
def test_figures_are_those_of_the_logits_however_the_network_was_kept(tmp_path, expected, kind, end):
    original, path = network(end), tmp_path / f"network.{kind}"
    original.export(path, verbose=False) if kind == "folder" else original.save(path)
    figures = audited(path, "--epsilon=0.1", "--steps=3", *(["--trust"] if kind == "folder" else []))
    for name in ("a_train", "a_test", "r_train", "r_test"):
        assert figures[name] == expected[name]
    assert figures["p_e_nat"] == pytest.approx(expected["p_e_nat"], abs=0.03)  # SavedModels round otherwise
    assert len(figures["notes"]) == (end != "logits") + (kind == "folder")


@pytest.mark.parametrize("end, num_classes", [("softmax", 10), ("softmax", 2), ("sigmoid", 1)])
def test_probabilities_inside_a_saved_model_are_refused(tmp_path, capsys, end, num_classes):
    """Nothing of its graph is seen: read as logits, they would give wrong figures without a word."""
    layers = [keras.layers.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(num_classes, activation=end)]
    keras.Sequential(layers).export(tmp_path / "network", verbose=False)
    line = refusal(capsys, tmp_path / "network", "--trust", *DATA)
    assert "its outputs are probabilities" in line and "on images of shape (8, 8, 1)" in line


def test_one_logit_inside_a_saved_model_is_served(tmp_path):
    members, non_members, arrays = binary_images(tmp_path / "d.npz")
    brightness(None).export(tmp_path / "network", verbose=False)
    figures = audited(tmp_path / "network", "--trust", members, non_members, "--bounds=0,255")
    assert figures["a_test"] == np.mean((arrays["x_test"].mean((1, 2, 3)) > 127.5) == arrays["y_test"])


def test_what_the_ensemble_warns_of_is_in_the_text(tmp_path, capsys):
    members, non_members, _ = binary_images(tmp_path / "d.npz")
    brightness(None).save(tmp_path / "network.keras")
    options = ("--bounds=0,255", "--epsilons=8", "--num_attacked=5")
    with pytest.warns(UserWarning, match="'apgd_t' was left out"):
        figures = audited(tmp_path / "network.keras", members, non_members, *options)
    out = capsys.readouterr().out
    assert figures["robustness"]["attacks"] == ["apgd_ce", "fab_t", "square"]
    for warning in figures["robustness"]["warnings"]:
        assert f"Warning: {warning}" in out


def test_the_ensemble_attacks_saved_models_too_and_goes_on_only_with_the_same_one(tmp_path):
    path, options = tmp_path / "network", ("--trust", "--epsilons=0.05", "--num_attacked=5")
    network().export(path, verbose=False)
    assert audited(path, *options)["robustness"]["num"] == 5
    assert not list(tmp_path.glob("*.state.json*"))
    loaded = stored.load_network(str(path), image_shape=SHAPE, trust=True)
    again = stored.load_network(str(path), image_shape=SHAPE, trust=True)
    other = network()
    other.set_weights([2 * weights for weights in other.get_weights()])
    other.export(tmp_path / "other", verbose=False)
    changed = stored.load_network(str(tmp_path / "other"), image_shape=SHAPE, trust=True)
    assert network_identity(loaded) == network_identity(again) != network_identity(changed)


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
    assert "broken.keras' could not be read" in refusal(capsys, broken, *DATA)
    other = tmp_path / "other.keras"
    keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)]).save(other)
    assert "on images of shape (8, 8, 1)" in refusal(capsys, other, *DATA)
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    assert "neither a function `serve`" in refusal(capsys, tmp_path / "empty", "--trust", *DATA)


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
        ("--epsilons=0.1,0.1", "radii that differ"),
        ("--attackers", "needs at least 100 non-members"),
    ):
        assert message in refusal(capsys, path, *DATA, option)
    np.savez(tmp_path / "predictions.npz", a=1)
    assert "--epsilon is for networks" in refusal(capsys, tmp_path / "predictions.npz", "--epsilon=0.1")
    assert "--norm is for networks" in refusal(capsys, tmp_path / "predictions.npz", "--norm=l7")
    assert "--num_attacked is for networks" in refusal(capsys, tmp_path / "predictions.npz", "--num_attacked=-1")


# ---------------------------------------------------------------- heads and ranges


def binary_images(path, num=30):
    """Bytes 0..255 of two classes, dark and light, in a file."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"y_{split}"] = labels = rng.integers(0, 2, num)
        arrays[f"x_{split}"] = rng.integers(0, 160, (num, 4, 4, 1)) + 95 * labels[:, None, None, None]
    np.savez(path, **{name: array.astype(np.uint8) for name, array in arrays.items()})
    return f"--members={path}:train", f"--non_members={path}:test", arrays


def brightness(end, scale=1.0):
    """Class 1 where the mean of the pixels, times `scale`, is above 127.5 of 255: one output, or two."""
    num = 2 if end == "softmax" else 1
    dense = keras.layers.Dense(num, activation=end if end != "gate" else None)
    layers = [keras.layers.Input((4, 4, 1)), keras.layers.Rescaling(scale / 255), keras.layers.Flatten(), dense]
    model = keras.Sequential(layers + ([keras.layers.Activation("sigmoid")] if end == "gate" else []))
    kernel = np.full((16, 1), 20 / 16, np.float32)
    if num == 2:
        dense.set_weights([np.concatenate([0 * kernel, kernel], 1), np.float32([0, -10])])
    else:
        dense.set_weights([kernel, np.float32([-10])])
    return model


@pytest.mark.parametrize("kind, end", [("keras", None), ("h5", "sigmoid"), ("keras", "gate"), ("keras", "softmax")])
def test_heads_of_one_output_and_images_of_whole_numbers(tmp_path, kind, end):
    """The figures of the same network with the same images in [0, 1]: the radius is on the scale of the pixels."""
    members, non_members, arrays = binary_images(tmp_path / "d.npz")
    data, options = (members, non_members), ["--steps=3", "--epsilon={}"]
    if end is None:
        options += ["--epsilons={}", "--num_attacked=5"]
    brightness(end).save(tmp_path / f"whole.{kind}")
    brightness(end, scale=255).save(tmp_path / f"unit.{kind}")
    wide = audited(tmp_path / f"whole.{kind}", *data, "--bounds=0,255", *(o.format(25.5) for o in options))
    unit = audited(tmp_path / f"unit.{kind}", *data, *(o.format(0.1) for o in options))
    expected = np.mean((arrays["x_test"].mean((1, 2, 3)) > 127.5) == arrays["y_test"])
    assert wide["bounds"] == [0, 255] and wide["a_test"] == unit["a_test"] == pytest.approx(expected)
    for name in ("a_train", "r_train", "r_test", "p_e_nat"):
        assert wide[name] == pytest.approx(unit[name], abs=0.04)
    if end is None:
        assert wide["robustness"]["accuracies"] == unit["robustness"]["accuracies"]
    assert len(wide["notes"]) == (end is not None)


def test_bounds_reach_the_further_attackers(tmp_path):
    members, non_members, _ = binary_images(tmp_path / "d.npz", 120)
    brightness("sigmoid").save(tmp_path / "n.keras")
    figures = audited(tmp_path / "n.keras", members, non_members, "--bounds=0,255", "--attackers", "--norm=l2")
    assert len(figures["attackers"]) == 6


def test_a_softmax_that_cannot_be_taken_off_is_refused(tmp_path, capsys):
    inputs = keras.Input(SHAPE)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, keras.ops.softmax(logits)).save(tmp_path / "n.keras")
    line = refusal(capsys, tmp_path / "n.keras", *DATA)
    assert ": `network` must give logits, but its outputs are probabilities" in line
    assert "in user code" not in line and "\x1b" not in line  # the head's own words, not a traceback in one line


def test_labels_beyond_the_outputs_are_told_before_anything_is_attacked(tmp_path, capsys):
    network(num_classes=5).save(tmp_path / "n.keras")
    assert "as the network has 5 logits" in refusal(capsys, tmp_path / "n.keras", *DATA, "--epsilons=0.1")


@pytest.mark.parametrize("bounds", ["0", "a,b", "1,0", "0,1,2", "", "0,nan"])
def test_ranges_that_are_none_are_refused(tmp_path, capsys, bounds):
    network().save(tmp_path / "n.keras")
    assert "bounds" in refusal(capsys, tmp_path / "n.keras", *DATA, f"--bounds={bounds}")
