"""Networks of the zoo: what their cards say of them is so, and how an entry is made."""

import io
import json
import os
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
from conftest import dense_network

import pineat_tf as pt
from experiments import method, results, stored
from experiments.audit import networks as audited
from experiments.config import ExperimentConfig
from experiments.datasets.published import DEBIAN_FMNIST
from experiments.run import main as train
from experiments.study import zoo

NAMES = pt.zoo.list()
FLIPS = 2  # of 500 images: those that the order of sums on another processor may tip over


@pytest.mark.parametrize("name", NAMES)
def test_a_network_predicts_what_its_card_says(name):
    card = pt.zoo.card(name)
    config = ExperimentConfig(**results.deciding(card["training"]["flags"]))
    if config.dataset == "fmnist" and not os.path.isdir(DEBIAN_FMNIST):
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    found = zoo.check(pt.zoo.load(name), config, method.data(config).test)
    assert found["num"] == card["check"]["num"]
    for figure in ("natural_right", "attacked_right"):
        assert abs(found[figure] - card["check"][figure]) <= FLIPS
        whole = card["figures"]["a_test" if figure == "natural_right" else "r_test"]["value"]
        assert abs(found[figure] / found["num"] - whole) < 0.1  # and the card agrees with itself


def test_networks_are_small_plain_and_safe():
    folder = zoo.ROOT / "zoo"
    assert sum(path.stat().st_size for path in folder.rglob("*.keras")) < 8 << 20
    for name in NAMES:
        network = stored.load_network(str(folder / f"{name}.keras"))  # refuses what is a program
        assert {weight.dtype for weight in network.weights} == {"float32"} and not network.compiled


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(zoo.ROOT / "zoo" / "digits", tmp_path / "zoo" / "digits")
    return tmp_path / "zoo"


def test_another_folder_is_named_by_argument_or_environment(folder, monkeypatch):
    assert pt.zoo.list(directory=folder) == ("digits/pineat-1-1",)
    monkeypatch.setenv(pt.zoo.DIRECTORY, str(folder))
    assert pt.zoo.list() == ("digits/pineat-1-1",)
    monkeypatch.setenv(pt.zoo.DIRECTORY, str(folder / "none"))
    with pytest.raises(ValueError, match="a clone of the repository does"):
        pt.zoo.list()


@pytest.mark.parametrize("name", ["digits/pineat", "../digits/pineat-1-1", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="`name` must be one of"):
        pt.zoo.load(name)


def test_a_file_that_is_not_the_cards_is_refused(folder):
    with open(folder / "digits" / "pineat-1-1.keras", "ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match="must be the file that its card was made of"):
        pt.zoo.load("digits/pineat-1-1", directory=folder)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"file": null}'])
def test_what_is_no_card_is_told_and_what_has_no_network_not_listed(folder, text):
    (folder / "digits" / "alone.json").write_text(text)
    assert pt.zoo.list(directory=folder) == ("digits/pineat-1-1",)
    (folder / "digits" / "pineat-1-1.json").write_text(text)
    for read in (pt.zoo.card, pt.zoo.load):
        with pytest.raises(ValueError, match="must be a card.*Fetch it again"):
            read("digits/pineat-1-1", directory=folder)


def test_halved_weights_load_in_plain_keras(tmp_path):
    network, path = dense_network(), tmp_path / "network.keras"
    zoo.save(network, path, "float16")
    for weight, kept in zip(network.get_weights(), keras.saving.load_model(path).get_weights()):
        np.testing.assert_array_equal(kept, weight.astype(np.float16).astype(np.float32))
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        kinds = set()
        file.visititems(lambda _, item: kinds.add(item.dtype) if isinstance(item, h5py.Dataset) else None)
    assert kinds == {np.dtype(np.float16)}


def test_weights_that_float16_cannot_hold_are_refused(tmp_path):
    network = dense_network()
    network.set_weights([np.full_like(weight, 1e5) for weight in network.get_weights()])
    with pytest.raises(ValueError, match="Give float32"):
        zoo.save(network, tmp_path / "network.keras", "float16")
    assert not (tmp_path / "network.keras").exists()


def test_a_finished_run_becomes_an_entry(tmp_path, monkeypatch, capsys):
    def quick(network, data, attacks, state_path=None):
        first = tuple(array[: attacks.num_attacked] for array in data)
        return pt.robustness(network, first, pt.attacks.fgsm_rs(epsilon=0.15), check=False)

    monkeypatch.setattr(audited, "robustness_left", quick)
    run, place = tmp_path / "run", tmp_path / "zoo"
    flags = ["--variant=pineat", "--export=keras", f"--output_dir={run}", "--precision=mixed_bfloat16"]
    assert train(["run", "--flagfile=quickstart.flags", "--flagfile=smoke.flags", *flags]) == 0
    command = ["zoo", str(run), "--name=digits/quick", f"--directory={place}", "--num_attacked=20", "--limit=A test."]
    assert zoo.main([*command, "--sentence=What it is.", "--shadow=PGD PINEAT-1/1"]) == 0
    card, metrics = pt.zoo.card("digits/quick", directory=place), json.loads((run / "metrics.json").read_text())
    assert card["sentence"] == "What it is." and card["limits"][-1] == "A test." and card["robustness"]["num"] == 20
    assert card["figures"]["a_test"]["value"] == pytest.approx(metrics["a_test"], abs=0.02)  # float32, not bfloat16
    assert card["figures"]["p_max"]["value"] == pytest.approx(metrics["p_max"], abs=0.02)
    assert card["shadow"]["num_models"] == 16 and 0.5 < card["shadow"]["RMIA online"]["auc"]["value"] < 1
    network = pt.zoo.load("digits/quick", directory=place)
    assert network.dtype_policy.name == "float32"
    assert "digits/quick: a_train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "give the directory of a finished run"),
        (["run", "--name=../x", "--sentence=s"], "--name must be of small letters"),
        (["run", "--name=x", "--sentence=s", "--weights=int8"], "`weights` must be one of"),
        (["no_run", "--name=x", "--sentence=s"], "no_run"),
    ],
)
def test_bad_commands_end_in_one_line(arguments, words, capsys):
    assert zoo.main(["zoo", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
