"""The record of an experiment: what it refuses, what follows from its fields, and how refusals reach the user."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import run
from experiments.config import ATTACKS, VARIANTS, ExperimentConfig

ROOT = Path(__file__).resolve().parents[1]
NAN, INF = float("nan"), float("inf")

# What is refused: the fields, and what the message must hold beside their name.
BAD = [
    ({"attack": "free", "order": "companions"}, "has no effect with attack='free'"),
    ({"attack": "free", "generation": "update"}, "has no effect with attack='free'"),
    ({"attack": "free", "teacher_share": 0.5}, "has no effect with attack='free'"),
    ({"epsilon": 0.0}, "must be positive. Received: epsilon=0.0"),
    ({"epsilon": -0.1}, "8/255 will do"),
    ({"epsilon": NAN}, "epsilon=nan"),
    ({"epsilon": INF}, "epsilon=inf"),
    ({"epsilon": "0.1"}, "epsilon='0.1'"),
    ({"epsilon": None}, "epsilon=None"),
    ({"epsilon": True}, "epsilon=True"),
    ({"step_size": 0.0}, "must be positive"),
    ({"dist_coefficient": -1.0}, "must be positive"),
    ({"wrm_gamma": 0.0}, "must be positive"),
    ({"trades_beta": 0.0}, "must be positive"),
    ({"adam_epsilon": 0.0}, "must be positive"),
    ({"momentum": -0.9}, "must be positive or 0"),
    ({"weight_decay": -1e-4}, "must be positive"),
    ({"weight_decay": NAN}, "weight_decay=nan"),
    ({"eval_epsilon": -0.1}, "must be positive"),
    ({"num_steps": 0}, "a whole number >= 1. Received: num_steps=0"),
    ({"num_steps": 2.0}, "num_steps=2.0"),
    ({"updates": 0}, "a whole number >= 1"),
    ({"batch_size": -1}, "a whole number >= 1"),
    ({"eval_steps": 0}, "a whole number >= 1"),
    ({"eval_batch_size": 0}, "a whole number >= 1"),
    ({"train_size": -1}, "a whole number >= 0"),
    ({"test_size": -1}, "a whole number >= 0"),
    ({"augment_pad": -1}, "a whole number >= 0"),
    ({"width": -1}, "a whole number >= 0"),
    ({"seed": -1}, "a whole number >= 0"),
    ({"seed": True}, "seed=True"),
    ({"seed": 1 << 32}, "`seed` must be less than 4,294,967,296"),
    ({"checkpoint_seconds": -1}, "a whole number >= 0"),
    ({"ratio": "0/0"}, "not both 0"),
    ({"ratio": "1:1"}, "ratio='1:1'. Give e.g. '1/1'"),
    ({"ratio": "a/b"}, "ratio='a/b'"),
    ({"ratio": "-1/2"}, "ratio='-1/2'"),
    ({"ratio": "1.5/1"}, "ratio='1.5/1'"),
    ({"ratio": "1/1/1"}, "ratio='1/1/1'"),
    ({"ratio": "1/"}, "ratio='1/'"),
    ({"ratio": "1"}, "ratio='1'"),
    ({"ratio": ""}, "ratio=''"),
    ({"dataset": "fminst"}, "Did you mean 'fmnist'?"),
    ({"dataset": "mnist"}, "must be one of"),
    ({"network": "small_ccn"}, "Did you mean 'small_cnn'?"),
    ({"attack": "pdg"}, "Did you mean 'pgd'?"),
    ({"attack": ""}, "must be one of"),
    ({"variant": "pinaet"}, "Did you mean 'pineat'?"),
    ({"activation": "leaky"}, "Did you mean 'leaky_relu'?"),
    ({"precision": "bfloat16"}, "Did you mean 'mixed_bfloat16'?"),
    ({"optimizer": "admm"}, "Did you mean 'adam'?"),
    ({"rs_bounds": "vaild"}, "Did you mean 'valid'?"),
    ({"rs_decomposition": "splitt"}, "Did you mean 'split'?"),
    ({"generation": "rounds"}, "Did you mean 'round'?"),
    ({"order": "companion"}, "Did you mean 'companions'?"),
    ({"label_smoothing": 1.0}, "`label_smoothing` must be in [0, 1)"),
    ({"ema_momentum": 1.0}, "`ema_momentum` must be in [0, 1)"),
    ({"schedule_scale": 0.0}, "`schedule_scale` must be positive"),
    *[({"companion_scale": value}, "must be a finite number other than 0. Received") for value in (0.0, NAN, INF)],
    ({"schedule_scale": 1e-6}, "`updates` must be a whole number >= 2. Received: updates=0"),
    ({"export": ("keras", "pickle")}, "export='pickle'"),
    ({"ibp_ramp": (0.5,)}, "`ibp_ramp` must be two rising shares"),
    ({"epsilon_ramp": (0.5, 0.2)}, "`epsilon_ramp` must be two rising shares"),
    ({"attack": "free", "awp_gamma": 0.1}, "`awp_gamma` has no effect with attack='free'"),
    ({"attack": "free", "defence": "entropy"}, "`defence` has no effect with attack='free'"),
    ({"dp_noise": 1.0, "defence": "relaxloss"}, "Received: defence='relaxloss' with dp_noise=1.0"),
    ({"dp_noise": 1.0, "mixing": "cutmix"}, "Received: mixing='cutmix' with dp_noise=1.0"),
    ({"dp_noise": 1.0, "strategy": "mirrored"}, "on one device. Received: strategy='mirrored'"),
    ({"dp_noise": 1.0, "attack": "dist"}, "know nothing of each other"),
    ({"dp_delta": 1.0}, "`dp_delta` must be in [0, 1)"),
    ({"learning_rates": ()}, "one learning rate more than there are boundaries. Received: 0 rates"),
    ({"learning_rates": (1e-3, 1e-4)}, "Received: 2 rates [0.001, 0.0001], 0 boundaries"),
    ({"boundaries": (100,)}, "Received: 1 rates [0.0001], 1 boundaries [100]"),
    ({"learning_rates": (1e-3, 0.0), "boundaries": (5,)}, "`learning rate` must be positive"),
    ({"learning_rates": (NAN,)}, "`learning rate` must be positive"),
    ({"learning_rates": (3.0, 2.0, 1.0), "boundaries": (9, 5)}, "Boundaries must increase"),
    ({"learning_rates": (3.0, 2.0, 1.0), "boundaries": (5, 5)}, "Boundaries must increase"),
    ({"learning_rates": (3.0, 2.0), "boundaries": (0,)}, "`boundary` must be a whole number >= 1"),
    ({"ratio": "2/3", "updates": 4}, "`updates` must be a whole number >= 5"),
    ({"output_dir": "runs/{datset}"}, "which names 'datset'"),
    ({"output_dir": "runs/{dataset}/{sede}"}, "which names 'sede'"),
    ({"output_dir": "runs/{}"}, "names of flags in braces"),
    ({"output_dir": "runs/{seed"}, "names of flags in braces"),
    ({"output_dir": "runs/}"}, "names of flags in braces"),
    ({"output_dir": "runs/{seed.real.no}"}, "names of flags in braces"),
    ({"output_dir": "runs/{seed.__class__}"}, "names of flags in braces"),
    ({"output_dir": "runs/{dataset[name]}"}, "names of flags in braces"),
    ({"output_dir": "runs/{learning_rates[7]}"}, "names of flags in braces"),
    ({"output_dir": "runs/{seed:s}"}, "names of flags in braces"),
    ({"output_dir": ""}, "must name a directory of its own. Received: output_dir=''"),
    ({"output_dir": "."}, "must name a directory of its own"),
    ({"output_dir": "runs/.."}, "must name a directory of its own"),
    ({"output_dir": "/"}, "must name a directory of its own"),
    ({"output_dir": "{data_dir}"}, "must name a directory of its own. Received: output_dir='{data_dir}'"),
]
IDS = [", ".join(f"{name}={value}" for name, value in fields.items()) for fields, _ in BAD]


@pytest.mark.parametrize("fields, message", BAD, ids=IDS)
def test_a_value_out_of_range_is_refused_with_what_was_received_and_what_to_give(fields, message):
    with pytest.raises(ValueError) as error:
        ExperimentConfig(**fields)
    assert message in str(error.value)
    assert "Received: " in str(error.value)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ExperimentConfig)])
def test_a_field_that_is_a_choice_refuses_everything_else(name):
    field = ExperimentConfig.__dataclass_fields__[name]
    if isinstance(field.default, bool) or name in ("companion_labels", "data_dir", "output_dir", "ratio"):
        assert not field.metadata["choices"]  # these are free
        return
    with pytest.raises(ValueError):
        ExperimentConfig(**{name: ("@",) if isinstance(field.default, tuple) else "@"})


@pytest.mark.parametrize("name, value", [("weight_decay", 0.0), ("momentum", 0.0), ("eval_epsilon", 0.0), ("width", 0)])
def test_zero_is_allowed_where_it_means_none_or_the_default(name, value):
    assert getattr(ExperimentConfig(**{name: value}), name) == 0


def test_a_config_cannot_be_changed_but_copied():
    config = ExperimentConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    assert dataclasses.replace(config, seed=1).seed == 1


@pytest.mark.parametrize(
    "variant, expected",
    [("natural", (0, 1)), ("original", (1, 0)), ("advnat", (2, 3)), ("advran", (2, 3)), ("pineat", (2, 3))],
)
def test_natural_and_original_have_a_ratio_of_their_own(variant, expected):
    assert ExperimentConfig(variant=variant, ratio="2/3").round_ratio == expected


def test_evaluation_takes_the_radius_of_training_unless_it_has_its_own():
    assert ExperimentConfig(epsilon=0.3).evaluation_epsilon == 0.3
    assert ExperimentConfig(epsilon=0.3, eval_epsilon=0.2).evaluation_epsilon == 0.2


def test_the_scale_moves_updates_and_boundaries_together():
    config = ExperimentConfig(updates=100, boundaries=(50, 75), learning_rates=(3.0, 2.0, 1.0), schedule_scale=0.5)
    assert (config.scaled_updates, config.scaled_boundaries) == (50, (25, 38))


def test_the_run_directory_is_filled_in_from_the_fields():
    config = ExperimentConfig(dataset="digits", attack="diff", variant="pineat", ratio="1/2", seed=3)
    assert config.run_dir == "runs/digits-diff-pineat-1-2-seed3"
    assert dataclasses.replace(config, output_dir="a/{{x}}/{epsilon}-{learning_rates[0]}").run_dir == "a/{x}/0.1-0.0001"


def test_the_run_directory_has_the_ratio_that_holds_for_the_variant():
    assert ExperimentConfig(variant="original", output_dir="{variant}-{ratio}").run_dir == "original-1-0"


def test_home_in_the_output_directory_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", os.path.join(os.sep, "somewhere"))
    assert ExperimentConfig(output_dir="~/runs/{seed}").run_dir == os.path.join(os.sep, "somewhere", "runs", "0")


def test_every_attack_and_variant_of_the_paper_is_a_choice():
    assert {"pgd", "dist", "diff"} < set(ATTACKS)
    assert set(VARIANTS) >= {"natural", "original", "advnat", "advran", "pineat"}


def test_to_dict_gives_an_equal_config_back():
    config = ExperimentConfig(seed=5, learning_rates=(1.0, 0.5), boundaries=(10,), export=("keras",))
    assert ExperimentConfig(**config.to_dict()) == config


# ---------------------------------------------------------------- as the user sees it

SAFE = ("--dataset=digits", "--network=mlp", "--updates=2")  # so that a refusal that is missing costs seconds


def refusal(capsys, *arguments):
    """The one line on stderr of a command that must fail."""
    assert run.main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    return err


def as_flags(fields):
    """Values as a user writes them; None where a flag gives another value than Python code does."""
    if any(isinstance(value, (bool, str)) for name, value in fields.items() if name in ("epsilon", "seed")):
        return None
    given = {name: ",".join(map(str, value)) if isinstance(value, tuple) else value for name, value in fields.items()}
    return [f"--{name}={value}" for name, value in given.items()]


@pytest.mark.parametrize("arguments", [as_flags(fields) for fields, _ in BAD if as_flags(fields)])
def test_main_refuses_what_the_config_refuses_before_anything_is_written(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refusal(capsys, *SAFE, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--epsilon=8/0"], "flag --epsilon=8/0: must be a number like 0.1, 1e-4 or 8/255"),
        (["--flagfile=fminst_pgd.flags"], "there is no flag file 'fminst_pgd.flags' here or among the project's own"),
        (["--atack=pgd"], "Did you mean: attack ?"),
        (["--resume", "runs"], "there is no use for ['runs']; flags begin with --"),
        (["--", "--seed=1"], "there is no use for ['--seed=1']"),
        (["--variant=original,original"], "each variant needs a run directory of its own"),
        (["--variant=original,pineat", "--output_dir=runs/{seed}"], "as by {variant} in --output_dir"),
        (["--variant=original,pinaet"], "Did you mean 'pineat'?"),
        (["--variant="], "each variant needs"),
    ],
)
def test_main_refuses_bad_arguments_in_one_line(arguments, message, capsys):
    assert message in refusal(capsys, *SAFE, *arguments)


def test_a_refusal_is_exactly_one_line_on_stderr_of_a_real_process(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--dataset=digits", "--network=mlp", "--batch_size=100000"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == (
        "error: `batch_size` must be at most the number of training images, 797. Received: batch_size=100000.\n"
    )
    assert not list(tmp_path.iterdir())
