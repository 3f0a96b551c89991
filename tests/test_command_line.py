"""Flag files by name, flags from the config's fields, and errors in one line."""

import dataclasses
import errno
import os
import re
import tempfile
from pathlib import Path

import pytest
import tensorflow as tf
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import command_line, config, options, run
from experiments.command_line import expand_flagfiles
from pineat_tf.checks import check_batch

FIELDS = {field.name: field for field in dataclasses.fields(config.ExperimentConfig)}


def parse(*argv):
    """The configs that these arguments describe, as `experiments.run` reads them."""
    values = flags.FlagValues()
    command_line.define_flags(values, several=["variant"])
    values(["run", *expand_flagfiles(argv)])
    return command_line.configs_from(values, several="variant")


def parse_one(*argv):
    (parsed,) = parse(*argv)
    return parsed


def write(folder, name, *lines):
    path = Path(folder) / name
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


# ---------------------------------------------------------------- the project's own flag files

# Song, Shokri and Mittal (CCS 2019) by their published code. The FMNIST loss is a sum over 100 images, which as a
# mean needs Adam's epsilon 1e-8 and the weight decay 2e-4 divided by 100.
FMNIST = {
    "dataset": "fmnist", "augment_pad": 0, "augment_flip": False, "train_size": 0, "test_size": 0,
    "network": "fmnist_vgg", "width": 0, "activation": "relu", "weight_decay": 2e-6, "decay_all": False,
    "precision": "float32", "attack": "pgd", "variant": "pineat", "ratio": "1/1", "epsilon": 0.1, "step_size": 0.02,
    "num_steps": 8, "random_start": True, "updates": 80_000, "batch_size": 100, "optimizer": "adam",
    "adam_epsilon": 1e-10, "learning_rates": (1e-4, 1e-5, 1e-6), "boundaries": (50_000, 65_000),
    "evaluation_epsilon": 0.1, "eval_steps": 20,
}  # fmt: skip
FMNIST_DIFF = {  # 100 epochs of 600 batches, the rate falls as epochs 60 and 85 begin
    **FMNIST, "network": "fmnist_vgg_diff", "attack": "diff", "trades_beta": 1.0, "trades_detach": True,
    "weight_decay": 5e-4, "decay_all": True, "updates": 100 * 600, "adam_epsilon": 1e-8,
    "boundaries": (59 * 600, 84 * 600),
}  # fmt: skip
CIFAR10 = {
    **FMNIST, "dataset": "cifar10", "augment_pad": 2, "augment_flip": True, "network": "wrn32", "weight_decay": 2e-4,
    "epsilon": 8 / 255, "step_size": 2 / 255, "num_steps": 10, "batch_size": 128, "optimizer": "sgd", "momentum": 0.9,
    "adam_epsilon": 1e-7, "learning_rates": (0.1, 0.01, 0.001), "boundaries": (40_000, 60_000),
    "evaluation_epsilon": 8 / 255,
}  # fmt: skip
CIFAR10_DIFF = {  # 100 epochs of 391 batches, the rate falls as epochs 75, 90 and 100 begin
    **CIFAR10, "augment_pad": 4, "network": "wrn34", "attack": "diff", "trades_beta": 1.0, "trades_detach": True,
    "decay_all": True, "epsilon": 0.0314, "step_size": 0.007, "updates": 100 * 391,
    "learning_rates": (0.1, 0.01, 0.001, 0.0001), "boundaries": (74 * 391, 89 * 391, 99 * 391),
}  # fmt: skip
QUICKSTART = {
    "dataset": "digits", "network": "small_cnn", "attack": "pgd", "train_size": 500, "epsilon": 0.15,
    "step_size": 0.03, "num_steps": 8, "updates": 4000, "batch_size": 50, "optimizer": "adam",
    "learning_rates": (1e-3, 1e-4), "boundaries": (3000,),
}  # fmt: skip
CIFAR10_BEST = {
    "variant": "original", "num_steps": 5, "step_size": 4 / 255, "batch_size": 50, "augment_pad": 1,
    "augment_flip": True, "schedule_scale": 1.76, "ema_momentum": 0.99,
}  # fmt: skip
EXPERIMENTS = {
    "fmnist.flags": FMNIST,
    "fmnist_pgd.flags": FMNIST,
    "fmnist_dist.flags": {**FMNIST, "attack": "dist", "dist_coefficient": 1.0},
    "fmnist_diff.flags": FMNIST_DIFF,
    "fmnist_natural.flags": {**FMNIST, "variant": "natural"},
    "fmnist_fgsm_rs.flags": {**FMNIST, "attack": "fgsm_rs"},
    "fmnist_n_fgsm.flags": {**FMNIST, "attack": "n_fgsm"},
    "fmnist_free.flags": {**FMNIST, "attack": "free", "ratio": "4/4"},
    "fmnist_ibp.flags": {
        **FMNIST,
        "variant": "original",
        "objective": "ibp",
        "ibp_ramp": (0.1, 0.475),
        "verify": True,
    },
    "fmnist_mtl_ibp.flags": {
        **FMNIST,
        "objective": "mtl_ibp",
        "ibp_share": 0.1,
        "ibp_ramp": (0.1, 0.475),
        "verify": True,
    },
    "fmnist_dp.flags": {
        **FMNIST,
        "dp_noise": 1.0,
        "dp_clip": 1.0,
        "updates": 8000,
        "batch_size": 500,
        "learning_rates": (1e-3,),
        "boundaries": (),
    },
    "fmnist_relaxloss.flags": {
        **FMNIST,
        "variant": "original",
        "defence": "relaxloss",
        "relaxloss_alpha": 1.0,
        "relaxloss_period": 600,
    },
    "fmnist_hamp.flags": {
        **FMNIST,
        "variant": "original",
        "defence": "entropy",
        "entropy_share": 0.95,
        "entropy_weight": 0.01,
    },
    "folder.flags": {
        "dataset": "image_folder",
        "epsilon": 8 / 255,
        "step_size": 2 / 255,
        "num_steps": 8,
        "boundaries": (3000,),
    },  # fmt: skip
    "fmnist_awp.flags": {**FMNIST, "awp_gamma": 0.01, "awp_begin": 0.0},
    "fmnist_mart.flags": {**FMNIST, "objective": "mart", "objective_beta": 6.0},
    "fmnist_ikl.flags": {
        **FMNIST,
        "attack": "diff",
        "objective": "ikl",
        "epsilon_ramp": (0.0, 1.0),
        "awp_gamma": 0.005,
        "awp_begin": 0.05,
    },
    "fmnist_trades_awp.flags": {
        **FMNIST,
        "attack": "diff",
        "trades_beta": 6.0,
        "trades_detach": False,
        "awp_gamma": 0.005,
        "awp_begin": 0.05,
    },
    "fmnist_hat.flags": {
        **FMNIST,
        "attack": "diff",
        "trades_beta": 2.5,
        "trades_detach": False,
        "variant": "scaled",
        "companion_scale": 2.0,
        "companion_objective": "cross_entropy",
    },
    "cifar10.flags": CIFAR10,
    "cifar10_pgd.flags": {**CIFAR10, "activation": "leaky_relu"},
    "cifar10_dist.flags": {**CIFAR10, "attack": "dist", "dist_coefficient": 12 / 255},
    "cifar10_diff.flags": CIFAR10_DIFF,
    "cifar10_natural.flags": {**CIFAR10, "variant": "natural", "activation": "leaky_relu"},
    "quickstart.flags": QUICKSTART,
}
OVERLAYS = {
    "small.flags": {
        "width": 1, "train_size": 10_000, "precision": "mixed_bfloat16", "updates": 6000, "optimizer": "adam",
        "learning_rates": (1e-3, 1e-4, 1e-5), "boundaries": (4800, 5500),
    },
    "precision.flags": {
        "train_size": 3000, "test_size": 3000, "updates": 600, "learning_rates": (1e-3, 1e-4), "boundaries": (480,),
        "eval_precision": "float32", "export": (),
    },
    "study.flags": {
        "width": 1, "train_size": 10_000, "updates": 4000, "optimizer": "adam", "precision": "mixed_bfloat16",
        "learning_rates": (2e-3, 2e-4, 2e-5), "boundaries": (3200, 3700), "export": ("keras",),
    },
    "scarce.flags": {
        "network": "small_cnn", "width": 2, "train_size": 2500, "test_size": 2500, "updates": 1000,
        "learning_rates": (2e-3, 2e-4, 2e-5), "boundaries": (800, 925),
    },
    "study_cifar10.flags": {
        "dataset": "image_folder", "data_dir": "cifar10-jpeg", "paper_dataset": "cifar10", "train_size": 10_000,
        "test_size": 5000, "augment_pad": 0, "augment_flip": False, "network": "wrn8", "width": 1,
        "precision": "mixed_bfloat16", "updates": 3000, "batch_size": 100, "optimizer": "sgd",
        "learning_rates": (0.1, 0.01, 0.001), "boundaries": (2400, 2800), "export": (),
    },
    "fmnist_light.flags": {
        "variant": "original", "num_steps": 4, "step_size": 0.04, "batch_size": 50, "augment_pad": 1,
        "augment_flip": True, "schedule_scale": 1.72,
    },
    "fmnist_best.flags": {
        "variant": "original", "objective": "ibp", "ibp_ramp": (0.1, 0.475), "ibp_natural_weight": 0.8,
        "network": "small_cnn", "batch_size": 25, "augment_pad": 1, "augment_flip": True, "schedule_scale": 4.0,
        "verify": True,
    },
    "fmnist_balanced.flags": {
        "variant": "original", "objective": "ibp", "ibp_ramp": (0.1, 0.475), "ibp_natural_weight": 0.87,
        "network": "small_cnn", "batch_size": 12, "augment_pad": 1, "augment_flip": True, "schedule_scale": 8.7,
        "verify": True, "ema_momentum": 0.998,
    },
    "cifar10_best.flags": CIFAR10_BEST,
    "cifar10_balanced.flags": {**CIFAR10_BEST, "variant": "pineat", "schedule_scale": 2.87},
    "residual_cifar10.flags": {
        "train_size": 2500, "test_size": 2500, "updates": 750, "learning_rates": (0.1, 0.01, 0.001),
        "boundaries": (600, 700),
    },
    "scarce_cifar10.flags": {
        "network": "small_cnn", "width": 2, "train_size": 2500, "test_size": 2500, "activation": "relu",
        "weight_decay": 2e-6, "optimizer": "adam", "adam_epsilon": 1e-10, "updates": 1000,
        "learning_rates": (2e-3, 2e-4, 2e-5), "boundaries": (800, 925),
    },
    "smoke.flags": {
        "width": 1, "train_size": 200, "test_size": 100, "batch_size": 50, "updates": 8, "num_steps": 2,
        "eval_steps": 2, "optimizer": "adam", "learning_rates": (1e-3,), "boundaries": (),
    },
}  # fmt: skip

