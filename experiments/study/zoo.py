"""Makes an entry of the zoo out of a finished run: the network in a small file, and a card of what is measured of it.

    python -m experiments.study.zoo runs/fmnist-pgd-pineat-1-1-seed0 --name=fmnist/pineat-1-1-w1 \\
        --sentence="PINEAT-1/1 by PGD, the study's scale." --shadow="PGD PINEAT-1/1"

All figures are measured anew, of the very file: accuracy and leakage of all members and non-members, natural and under
the run's PGD; what AutoAttack leaves of the first test images; what interval bounds prove.
"""

import hashlib
import io
import pathlib
import re
import sys
import zipfile
from typing import Any

import h5py
import keras
import numpy as np
from absl import flags

import pineat_tf as pt
from experiments import command_line, compare, files, machine, method, session, stored
from experiments.audit import networks as audited
from experiments.config import ExperimentConfig, names
from experiments.datasets import Dataset, Split
from experiments.shadow import outputs as shadow_studies
from pineat_tf.checks import check_choice, check_count
from pineat_tf.membership import audit_predictions
from pineat_tf.presentation import floor_of_p_max
from pineat_tf.statistics import clopper_pearson

ROOT = pathlib.Path(__file__).parents[2]
NUM_CHECKED = 500
"""The first test images, of which a card holds how many are right, so that tests can tell if they still are."""

_WEIGHTS = ("float16", "float32")
_SHADOW_STUDY = ROOT / "experiments" / "study" / "results" / "shadow_fmnist" / "shadow.json"
_SHADOW_ATTACKERS = ("RMIA online", "LiRA online, fixed variance")
_LICENCES = {
    "fmnist": "MIT (Zalando)",
    "digits": "CC BY 4.0 (Alpaydin and Kaynak, UCI)",
    "cifar10": "none stated by its authors",
}
_POOLS = {
    "exchangeable": "members and non-members are drawn from the training split, by the seed (experiments.datasets)",
    "split": "members are of the training split, non-members of the test split (experiments.datasets); that these "
    "differ adds to P",
}
_LIMITS = (
    "One network of one seed, trained for research; no basis for decisions about people.",
    "Robustness is that against the attacks named here, at this radius and norm; other changes of images are untested.",
    "P is in-sample, by one threshold for all; attackers with shadow models find more.",
)


def make(
    run: pathlib.Path,
    path: pathlib.Path,
    *,
    sentence: str,
    weights: str = "float16",
    num_attacked: int = 1000,
    limits: tuple[str, ...] = (),
    shadow: str = "",
) -> dict:
    """Writes the network of a run to `path`.keras and its card to `path`.json; gives the card.

    Args:
        run: directory of a finished run.
        path: of both files, without their endings.
        sentence: what the network is.
        weights: how the file holds them; the network computes in float32.
        num_attacked: how many of the first test images AutoAttack attacks.
        limits: what else it is not good for.
        shadow: title of the method among the study's shadow models; empty for none.

    Raises:
        ValueError: if the run has no network as `.keras`, or its data are not here.
    """
    (record,) = compare.read(run)
    config: ExperimentConfig = record["config"]
    data = method.data(config)
    network = session.network(config, data, "float32")
    network.set_weights(stored.load_network(str(run / "network.keras")).get_weights())
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_suffix(".keras")
    save(network, file, weights)
    network = keras.saving.load_model(file, compile=False)
    card = {
        "sentence": sentence,
        "data": _data(config, data),
        "training": {
            "seed": config.seed,
            "flags": config.to_dict(without=(*names(recorded=False), "output_dir", "data_dir", "export")),
            "forward_passes_of_100_images": round(record["cost.forward_units"] * config.batch_size / 100),
            "minutes": round(record["seconds.training"] / 60, 1),
            "parameters": network.count_params(),
        },
        **figures(network, config, data, num_attacked, state_path=f"{path}.unfinished"),
        "shadow": _shadow(shadow) if shadow else None,
        "licence": f"MIT; the images: {_LICENCES.get(data.name, 'as their owner says')}",
        "limits": [*_LIMITS, *limits],
        "versions": {"measured": machine.versions(), "trained": _trained_with(record)},
        "file": {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "bytes": file.stat().st_size,
            "weights": weights,
        },
    }
    files.write_json(path.with_suffix(".json"), card)
    return card


