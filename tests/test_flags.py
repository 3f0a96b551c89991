"""Every flag does something: a row for each field of the config, and what must come of changing it alone."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from experiments import command_line, cost, examples, networks, options, paper
from experiments.config import ExperimentConfig, names
from experiments.datasets import load
from experiments.results import WITHOUT_EFFECT
from experiments.run import experiment
from pineat_tf import Predictor

# 16 images, 4 at once, 2 rounds of 1/1: the second round sees what the first one left.
TINY = {
    "dataset": "digits", "train_size": 16, "test_size": 8, "network": "mlp", "batch_size": 4, "updates": 4,
    "num_steps": 1, "eval_steps": 1, "learning_rates": (1e-2,), "export": ("keras",),
}  # fmt: skip
TRAINING, EVALUATION, NOTHING = "other weights", "the same weights, other figures", "the same weights and figures"


class Row(NamedTuple):
    """What a field is changed to, what must come of it, and what the run needs for the field to have a say.

    Attributes:
        atol: how far the weights and logits of a change that does nothing may lie apart; 0 for the same bits.
    """

    value: Any
    effect: str
    needs: dict = {}
    atol: float = 0.0


ROWS = {
    "dataset": Row("npz", TRAINING, {"data_dir": "mirrored.npz"}),
    "data_dir": Row("mirrored.npz", TRAINING, {"dataset": "npz", "data_dir": "digits.npz"}),
    "paper_dataset": Row("fmnist", NOTHING),
    "pools": Row("split", TRAINING),
    "train_size": Row(20, TRAINING),
    "test_size": Row(9, EVALUATION),
    "canaries": Row(8, TRAINING),
    "half": Row(1, TRAINING),
    "augment_pad": Row(1, TRAINING),
    "augment_flip": Row(True, TRAINING),
    "mixing": Row("cutmix", TRAINING),
    "network": Row("small_cnn", TRAINING),
    "width": Row(2, TRAINING),
    "activation": Row("leaky_relu", TRAINING),
    "weight_decay": Row(0.1, TRAINING),
    "decay_all": Row(True, TRAINING, {"weight_decay": 0.1}),
    "normalization": Row("group", TRAINING, {"network": "wrn8"}),
    "precision": Row("mixed_bfloat16", TRAINING),
    "attack": Row("dist", TRAINING),
    "variant": Row("advran", TRAINING),
    "ratio": Row("1/3", TRAINING),
    "epsilon": Row(0.2, TRAINING),
    "step_size": Row(0.05, TRAINING),
    "num_steps": Row(2, TRAINING),
    "random_start": Row(False, TRAINING),
    "dist_coefficient": Row(2.0, TRAINING, {"attack": "dist"}),
    "wrm_gamma": Row(0.1, TRAINING, {"attack": "wrm_l2"}),
    "trades_beta": Row(3.0, TRAINING, {"attack": "diff"}),
    "trades_detach": Row(False, TRAINING, {"attack": "diff"}),
    "objective": Row("mtl_ibp", TRAINING),
    "objective_beta": Row(1.0, TRAINING, {"objective": "mart"}),
    "ikl_period": Row(1, TRAINING, {"objective": "ikl"}),
    "defence": Row("convexconcave", TRAINING),
    "relaxloss_alpha": Row(9.0, TRAINING, {"defence": "relaxloss"}),
    "relaxloss_period": Row(2, TRAINING, {"defence": "relaxloss", "relaxloss_alpha": 9.0}),
    "convexconcave_share": Row(0.2, TRAINING, {"defence": "convexconcave"}),
    "entropy_share": Row(0.5, TRAINING, {"defence": "entropy"}),
    "entropy_weight": Row(0.5, TRAINING, {"defence": "entropy"}),
    "companion_objective": Row("cross_entropy", TRAINING, {"objective": "mart"}),
    "awp_gamma": Row(0.1, TRAINING),
    "awp_begin": Row(0.5, TRAINING, {"awp_gamma": 0.1}),
    "epsilon_ramp": Row((0.0, 1.0), TRAINING),
    "companion_scale": Row(-0.5, TRAINING, {"variant": "scaled"}),
    "companion_labels": Row("helper.keras", TRAINING, {"variant": "scaled"}),
    "ibp_natural_weight": Row(0.2, TRAINING, {"objective": "mtl_ibp"}),
    "ibp_ramp": Row((0.0, 1.0), TRAINING, {"objective": "mtl_ibp"}),
    "ibp_share": Row(0.2, TRAINING, {"objective": "mtl_ibp"}),
    "rs_bounds": Row("valid", TRAINING),
    "rs_decomposition": Row("split", TRAINING, {"ratio": "1/2", "updates": 6}),
    "rs_clip": Row(False, TRAINING, {"attack": "dist", "dist_coefficient": 10.0}),
    "generation": Row("update", TRAINING, {"ratio": "2/1", "updates": 6}),
    "order": Row("companions", TRAINING),
    "teacher_share": Row(0.5, TRAINING),
    "teacher_momentum": Row(0.0, TRAINING, {"teacher_share": 0.5}),  # the teacher warms up: at first at most 0.1
    "label_smoothing": Row(0.1, TRAINING),
    "dp_noise": Row(1.0, TRAINING),
    "dp_clip": Row(0.1, TRAINING, {"dp_noise": 1.0}),
    "dp_delta": Row(1e-4, EVALUATION, {"dp_noise": 1.0}),  # the epsilon that is spent
    "updates": Row(6, TRAINING),
    "schedule_scale": Row(0.5, TRAINING),
    "batch_size": Row(5, TRAINING),
    "strategy": Row("mirrored", NOTHING, atol=1e-5),
    "optimizer": Row("sgd", TRAINING),
    "learning_rates": Row((2e-2,), TRAINING),
    "boundaries": Row((3,), TRAINING, {"learning_rates": (1e-2, 1e-3), "boundaries": (1,)}),
    "adam_epsilon": Row(1e-2, TRAINING),
    "momentum": Row(0.0, TRAINING, {"optimizer": "sgd"}),
    "ema_momentum": Row(0.9, TRAINING),
    "seed": Row(1, TRAINING),
    "deterministic": Row(False, NOTHING),
    "eval_epsilon": Row(0.3, EVALUATION),
    "eval_steps": Row(2, EVALUATION),
    "eval_batch_size": Row(125, NOTHING, atol=1e-5),  # a few at once are summed in another order on some CPUs
    "eval_precision": Row("mixed_bfloat16", EVALUATION),
    "verify": Row(True, EVALUATION),
    "output_dir": Row("elsewhere", NOTHING),
    "overwrite": Row(True, NOTHING),
    "resume": Row(True, NOTHING),
    "export": Row(("keras",), NOTHING, {"export": ("keras", "saved_model")}),
    "checkpoint_seconds": Row(0, NOTHING),
}
"""A field of the config -> how it is tried. A field that comes in needs a row."""


class Run(NamedTuple):
    """What a run leaves, and what it asked for on the way."""

    folder: pathlib.Path
    weights: list[np.ndarray]
    predictions: list[np.ndarray]
    metrics: dict
    deterministic: bool
    images_at_once: set[int]

    def leaves_what(self, other, *, atol: float) -> bool:
        """Whether the other run ended in the same figures, but for times and for what the flags are said to be."""
        ours, theirs = (
            {name: value for name, value in run.metrics.items() if name not in ("hours", "seconds", "flags")}
            for run in (self, other)
        )
        return ours == theirs and alike(self.predictions, other.predictions, atol)


def alike(ours, theirs, atol=0.0):
    """Whether two lists of arrays are the same, up to `atol`."""
    shapes = [[array.shape for array in arrays] for arrays in (ours, theirs)]
    return shapes[0] == shapes[1] and all(np.allclose(a, b, rtol=0.0, atol=atol) for a, b in zip(ours, theirs))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a config once, operation by operation: to compile its graphs would take longer than all else.

    What is only printed or drawn is left out, as it would be most of the time that is left.
    """
    root, done = tmp_path_factory.mktemp("flags"), {}
    asked_for = {"deterministic": [], "sizes": []}

    def run(**fields) -> Run:
        config = ExperimentConfig(**{**TINY, "output_dir": "anywhere", **fields})
        if config not in done:
            for calls in asked_for.values():
                calls.clear()
            placed = dataclasses.replace(config, output_dir=fields.get("output_dir", f"run{len(done)}"))
            experiment(placed)
            done[config] = _left_by(placed, asked_for)
        return done[config]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        _write_npz_files()
        _write_helper()
        _watch(patch, asked_for)
        tf.config.run_functions_eagerly(True)
        try:
            yield run
        finally:
            tf.config.run_functions_eagerly(False)