SWEEPS = {path.name for path in command_line.FLAGFILES.iterdir() if "--row=" in path.read_text(encoding="utf-8")}
"""What test_sweep.py reads."""
SEARCHES = {path.name for path in command_line.FLAGFILES.iterdir() if "--axes=" in path.read_text(encoding="utf-8")}
"""What test_tune.py reads."""


def test_every_flag_file_is_in_the_tables_of_this_module():
    names = {path.name for path in command_line.FLAGFILES.iterdir()}
    assert names == {*EXPERIMENTS, *OVERLAYS, *SWEEPS, *SEARCHES} and not SWEEPS & {*EXPERIMENTS, *OVERLAYS}


@pytest.mark.parametrize("overlays", [(), ("small.flags",), ("smoke.flags",), ("small.flags", "smoke.flags")])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_flag_file_gives_the_reference_settings_and_overlays_change_what_they_name(name, overlays):
    expected = dict(EXPERIMENTS[name])
    for overlay in overlays:
        expected |= OVERLAYS[overlay]
    for parsed in parse(*(f"--flagfile={file}" for file in (name, *overlays))):
        assert {key: getattr(parsed, key) for key in expected} == expected


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_parses_alone(name):
    parsed = parse_one(f"--flagfile={name}")
    assert {key: getattr(parsed, key) for key in OVERLAYS[name]} == OVERLAYS[name]


