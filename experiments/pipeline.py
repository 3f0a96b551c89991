"""The stages of a run, each a function of values: `method.data`, `session.build`, then train, evaluate, write."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np

import pineat_tf as pt
from experiments import (
    cost,
    datasets,
    distribution,
    examples,
    export,
    files,
    machine,
    method,
    networks,
    progress,
    results,
    tracking,
)
from experiments import session as sessions
from experiments.audit import QUERIES
from experiments.config import ExperimentConfig, names
from experiments.session import Session

METRICS, PREDICTIONS, HISTORY, EXAMPLES = results.METRICS, "predictions.npz", "history.csv", "examples.png"
_ROUND_OF_WORKERS = 60.0  # seconds; those who end without a checkpoint after a signal have lost about as much


class Evaluation(NamedTuple):
    """The findings of the evaluation.

    Attributes:
        predictions: by kind of input, then by split: `predictions["natural"]["train"]`.
        report: accuracy, robustness and leakage.
        seconds: that it took.
    """

    predictions: dict[str, dict[str, pt.Predictions]]
    report: pt.Report
    seconds: float


def train(session: Session, directory: pathlib.Path) -> float:
    """Trains to the end, from the last checkpoint in `directory` if there is one; gives the seconds it took in all.

    Raises:
        ValueError: if training diverges or a checkpoint is damaged.
        InterruptedRun: if a signal comes; the checkpoint is kept.
    """
    model, clock = session.model, tracking.Clock()
    checkpoints = tracking.Checkpoints(model, directory / "checkpoints", session.config.checkpoint_seconds, clock)
    if checkpoints.restore():
        print(f"Going on from update {tracking.updates_done(model)}.")
    distribution.follow_chief(model)
    if session.rounds_done < session.plan.rounds:
        print(cost.estimate(session), flush=True)
    clock.start()
    history = tracking.History(directory / HISTORY, tracking.updates_done(model), clock)
    bar, stop = session.bar(), tracking.StopOnSignal(checkpoints)
    patience = _ROUND_OF_WORKERS if distribution.has_workers(model.distribute_strategy) else None
    tensorboard = keras.callbacks.TensorBoard(str(directory / "tensorboard"), write_graph=False)
    callbacks = [tracking.StopOnDivergence(model.network), bar, history, tensorboard, checkpoints, stop]
    with _divergence_placed(session, checkpoints), stop.listening(patience), contextlib.closing(bar):
        session.fit(callbacks)
        stop.end_if_told()
        checkpoints.save()
    model.optimizer.finalize_variable_values(model.trainable_variables)  # the averages, if it keeps any
    return clock.seconds


def follow(session: Session) -> None:
    """Trains with the chief, step by step what `train` does there, and keeps nothing."""
    distribution.follow_chief(session.model)
    if session.rounds_done < session.plan.rounds:
        cost.measure(session)
    session.fit([])


def watch(
    config: ExperimentConfig, callbacks: Callable[[datasets.Dataset], Sequence[keras.callbacks.Callback]]
) -> pt.AdversarialTraining:
    """Trains and keeps nothing: for those who look at the training itself.

    Args:
        config: of the run, on one device.
        callbacks: gives what listens, once the data is known.

    Returns:
        The trained model.
    """
    session = sessions.build(config, method.data(config))
    print(cost.estimate(session), flush=True)
    bar = session.bar()
    with contextlib.closing(bar):
        session.fit([tracking.StopOnDivergence(session.model.network), bar, *callbacks(session.data)])
    return session.model


def evaluate(session: Session) -> Evaluation:
    """Predicts members and non-members, natural and attacked, and judges the predictions."""
    begun, config, data = time.monotonic(), session.config, session.data
    of_precision = _in_evaluation_precision(session)
    network = pt.accelerate.compute_twin(of_precision)
    attacks = {"natural": None, "adversarial": method.evaluation_attack(config)}
    splits = {"train": data.train, "test": data.test}
    predictions: dict[str, dict] = {}
    total = len(attacks) * sum(len(split.labels) for split in splits.values())
    with progress.bar(total=total, unit=" images", desc="evaluation") as bar:
        for queries, attack in attacks.items():
            predict = pt.Predictor(network, attack)
            predictions[queries] = {
                name: predict(tuple(split), batch_size=config.eval_batch_size, on_batch=bar.update)
                for name, split in splits.items()
            }
    figures = {
        queries: pt.report.QueryFigures.from_predictions(by_split["train"], by_split["test"], queries)
        for queries, by_split in predictions.items()
    }
    verification = None
    if config.verify:
        images = tuple(data.test)
        verification = pt.verify(of_precision, images, config.evaluation_epsilon, batch_size=config.eval_batch_size)
        robust = figures["adversarial"].test_accuracy
        pt.verification.check_not_below_proof(of_precision, attacks["adversarial"], robust, verification)
    report = pt.Report(**figures, verification=verification)
    return Evaluation(predictions, report, time.monotonic() - begun)


def write(session: Session, evaluation: Evaluation, directory: pathlib.Path, seconds: float) -> dict:
    """Writes predictions, examples, the network and, last, metrics.json, whose contents it gives.

    Args:
        session: after training.
        evaluation: of its network.
        directory: of the results.
        seconds: that training took.
    """
    metrics = _metrics(session, evaluation, seconds)
    _write_predictions(directory / PREDICTIONS, evaluation.predictions)
    network = session.model.network
    examples.write(directory / EXAMPLES, session.config, network, session.data.train)
    export.export(network, directory, session.config.export, images=session.data.train.images)
    files.write_json(directory / METRICS, metrics)
    return metrics


def _in_evaluation_precision(session: Session) -> keras.Model:
    """The network, or its twin of the same weights in another precision."""
    config, network = session.config, session.model.network
    if config.eval_precision in ("", config.precision):
        return network
    twin = sessions.network(config, session.data, config.eval_precision)
    twin.set_weights(network.get_weights())
    return twin


@contextlib.contextmanager
def _divergence_placed(session: Session, checkpoints: tracking.Checkpoints) -> Iterator[None]:
    """Says of a divergence where in training it was, and what is left."""
    try:
        yield
    except tracking.Diverged as error:
        kept = checkpoints.updates()
        checkpoint = f"the checkpoint of update {kept[-1]:,} is kept" if kept else "there is no checkpoint before it"
        raise ValueError(
            f"training diverged: {error} in {session.plan.place(session.rounds_done)}; {checkpoint}. Give smaller "
            "--learning_rates, with --overwrite or another --output_dir."
        ) from error


def _metrics(session: Session, evaluation: Evaluation, seconds: float) -> dict:
    config, data, rounds = session.config, session.data, session.rounds_done
    cost_of_round, network = method.round_cost(config), session.model.network
    return {
        **evaluation.report.to_dict(),
        **({"epsilon_spent": session.model.epsilon_spent} if config.dp_noise else {}),
        "hours": seconds / 3600,
        "seconds": {"training": round(seconds, 1), "evaluation": round(evaluation.seconds, 1)},
        "data": {
            "name": data.name,
            "num_members": len(data.train.labels),
            "num_non_members": len(data.test.labels),
            "fingerprint": method.data_fingerprint(config),
        },
        "cost": {
            "rounds": rounds,
            "updates": rounds * session.plan.updates_per_round,
            "gradient_passes": rounds * cost_of_round.gradients,
            "forward_units": rounds * cost_of_round.forwards,
            "parameters": network.count_params(),
            "flops_per_forward": networks.forward_flops(network),
        },
        "flags": config.to_dict(without=(*names(recorded=False), "output_dir")),
        "machine": machine.description(),
        "versions": machine.versions(),
    }


def _write_predictions(path: pathlib.Path, predictions: dict[str, dict]) -> None:
    arrays = {f"{split}_label": predictions["natural"][split].labels for split in ("train", "test")}
    for queries, by_split in predictions.items():
        for split, predicted in by_split.items():
            arrays[f"logits_{split}_{QUERIES[queries]}"] = predicted.logits
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