def _write_npz_files():
    x, y = load("digits").train
    for name, images in (("digits", x), ("mirrored", x[:, :, ::-1])):
        np.savez(f"{name}.npz", x_train=images[:40], y_train=y[:40], x_test=images[40:60], y_test=y[40:60])


def _write_helper():
    keras.utils.set_random_seed(7)
    networks.build("mlp", input_shape=(8, 8, 1), num_classes=10).save("helper.keras")


def _watch(patch, asked_for):
    predict = Predictor.__call__

    def watched(self, *args, **options):
        asked_for["sizes"].append(options["batch_size"])
        return predict(self, *args, **options)

    patch.setattr(Predictor, "__call__", watched)
    # Asked for once, it would hold for all tests to come.
    patch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked_for["deterministic"].append(True))
    patch.setattr(cost, "estimate", lambda *_: "")
    patch.setattr(examples, "write", lambda *_: None)


def _left_by(config, asked_for):
    folder = pathlib.Path(config.run_dir)
    with np.load(folder / "predictions.npz") as arrays:
        predictions = [arrays[name] for name in sorted(arrays)]
    return Run(
        folder.resolve(),
        keras.models.load_model(folder / "network.keras").get_weights(),
        predictions,
        json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        bool(asked_for["deterministic"]),
        set(asked_for["sizes"]),
    )