def test_the_radius_of_diff_on_cifar10_differs_between_training_and_evaluation():
    parsed = parse_one("--flagfile=cifar10_diff.flags")
    assert (parsed.epsilon, parsed.evaluation_epsilon) == (0.0314, 8 / 255)


def test_natural_flag_files_train_on_natural_images_only():
    for name in ("fmnist_natural.flags", "cifar10_natural.flags"):
        assert parse_one(f"--flagfile={name}").round_ratio == (0, 1)


def test_the_quickstart_compares_the_original_method_with_pineat():
    assert [(c.variant, tuple(c.round_ratio)) for c in parse("--flagfile=quickstart.flags")] == [
        ("original", (1, 0)), ("pineat", (1, 1)),
    ]  # fmt: skip


def test_every_experiment_and_variant_has_a_run_directory_of_its_own_at_every_scale():
    for overlays in ((), ("--flagfile=small.flags",), ("--flagfile=smoke.flags",)):
        files = [name for name in EXPERIMENTS if name.count("_")]  # fmnist.flags is the base of fmnist_pgd.flags
        configs = [c for name in files for c in parse(f"--flagfile={name}", *overlays)]
        assert len({c.run_dir for c in configs}) == len(configs)


# ---------------------------------------------------------------- expansion of flag files


def test_arguments_without_flag_files_stay_as_they_are():
    argv = ["run", "--seed", "1", "-epsilon=0.1", "word", "--", "--flagfile=nowhere"]
    assert expand_flagfiles(argv) == argv


