"""Shadow models: their configs, and what each says of every example of the pool, under every kind of query."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import pineat_tf as pt
from experiments import datasets, files, method, progress, stored
from experiments.config import ExperimentConfig
from experiments.datasets.reading import read_arrays
from experiments.results import WITHOUT_EFFECT, Runs
from experiments.sweep.executors import Job
from experiments.sweep.grid import Row

_ABOUT = ("in_mask", "labels", "is_canary")  # of the pool, beside what a model says of it
_NETWORK = "network.keras"


class Answers(NamedTuple):
    """What the shadow models of one row say of the pool.

    Attributes:
        in_mask: whether a model was trained on an example, booleans of shape `(num_models, num)`.
        labels: classes that models are trained on, shape `(num,)`.
        is_canary: which of them are wrong on purpose, booleans of shape `(num,)`.
        logits: by kind of query, each of shape `(num_models, num, num_classes)`.
    """

    in_mask: np.ndarray
    labels: np.ndarray
    is_canary: np.ndarray
    logits: dict[str, np.ndarray]


class Shadows:
    """The shadow models of a row: each trained on a half of its own, with a seed of its own.

    Args:
        row: the method; its first config says all but the half.
        num_models: how many there are.
        directory: where their answers are kept, a file a model.
    """

    def __init__(self, row: Row, num_models: int, directory: pathlib.Path):
        base = row.configs[0]
        self.row = row
        self.configs = [
            dataclasses.replace(
                base,
                half=number,
                seed=base.seed + number,
                export=("keras",),
                output_dir=f"{pathlib.Path(base.run_dir).parent}/{row.slug}-half{number}",
            )
            for number in range(num_models)
        ]
        self.paths = [directory / f"{row.slug}-half{number}.npz" for number in range(num_models)]

    def pending(self, runs: Runs) -> list[Job]:
        """The models that are neither trained nor asked yet, and those whose figures were not recorded.

        Raises:
            ValueError: if a file of what one said lacks a kind of query, or is of a model with other flags.
        """
        names = list(method.queries(self.configs[0]))
        for config, path in zip(self.configs, self.paths):
            if path.exists():
                _check(path, config, names)
        return [
            Job(pathlib.Path(config.run_dir).name, config, self.row.group, self.row.label)
            for config, path in zip(self.configs, self.paths)
            if runs.find(config) is None or not (path.exists() or _network_file(config).exists())
        ]

    def unasked(self) -> list[tuple[ExperimentConfig, pathlib.Path]]:
        """The models that are trained and have not been asked, with where their answers will be."""
        pairs = zip(self.configs, self.paths)
        return [(config, path) for config, path in pairs if not path.exists() and _network_file(config).exists()]

    def ask(self) -> None:
        """Shows every trained model all queries of the whole pool and keeps what it says, model by model."""
        unasked = self.unasked()
        if not unasked:
            return
        config = unasked[0][0]
        pool = method.pool(config)
        images = pool.data.train.images
        network = method.network(
            config,
            input_shape=images.shape[1:],
            num_classes=pool.data.num_classes,
            precision=config.eval_precision or config.precision,
        )
        predictors = {
            name: pt.Predictor(pt.accelerate.compute_twin(network), query)
            for name, query in method.queries(config).items()
        }
        total = len(unasked) * len(predictors) * len(images)
        with progress.bar(total=total, unit=" images", desc=f"queries, {self.row.title}") as bar:
            for config, path in unasked:
                network.set_weights(stored.load_network(str(_network_file(config))).get_weights())
                _write(path, config, pool, predictors, bar)

    def answers(self) -> Answers:
        """What the models said.

        Raises:
            ValueError: if a model has not been asked, or its file is not whole.
        """
        missing = [path.name for path in self.paths if not path.exists()]
        if missing:
            raise ValueError(f"{len(missing)} shadow models of {self.row.title!r} lack answers, {missing[0]} first")
        names = list(method.queries(self.configs[0]))
        for config, path in zip(self.configs, self.paths):
            _check(path, config, names)
        read = [read_arrays(str(path), {*_ABOUT, *names}) for path in self.paths]
        return Answers(
            in_mask=np.stack([arrays["in_mask"] for arrays in read]),
            labels=read[0]["labels"],
            is_canary=read[0]["is_canary"],
            logits={name: np.stack([arrays[name] for arrays in read]) for name in names},
        )


def _network_file(config: ExperimentConfig) -> pathlib.Path:
    return pathlib.Path(config.run_dir, _NETWORK)


def _write(
    path: pathlib.Path,
    config: ExperimentConfig,
    pool: method.Pool,
    predictors: dict[str, pt.Predictor],
    bar: progress.Bar,
) -> None:
    train = pool.data.train
    in_mask = datasets.random_half(len(train.labels), config.half)
    answers = {"in_mask": in_mask, "labels": train.labels, "is_canary": pool.is_canary, "flags": _digest(config)}
    for name, predict in predictors.items():
        predicted = predict(tuple(train), seed=config.seed, batch_size=config.eval_batch_size, on_batch=bar.update)
        answers[name] = predicted.logits
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **answers)


def _check(path: pathlib.Path, config: ExperimentConfig, names: Sequence[str]) -> None:
    """Raises `ValueError` unless the file holds all that this model has to say; reads only its flags."""
    wanted = {*_ABOUT, "flags", *names}
    arrays = read_arrays(str(path), ("flags",))
    if arrays.keys() != wanted:
        raise ValueError(
            f"{str(path)!r} lacks {sorted(wanted - arrays.keys())}. Remove it and its model is asked again."
        )
    digest = _digest(config)  # of flags alone, where the data are not here
    if not np.array_equal(arrays["flags"].ravel()[: len(digest)], digest):
        raise ValueError(
            f"{str(path)!r} is of a model with other flags, or of other data. Remove it, or name another --output_dir."
        )


def _digest(config: ExperimentConfig) -> np.ndarray:
    """What tells models apart, as an array: by flags, then by data whose content is not known by their name."""
    by_flags = _hashed(json.dumps(config.to_dict(without=WITHOUT_EFFECT), sort_keys=True))
    content = fingerprint(config)
    return np.concatenate([by_flags, _hashed(content)]) if content else by_flags


def fingerprint(config: ExperimentConfig) -> str:
    """What tells a row's data by their content; empty for those that are known by their name, or are not here."""
    try:
        return method.data_fingerprint(config)
    except (OSError, ValueError):
        return ""


def _hashed(text: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