def save(network: keras.Model, path: pathlib.Path, weights: str) -> None:
    """Writes a network whose file holds weights of another type, which plain Keras casts when it loads them.

    Raises:
        ValueError: if a weight is too large for the type.
    """
    with files.replacing(path) as temporary:
        network.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        content["model.weights.h5"] = _cast(content["model.weights.h5"], weights)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in content.items():
                archive.writestr(name, part)


def _cast(content: bytes, dtype: str) -> bytes:
    """An HDF5 file with its floating point numbers in another type."""
    written = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r") as source, h5py.File(written, "w") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                made = target.require_group(name)
            else:
                values = item[()]
                if np.issubdtype(values.dtype, np.floating):
                    with np.errstate(over="ignore"):
                        values = values.astype(dtype)
                    if not np.isfinite(values).all():
                        raise ValueError(f"weights of {name} are too large for --weights={dtype}. Give float32.")
                made = target.create_dataset(name, data=values)
            made.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    return written.getvalue()


def figures(
    network: keras.Model, config: ExperimentConfig, data: Dataset, num_attacked: int, *, state_path: str | None = None
) -> dict[str, Any]:
    """What is measured of a network: "threat", "figures", "noise_floor", "robustness" and "check" of its card."""
    epsilon, attack = config.evaluation_epsilon, method.evaluation_attack(config)
    twin = pt.accelerate.compute_twin(network)
    of_ensemble = audited.Attacks(0.0, config.eval_steps, (epsilon,), num_attacked, "linf", (0.0, 1.0))
    ensemble = audited.robustness_left(twin, data.test, of_ensemble, state_path)
    seen = {
        queries: [pt.predict_logits(twin, tuple(split), attack=by, batch_size=250) for split in (data.train, data.test)]
        for queries, by in (("natural", None), ("adversarial", attack))
    }
    report = pt.Report(
        **{queries: pt.report.QueryFigures.from_predictions(*pair, queries) for queries, pair in seen.items()},
        robustness=ensemble,
    )
    shares = {"a": "natural", "r": "adversarial"}
    found = {
        f"{letter}_{part}": _share(predicted)
        for letter, queries in shares.items()
        for part, predicted in zip(("train", "test"), seen[queries])
    }
    leaks = {"p_e_nat": "natural", "p_e_adv": "adversarial"}
    found |= {name: _leakage(*seen[queries], queries) for name, queries in leaks.items()}
    found["p_max"] = max(found["p_e_nat"], found["p_e_adv"], key=lambda figure: figure["value"])
    found["v_test"] = _verified(network, data.test, epsilon)
    floor = report.noise_floor._asdict() | {"p_max_upper_95": floor_of_p_max(report)}
    threat = {"norm": "linf", "epsilon": epsilon, "steps": config.eval_steps, "bounds": [0.0, 1.0]}
    record = {"threat": threat, "figures": found, "noise_floor": floor, "robustness": ensemble.to_dict()}
    return record | {"check": check(network, config, data.test)}


def check(network: keras.Model, config: ExperimentConfig, test: Split) -> dict[str, int]:
    """How many of the first test images are right, natural and under the card's attack."""
    first = tuple(array[:NUM_CHECKED] for array in test)
    right = {
        name: round(pt.predict_logits(network, first, attack=attack).accuracy * len(first[1]))
        for name, attack in (("natural_right", None), ("attacked_right", method.evaluation_attack(config)))
    }
    return {"num": len(first[1]), **right}


def _share(predicted: pt.Predictions) -> dict[str, float]:
    num = len(predicted.labels)
    return _with_ends(predicted.accuracy, clopper_pearson(round(predicted.accuracy * num), num))