def test_a_bare_name_is_found_among_the_projects_own_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--epsilon=0.1" in expand_flagfiles(["--flagfile=fmnist_pgd.flags"])


def test_a_file_in_the_working_directory_wins_over_the_projects_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "fmnist_pgd.flags", "--seed=7")
    assert expand_flagfiles(["--flagfile=fmnist_pgd.flags"]) == ["--seed=7"]


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "mine.flags", "--seed=7")
    assert expand_flagfiles(["--flagfile=~/mine.flags"]) == ["--seed=7"]


@pytest.mark.parametrize("form", [["--flagfile={}"], ["--flagfile", "{}"], ["-flagfile={}"], ["-flagfile", "{}"]])
def test_every_way_to_name_a_file_puts_its_flags_in_place(tmp_path, form):
    path = write(tmp_path, "a.flags", "--seed=1", "--width=2")
    argv = ["run", "--epsilon=0.1", *(part.format(path) for part in form), "--updates=9"]
    assert expand_flagfiles(argv) == ["run", "--epsilon=0.1", "--seed=1", "--width=2", "--updates=9"]


def test_comments_blank_lines_and_space_around_flags_are_left_out(tmp_path):
    path = write(tmp_path, "a.flags", "# --seed=1", "", "// --seed=2", "   --width=3  ", " ", "\r")
    assert expand_flagfiles([f"--flagfile={path}"]) == ["--width=3"]


def test_files_name_further_files_and_the_same_file_may_come_twice(tmp_path):
    inner = write(tmp_path, "inner.flags", "--seed=1")
    middle = write(tmp_path, "middle.flags", f"--flagfile={inner}", "--seed=2")
    outer = write(tmp_path, "outer.flags", f"--flagfile={middle}", f"--flagfile={inner}")
    assert expand_flagfiles([f"--flagfile={outer}"]) == ["--seed=1", "--seed=2", "--seed=1"]


def test_what_comes_later_wins_wherever_it_stands(tmp_path):
    path = write(tmp_path, "a.flags", "--seed=1", "--seed=2")
    assert parse_one("--seed=3", f"--flagfile={path}").seed == 2
    assert parse_one(f"--flagfile={path}", "--seed=3").seed == 3


def test_an_empty_file_is_no_flags(tmp_path):
    assert expand_flagfiles([f"--flagfile={write(tmp_path, 'empty.flags')}"]) == []


def test_files_that_name_each_other_are_refused_with_the_way_round(tmp_path):
    a, b = tmp_path / "a.flags", tmp_path / "b.flags"
    write(tmp_path, "a.flags", f"--flagfile={b}")
    write(tmp_path, "b.flags", f"--flagfile={a}")
    with pytest.raises(ValueError, match="names itself: .*a.flags -> .*b.flags -> .*a.flags"):
        expand_flagfiles([f"--flagfile={a}"])


def test_a_file_that_names_itself_by_a_link_is_refused(tmp_path):
    link = tmp_path / "link.flags"
    link.symlink_to(write(tmp_path, "a.flags", f"--flagfile={link}"))
    with pytest.raises(ValueError, match="names itself"):
        expand_flagfiles([f"--flagfile={link}"])