def test_every_field_has_a_row():
    assert list(ROWS) == [field.name for field in dataclasses.fields(ExperimentConfig)]


@pytest.mark.parametrize("name", ROWS)
def test_changing_a_field_alone_changes_what_it_is_to_change(run, name):
    row = ROWS[name]
    before, after = run(**row.needs), run(**{**row.needs, name: row.value})
    if row.effect == TRAINING:
        assert not alike(before.weights, after.weights)
    elif row.effect == EVALUATION:
        assert alike(before.weights, after.weights) and not before.leaves_what(after, atol=row.atol)
    else:
        assert alike(before.weights, after.weights, row.atol) and before.leaves_what(after, atol=row.atol)


@pytest.mark.parametrize("name", [name for name in ROWS if name not in (*names(recorded=False), "output_dir")])
def test_the_record_says_what_a_field_was(run, name):
    value = ROWS[name].value
    recorded = run(**{**ROWS[name].needs, name: value}).metrics["flags"][name]
    assert recorded == (list(value) if isinstance(value, tuple) else value)


def _read(fields):
    return command_line.configs_of_seeds(
        [f"--{name}={command_line.text(value)}" for name, value in fields.items()], [0]
    )


NEEDS = {field.name: field.metadata["needs"] for field in dataclasses.fields(ExperimentConfig)}
IDLE = {
    **{name: {} for name in NEEDS if any(not ROWS[name].needs.keys().isdisjoint(needs) for needs in NEEDS[name])},
    "rs_clip": {"variant": "advran", "attack": "dist"},
    "companion_objective": {"variant": "original", "objective": "mart"},
    "label_smoothing": {"variant": "original", "objective": "ibp"},
    "objective": {"variant": "natural"},
    "epsilon_ramp": {"variant": "natural"},
    "generation": {"variant": "natural", "ratio": "2/1"},
    "order": {"variant": "original"},
    "adam_epsilon": {"optimizer": "sgd"},
}
"""What a run has in which a field has no effect."""


@pytest.mark.parametrize("name", IDLE)
def test_a_field_that_has_no_effect_in_a_run_is_refused(name):
    row = ROWS[name]
    (config,) = _read(row.needs | {name: row.value})
    assert options.settled(config) == config and getattr(config, name) == row.value
    with pytest.raises(ValueError, match=f"`{name}` has no effect with .* Received: {name}=") as error:
        _read(IDLE[name] | {name: row.value})
    assert any(f"let `{owner}` be" in str(error.value) for needs in NEEDS[name] for owner in needs)