def _leakage(members: pt.Predictions, non_members: pt.Predictions, queries: str) -> dict[str, float]:
    (result,) = audit_predictions(members, non_members, queries=queries, signals="cross_entropy", num_bootstrap=100)
    return _with_ends(result.balanced_accuracy, result.intervals["balanced_accuracy"])


def _verified(network: keras.Model, test: Split, epsilon: float) -> dict[str, float] | None:
    try:
        proved = pt.verify(network, tuple(test), epsilon)
    except ValueError:  # a layer without a rule
        return None
    return _with_ends(proved.accuracy, proved.interval())


def _with_ends(value: float, ends: tuple[float, float]) -> dict[str, float]:
    return {name: round(number, 6) for name, number in zip(("value", "low", "high"), (value, *ends))}


def _data(config: ExperimentConfig, data: Dataset) -> dict[str, Any]:
    return {
        "name": data.name,
        "shape": list(data.train.images.shape[1:]),
        "num_classes": data.num_classes,
        "range": [0.0, 1.0],
        "num_members": len(data.train.labels),
        "num_non_members": len(data.test.labels),
        "split": _POOLS[config.pools],
    }


def _shadow(title: str) -> dict[str, Any]:
    """What attackers with shadow models learn of this method in the study: of its networks, not of this one."""
    studies = shadow_studies.read(_SHADOW_STUDY)
    check_choice("shadow", title, tuple(title for title, study in studies.items() if study.leakage))
    lines = shadow_studies.frame([studies[title]])
    lines = lines[(lines["queries"] == "natural") & (lines["examples"] == "all")]
    wanted = lines[lines["attacker"].isin(_SHADOW_ATTACKERS) & lines["figure"].isin(["auc", "tpr_0.001"])]
    found: dict[str, Any] = {"method": title, "num_models": len(studies[title].runs)}
    for line in wanted.itertuples():
        found.setdefault(line.attacker, {})[line.figure] = _with_ends(line.mean, (line.low, line.high))
    return found


def _trained_with(record: dict[str, Any]) -> dict[str, str]:
    return {name.removeprefix("versions."): record[name] for name in record if name.startswith("versions.")}


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_string("name", "", "Of the entry, as fmnist/pineat-1-1-w1.", **own)
    flags.DEFINE_string("sentence", "", "What the network is, in a sentence.", **own)
    flags.DEFINE_string("directory", str(ROOT / "zoo"), "Where entries are.", **own)
    flags.DEFINE_string("weights", "float16", "How the file holds weights: float16 (half the size) or float32.", **own)
    flags.DEFINE_integer("num_attacked", 1000, "How many test images AutoAttack attacks, the first ones.", **own)
    flags.DEFINE_multi_string("limit", [], "What it is not good for; may be given several times.", **own)
    flags.DEFINE_string("shadow", "", "Title of its method among the study's shadow models; empty for none.", **own)
    paths = command_line.arguments(values, argv, __doc__)
    if paths is None:
        return
    if len(paths) != 1 or not values.name or not values.sentence:
        raise ValueError("give the directory of a finished run, --name=DATA/NETWORK and --sentence='...'. See --help.")
    if not re.fullmatch(r"[a-z0-9_-]+(/[a-z0-9_-]+)*", values.name):
        raise ValueError(
            f"--name must be of small letters, digits and dashes, as fmnist/pineat-1-1-w1. Received: {values.name!r}."
        )
    check_choice("weights", values.weights, _WEIGHTS)
    check_count("num_attacked", values.num_attacked, 1, "It is how many test images AutoAttack attacks.")
    card = make(
        pathlib.Path(paths[0]).expanduser(),
        pathlib.Path(values.directory, values.name),
        sentence=values.sentence,
        weights=values.weights,
        num_attacked=values.num_attacked,
        limits=tuple(values.limit),
        shadow=values.shadow,
    )
    found = ", ".join(f"{name} {figure['value']:.4f}" for name, figure in card["figures"].items() if figure)
    print(f"{values.name}: {found}; AutoAttack leaves {card['robustness']['accuracies'][-1]:.4f}")


if __name__ == "__main__":
    pt.accelerate.set_threads()
    sys.exit(main())