@pytest.mark.parametrize("name", ["no_such.flags", "", "fmnist_pgd", "x" * 300, "a\0b", "no/such/folder.flags"])
def test_a_missing_file_is_refused_with_the_known_names(name):
    with pytest.raises(ValueError) as error:
        expand_flagfiles([f"--flagfile={name}"])
    assert repr(name) in str(error.value)
    assert all(known in str(error.value) for known in (*EXPERIMENTS, *OVERLAYS))


def test_a_flagfile_flag_without_a_name_is_refused():
    with pytest.raises(flags.Error, match="with no argument"):
        expand_flagfiles(["run", "--flagfile"])


def test_a_folder_is_no_flag_file(tmp_path):
    with pytest.raises(ValueError, match="no flag file"):
        expand_flagfiles([f"--flagfile={tmp_path}"])


@pytest.mark.parametrize("content", [b"--seed=1\n\xff\xfe\x00\x80", b"--output_dir=a\0b\n"])
def test_a_binary_file_is_refused(tmp_path, content):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="weights.bin.* is not a text file"):
        expand_flagfiles([f"--flagfile={path}"])


@pytest.mark.parametrize("line", ["seed=1", "--", "epsilon 0.1", "x" * 500, " --flagfile=b"])
def test_a_line_that_is_no_flag_is_refused_by_its_beginning(tmp_path, line):
    path = write(tmp_path, "a.flags", "--seed=1", line)
    with pytest.raises(ValueError, match="may hold only flags, one a line") as error:
        expand_flagfiles([f"--flagfile={path}"])
    assert repr(line.strip()[:80]) in str(error.value) and len(str(error.value)) < 500


NESTED = st.text(max_size=300).map("--flagfile={}".format)
FLAGS = st.builds("--{}={}".format, st.sampled_from([*FIELDS]), st.text(max_size=20))
LINES = st.text(max_size=40) | NESTED | FLAGS


@settings(deadline=None, max_examples=60)
@given(content=st.binary(max_size=200) | st.lists(LINES, max_size=8).map(lambda lines: "\n".join(lines).encode()))
def test_any_content_of_a_flag_file_gives_arguments_or_a_value_error(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.flags")
        path.write_bytes(content)
        try:
            expanded = expand_flagfiles([f"--flagfile={path}"])
        except (ValueError, flags.Error):
            return
        assert all(argument.startswith("-") for argument in expanded)
        try:
            parse(*expanded)
        except (ValueError, flags.Error):
            return


# ---------------------------------------------------------------- flags


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_flag_whose_help_text_names_the_choices(name):
    values = flags.FlagValues()
    command_line.define_flags(values, several=["variant"])
    help_text = values[name].help
    assert help_text.startswith(FIELDS[name].metadata["help"]) and len(help_text) > 10
    assert all(choice in help_text for choice in FIELDS[name].metadata["choices"])


def test_no_arguments_give_the_defaults():
    assert parse_one() == config.ExperimentConfig()


@pytest.mark.parametrize(
    "argument, name, value",
    [
        ("--epsilon=8/255", "epsilon", 8 / 255),
        ("--epsilon= 8 / 255 ", "epsilon", 8 / 255),
        ("--weight_decay=2e-4", "weight_decay", 2e-4),
        ("--weight_decay=0", "weight_decay", 0.0),
        ("--momentum=0", "momentum", 0.0),
        ("--step_size=1", "step_size", 1.0),
        ("--learning_rates=1/1000", "learning_rates", (0.001,)),
        ("--learning_rates=1e-3,", "learning_rates", (0.001,)),
        ("--export=", "export", ()),
        ("--export=keras", "export", ("keras",)),
        ("--export= saved_model , keras ", "export", ("saved_model", "keras")),
        ("--augment_flip", "augment_flip", True),
        ("--augment_flip=true", "augment_flip", True),
        ("--norandom_start", "random_start", False),
        ("--rs_clip=false", "rs_clip", False),
        ("--updates=4_000", "updates", 4000),
        ("--data_dir=", "data_dir", ""),
        ("--output_dir=a=b/{seed}", "output_dir", "a=b/{seed}"),
    ],
)
def test_flags_read_fractions_lists_and_booleans(argument, name, value):
    assert getattr(parse_one("--optimizer=sgd", argument), name) == value  # which has a momentum


def test_lists_of_rates_and_boundaries_go_together():
    parsed = parse_one("--learning_rates=0.1, 1/100,1e-3", "--boundaries=1_000, 2000")
    assert (parsed.learning_rates, parsed.boundaries) == ((0.1, 0.01, 0.001), (1000, 2000))


def test_a_value_may_be_an_argument_of_its_own():
    assert parse_one("--epsilon", "8/255", "-seed", "3").seed == 3


def test_several_variants_give_a_config_each_that_differ_in_nothing_else():
    first, second = parse("--variant=original, pineat", "--seed=4")
    assert (first.variant, second.variant, first.seed) == ("original", "pineat", 4)
    assert dataclasses.replace(first, variant="pineat") == second


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--epsilon=wide", "--epsilon=wide: must be a number like 0.1, 1e-4 or 8/255, not 'wide'"),
        ("--epsilon=8/0", "must be a number"),
        ("--epsilon=8/255/2", "must be a number"),
        ("--epsilon=", "must be a number"),
        ("--learning_rates=1e-3;1e-4", "must be a number like .* not '1e-3;1e-4'"),
        ("--boundaries=1.5", "must be whole numbers, not '1.5'"),
        ("--boundaries=1e3", "must be whole numbers"),
        ("--seed=one", "--seed=one"),
        ("--batch_size=1.5", "--batch_size=1.5"),
        ("--augment_flip=maybe", "--augment_flip=maybe"),
        ("--epsillon=0.1", "Unknown command line flag 'epsillon'. Did you mean: epsilon"),
        ("--nooverwrit", "Unknown command line flag 'nooverwrit'"),
        ("--seed", "Missing value for flag"),
    ],
)
def test_a_bad_value_or_an_unknown_flag_is_refused_by_name(argument, message):
    with pytest.raises(flags.Error, match=message):
        parse(argument)


