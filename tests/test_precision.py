"""Training in bfloat16: as robust, judged in float32, as training in float32 is."""

import json

import keras
import numpy as np
import pytest

import pineat_tf as pt
from experiments import datasets, networks, run
from experiments.config import ExperimentConfig

SEEDS = range(3)
EPSILON = 0.15


def build(precision, network="small_cnn"):
    return networks.build(network, input_shape=(8, 8, 1), num_classes=10, precision=precision)


def robust_accuracy(precision, seed, data):
    """Of a network trained in `precision` and attacked in float32."""
    keras.utils.set_random_seed(seed)
    network = build(precision, "mlp")
    model = pt.AdversarialTraining(
        network,
        attack=pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=4),
        companions=pt.companions.ReverseSymmetry(epsilon=EPSILON),
        ratio="1/1",
        seed=seed,
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    batches = datasets.training_batches(data.train, batch_size=50, seed=seed, first_round=0, num_rounds=250)
    model.fit(batches, verbose=0)
    judged = build("float32", "mlp")
    judged.set_weights(network.get_weights())
    attack = pt.attacks.pgd(epsilon=EPSILON, step_size=0.0375, num_steps=10, random_start=False)
    return pt.predict_logits(judged, tuple(data.test), attack=attack).accuracy


def test_robust_accuracy_is_that_of_float32_within_the_noise_of_seeds():
    data = datasets.load("digits", train_size=800, test_size=500)
    by_precision = [[robust_accuracy(p, seed, data) for seed in SEEDS] for p in ("float32", "mixed_bfloat16")]
    means = np.mean(by_precision, axis=1)
    error = np.sqrt(np.sum(np.var(by_precision, axis=1, ddof=1)) / len(SEEDS))
    assert means.min() > 0.5  # natural training stays below 0.2
    assert abs(means[0] - means[1]) < 3 * max(error, 0.01), f"{by_precision}"


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_runner_judges_in_the_precision_that_it_is_told(precision, tmp_path):
    config = ExperimentConfig(
        dataset="digits", network="small_cnn", train_size=60, test_size=40, batch_size=20, updates=4, num_steps=2,
        eval_steps=2, eval_batch_size=20, precision="mixed_bfloat16", eval_precision=precision, export=("keras",),
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    run.experiment(config)
    shipped = keras.models.load_model(tmp_path / "run" / "network.keras")
    judged = build(precision)
    judged.set_weights(shipped.get_weights())
    images = datasets.load("digits", train_size=60, test_size=40, pools_seed=0).test.images
    wanted = judged.predict(images, batch_size=20, verbose=0)
    with np.load(tmp_path / "run" / "predictions.npz") as file:
        np.testing.assert_allclose(file["logits_test_benign"], wanted, atol=1e-5)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["flags"]["eval_precision"] == precision