@pytest.mark.parametrize("name", [name for name, around in IDLE.items() if around])
def test_what_is_refused_has_no_effect_indeed(run, name):
    value = "score" if name == "objective" else ROWS[name].value  # which has an attack of its own
    before, after = run(**IDLE[name]), run(**IDLE[name], **{name: value})
    assert alike(before.weights, after.weights) and before.leaves_what(after, atol=0.0)


def test_every_field_belongs_to_fields_and_values_that_there_are():
    fields = ExperimentConfig.__dataclass_fields__
    for owner, values in [need for needs in NEEDS.values() for one in needs for need in one.items()]:
        assert set(values) <= set(fields[owner].metadata["choices"])
        assert values or isinstance(fields[owner].default, float)


def test_the_default_takes_the_place_of_what_has_no_effect_and_of_what_that_was_for():
    fields = {"objective": "mart", "companion_objective": "cross_entropy", "label_smoothing": 0.1}
    config = ExperimentConfig(variant="original", objective_beta=3.0, epsilon=0.2, **fields)
    assert options.settled(config) == ExperimentConfig(
        variant="original", objective_beta=3.0, epsilon=0.2, objective="mart"
    )


def test_what_is_switched_off_by_name_keeps_its_fields():
    assert _read({"awp_gamma": 0, "awp_begin": 0.05})[0].awp_begin == 0.05


def test_a_field_that_one_of_several_variants_uses_is_taken():
    values = flags.FlagValues()
    command_line.define_flags(values, several=["variant"])
    values(["run", "--variant=original,scaled", "--companion_scale=3"])
    assert [config.companion_scale for config in command_line.configs_from(values, several="variant")] == [3.0, 3.0]


def test_runs_are_told_apart_by_every_flag_that_changes_a_figure():
    idle = {name for name, row in ROWS.items() if row.effect == NOTHING and not row.atol}
    assert set(WITHOUT_EFFECT) - {"data_dir"} == idle - {"deterministic"}


def test_what_changes_no_figure_says_where_results_go_and_how(run):
    default = run()
    assert run(output_dir="elsewhere").folder.name == "elsewhere" != default.folder.name
    both, one = run(export=("keras", "saved_model")).folder, run(export=("keras",)).folder
    assert {path.name for path in both.iterdir()} - {path.name for path in one.iterdir()} == {"saved_model"}


def test_checkpoints_are_kept_as_often_as_asked(run):
    def kept(folder):
        return sorted(path.name for path in (folder / "checkpoints").glob("*.index"))

    assert kept(run().folder) == ["ckpt-4.index"]
    assert kept(run(checkpoint_seconds=0).folder) == ["ckpt-2.index", "ckpt-4.index"]


def test_determinism_and_the_images_predicted_at_once_are_what_was_asked_for(run):
    assert run().deterministic and not run(deterministic=False).deterministic
    assert run().images_at_once == {ExperimentConfig.eval_batch_size} and run(eval_batch_size=3).images_at_once == {3}


def test_a_finished_run_is_run_again_only_to_overwrite_it(run):
    folder = run().folder
    config = ExperimentConfig(**TINY, output_dir=folder.name)
    written = (folder / "metrics.json").stat().st_mtime_ns
    with pytest.raises(ValueError, match="--overwrite"):
        experiment(config)
    experiment(dataclasses.replace(config, resume=True))
    assert (folder / "metrics.json").stat().st_mtime_ns == written
    experiment(dataclasses.replace(config, overwrite=True))
    assert (folder / "metrics.json").stat().st_mtime_ns > written


def test_figures_of_the_paper_are_shown_beside_images_that_are_said_to_be_its_own():
    config = ExperimentConfig(dataset="npz", variant="natural")
    assert paper.paper_row(config) is None
    assert paper.paper_row(dataclasses.replace(config, paper_dataset="fmnist"))["a_test"] > 0.5