@pytest.mark.parametrize("text", ["1e400", "1e999999999", "9" * 400, "inf", "nan", "-8/255", f"{'9' * 400}/3"])
@pytest.mark.parametrize("name", ["epsilon", "learning_rates"])
def test_a_number_out_of_range_is_refused_at_once(name, text):
    with pytest.raises((ValueError, flags.Error)):
        parse(f"--{name}={text}")


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from([*FIELDS]), text=st.text(max_size=12) | st.sampled_from(["{", "{seed[0]}", "0/0", "1/"]))
def test_any_text_as_a_value_gives_a_config_or_an_error_for_the_user(name, text):
    try:
        parsed = parse(f"--{name}={text}")
    except (ValueError, flags.Error):
        return
    assert all(isinstance(one, config.ExperimentConfig) for one in parsed)


# ---------------------------------------------------------------- configs as flag files

POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
PATHS = st.text("abc/._-=,#% é{{", min_size=1, max_size=12).map(lambda text: "d" + text.replace("{", "{{") + "d")


@st.composite
def configs(draw):
    rates = draw(st.lists(POSITIVE, min_size=1, max_size=4))
    boundaries = draw(st.sets(st.integers(1, 10**9), min_size=len(rates) - 1, max_size=len(rates) - 1))
    counts = {name: st.integers(1, 10**6) for name in ("batch_size", "num_steps", "eval_steps", "checkpoint_seconds")}
    floats = {name: POSITIVE for name in ("epsilon", "step_size", "wrm_gamma", "trades_beta", "adam_epsilon")}
    choices = {
        name: st.sampled_from(field.metadata["choices"])
        for name, field in FIELDS.items()
        if field.metadata["choices"] and name != "export"
    }
    bools = {name: st.booleans() for name, field in FIELDS.items() if isinstance(field.default, bool)}
    export = st.lists(st.sampled_from(FIELDS["export"].metadata["choices"]), max_size=2).map(tuple)
    drawn = draw(st.fixed_dictionaries({**counts, **floats, **choices, **bools, "export": export}))
    if drawn["attack"] == "free":  # which these say nothing to
        drawn |= {name: FIELDS[name].default for name in config.names(needs_attack=True)}
    drawn_config = config.ExperimentConfig(
        **drawn,
        seed=draw(st.integers(0, 2**32 - 1)),
        ratio=f"{draw(st.integers(0, 9))}/{draw(st.integers(1, 9))}",
        weight_decay=draw(st.floats(0, 1)),
        learning_rates=tuple(rates),
        boundaries=tuple(sorted(boundaries)),
        data_dir=draw(st.just("") | PATHS),
        output_dir=draw(PATHS),
    )
    return options.settled(drawn_config)


@settings(deadline=None, max_examples=60)
@given(original=configs())
def test_a_config_written_as_a_flag_file_reads_back_equal(original):
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, "run.flags", command_line.to_flags(original))
        assert parse_one(f"--flagfile={path}") == original


def test_a_flag_file_holds_every_field_once():
    lines = command_line.to_flags(config.ExperimentConfig()).splitlines()
    assert [line.split("=")[0] for line in lines] == [f"--{name}" for name in FIELDS]
    assert {"--random_start=true", "--augment_flip=false", "--boundaries=", "--export=keras,saved_model"} <= set(lines)


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("flag", ["--help", "--helpshort"])
def test_help_prints_every_flag_with_its_help_text_and_ends_well(capsys, flag):
    assert run.main(["run", flag]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "python -m experiments.run" in out
    for name, field in FIELDS.items():
        assert f"\n  --{name} (default: " in out
        assert field.metadata["help"] in " ".join(out.split())


def test_the_default_that_help_prints_is_the_default_that_holds(capsys):
    run.main(["run", "--helpshort"])
    printed = dict(re.findall(r"^  --(\w+) \(default: (.*)\)$", capsys.readouterr().out, flags=re.MULTILINE))
    assert printed.keys() == FIELDS.keys()
    for name, text in printed.items():
        parsed = parse_one(f"--{name}={'' if text == 'empty' else text}")
        assert getattr(parsed, name) == FIELDS[name].default


# ---------------------------------------------------------------- errors


def test_what_goes_wrong_becomes_one_line_and_an_exit_code(capsys):
    def fail(error):
        def command(argv):
            raise error

        return command_line.guarded(command, ["run"]), capsys.readouterr().err

    assert fail(ValueError("two\n  lines")) == (2, "error: two lines\n")
    code, line = fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"))
    assert code == 2 and line.count("\n") == 1 and line.endswith("or name a folder on another one.\n")
    assert line.startswith(f"error: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: 'a/b'. Free some space")
    assert fail(OSError("odd")) == (
        2, "error: odd. The operating system refused it; mend that, and run the command again.\n",
    )  # fmt: skip
    assert fail(flags.Error("no such flag")) == (2, "error: no such flag\n")
    assert fail(command_line.InterruptedRun("kept.", 143)) == (143, "interrupted: kept.\n")
    assert fail(KeyboardInterrupt()) == (130, "interrupted\n")


def test_a_mistake_of_the_program_is_not_dressed_up_as_one_of_the_user():
    def command(argv):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        command_line.guarded(command, ["run"])


def test_a_command_that_ends_well_gives_0_and_sees_its_arguments():
    seen = []
    assert command_line.guarded(seen.extend, ["run", "--a"]) == 0 and seen == ["run", "--a"]


@pytest.mark.parametrize(
    "text, line",
    [
        ("\x1b[1mbold\x1b[0m and\r\n  plain", "bold and plain"),
        ("\x1b]0;title\x07 \x9b2J \x00 \udcff", "?]0;title? ?2J ? ?"),
        ("Größe, 尺寸", "Größe, 尺寸"),
    ],
)
def test_what_an_error_quotes_does_nothing_to_the_terminal(text, line, capsys):
    def command(argv):
        raise ValueError(text)

    assert command_line.guarded(command, ["run"]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_a_check_that_fails_inside_a_graph_is_one_line(capsys):
    def command(argv):
        step = tf.function(lambda labels: check_batch(tf.zeros([2, 4]), labels, bounds=None, num_classes=3)[1])
        step(tf.constant([0, 7]))

    assert command_line.guarded(command, ["run"]) == 2
    err = capsys.readouterr().err
    assert "class numbers must lie in 0 .. 2" in err and err.startswith("error: ") and err.count("\n") == 1
