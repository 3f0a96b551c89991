"""Audits what was trained elsewhere: predictions in a file, or a network with its data.

python -m experiments.audit predictions.npz --json=audit.json
python -m experiments.audit network.keras --members=fmnist:train:10000 --non_members=fmnist:test --epsilon=0.1
"""

import os
import pathlib
import sys

from absl import flags

from experiments import command_line, files, method, results, stored
from experiments.audit import attackers, networks, predictions
from experiments.datasets import SOURCES, Split, load_source
from pineat_tf import accelerate
from pineat_tf.checks import check_bounds, check_choice, check_count, check_labels, check_positive
from pineat_tf.report import Report
from pineat_tf.types import Bounds

USAGE = """\
usage: python -m experiments.audit FILE.npz [--json=PATH]
       python -m experiments.audit NETWORK --members=IMAGES --non_members=IMAGES [--epsilon=0.1]
           [--epsilons=0.05,0.1] [--json=PATH]

Says how well an attacker can tell training examples (members) from test examples by what a network
predicts for them, on natural and on adversarial inputs, and how robust it is.

FILE.npz holds NumPy arrays, num examples by num_classes:
  output_train_benign, output_test_benign             probabilities for natural inputs
  output_train_adversarial, output_test_adversarial   for adversarial inputs (may be absent)
  train_label, test_label                             true classes, whole numbers, one a row
A single column is what one sigmoid (or, as logits, one logit) gives for class 1.
Logits are better than probabilities, which saturate: name them logits_train_benign,
logits_test_adversarial and so on (or logits_output_train_benign ...); they are then preferred.

NETWORK is a .keras, HDF5 or LiteRT file or a SavedModel's folder. A softmax at its end, or one
sigmoid, is taken off where it can be seen; other probabilities are refused, as inside a
SavedModel. IMAGES are
  RUN_DIR:members or RUN_DIR:non_members         the images that a run of experiments.run has had
  fmnist:train, cifar10:test or digits:test      with :5000 for the subset that a run of that
                                                 --train_size or --test_size takes by --pools=split
  tfds:NAME:SPLIT                                as in tfds:mnist:test[:1000]
  FILE.npz or FILE.npz:train                     with arrays x and y, or x_train and y_train

Every threshold is chosen on the scores it is judged on (in-sample), as in the literature: compare
it with the noise floor, not with 0.5.
"""
_OF_NETWORKS = (  # name, default, help and, for lists, the type of an item
    ("members", "", "Images that the network was trained on."),
    ("non_members", "", "Images that it was not trained on."),
    ("data_dir", "", "Where data sets are looked for; empty for the usual places."),
    ("epsilon", 0.0, "Radius of PGD on members and non-members; 0 for natural queries only."),
    ("steps", 20, "Steps of PGD, each 2.5 * radius / steps long."),
    ("epsilons", (), "Radii at which AutoAttack measures the accuracy on non-members.", float),
    ("num_attacked", 1000, "How many non-members it attacks, the first ones."),
    ("norm", "linf", "Norm of all radii: linf or l2."),
    (
        "bounds", "0,1", "Range of the pixels that NETWORK takes, as -1,1, or 0,255 where it rescales them itself; "
        "radii are on the same scale. Bytes are spread over a range up to 1 and kept in a wider one; none: no limits.",
    ),
    (
        "trust", False, "Load a network that is a program too (a SavedModel, a Lambda, layers of your own): it may do "
        "whatever its author wants, with your rights.",
    ),
    ("gradients_from", "", "The network that NETWORK, a LiteRT file, was made from: attacks go by its gradients."),
    ("attackers", False, "Ask further attackers: learned ones, quantile regression, by labels only."),
)  # fmt: skip
_DEFAULT_SHARE = 0.1  # of the range, as the radius of label-only attackers without --epsilon


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = flags.FlagValues()
    flags.DEFINE_string("json", None, "Write every figure to this file.", flag_values=values)
    for definition in _OF_NETWORKS:
        command_line.define(values, *definition)
    paths = command_line.arguments(values, argv, USAGE)
    if paths is None:
        return
    if len(paths) != 1:
        raise ValueError(f"give one npz file, or one network, not {len(paths)}. See --help.")
    (path,) = paths
    if values.json is not None and os.path.realpath(values.json) == os.path.realpath(path):
        raise ValueError(f"--json={values.json} would overwrite what is audited. Name another file.")
    if values.json is not None:
        files.check_replaceable(values.json)  # before the work
    text, figures = _of_network(path, values) if stored.is_network(path) else _of_predictions(path, values)
    if values.json is not None:
        files.write_json(values.json, figures)
    print(text)


def _of_predictions(path: str, values: flags.FlagValues) -> tuple[str, dict]:
    given = [name for name, *_ in _OF_NETWORKS if values[name].present]
    if given:
        raise ValueError(
            f"--{given[0]} is for networks (.keras, .h5, or a SavedModel's folder), which {path!r} is not."
        )
    report, scored_from = predictions.audit(path)
    forms = " and ".join(sorted({form for form in scored_from.values() if form}))
    return _text(report, f", scored from {forms}"), report.to_dict() | {"scored_from": scored_from}


def _of_network(path: str, values: flags.FlagValues) -> tuple[str, dict]:
    attacks = _attacks(values)
    if not (values.members and values.non_members):
        raise ValueError(
            "a network is audited on its data: give --members and --non_members, each RUN_DIR:members, "
            f"RUN_DIR:non_members, {SOURCES}"
        )
    members, non_members = (
        _images(source, values.data_dir or None, attacks.bounds) for source in (values.members, values.non_members)
    )
    if members.images.shape[1:] != non_members.images.shape[1:]:
        raise ValueError(
            "members and non-members must be images of one shape, not "
            f"{members.images.shape[1:]} and {non_members.images.shape[1:]}."
        )
    if values.attackers:
        attackers.check_num(members, non_members)
    network, notes = networks.load_network(
        path, members.images.shape[1:], trust=values.trust, gradients_from=values.gradients_from
    )
    for split in (members, non_members):  # rather now than after the ensemble's hours
        check_labels(split.labels, network.output_shape[-1])
    state = f"{values.json}.state.json" if values.json else None
    report = networks.audit_network(network, members, non_members, attacks, state)
    warned = report.robustness.warnings if report.robustness else ()
    text = [_text(report, f" of {path}"), *notes, *(f"Warning: {warning}" for warning in warned)]
    about = {"network": path, "members": values.members, "non_members": values.non_members, "notes": notes}
    about["bounds"] = attacks.bounds
    if values.attackers:
        low, high = attacks.bounds or (0.0, 1.0)
        ball = {"epsilon": values.epsilon or _DEFAULT_SHARE * (high - low), "norm": values.norm}
        found = list(attackers.audit(network, members, non_members, bounds=attacks.bounds, **ball))
        about["attackers"] = [result.to_dict() for result in found]
        text += ["", "Further attackers, by natural queries (95 % bootstrap intervals):", attackers.table(found)]
    return "\n".join(text), report.to_dict() | about


def _images(source: str, data_dir: str | None, bounds: Bounds | None) -> Split:
    """The images and labels that a word names: those of a finished run, or as `load_source` has it."""
    run, _, pool = source.rpartition(":")
    if pool not in ("members", "non_members"):
        return load_source(source, data_dir=data_dir, bounds=bounds)
    if bounds != (0.0, 1.0):
        raise ValueError(f"the images of a run are in [0, 1]. Received: --bounds={bounds} with {source!r}.")
    metrics = results.read_metrics(pathlib.Path(run, results.METRICS))
    data = method.data(results.config_of(results.flat(metrics)))
    return data.train if pool == "members" else data.test


def _attacks(values: flags.FlagValues) -> networks.Attacks:
    check_choice("norm", values.norm, ("linf", "l2"))
    check_count("steps", values.steps, 1, "It is how many steps PGD takes.")
    check_count("num_attacked", values.num_attacked, 1, "It is how many non-members the ensemble attacks.")
    for epsilon in (*values.epsilons, *([values.epsilon] if values.epsilon else [])):
        check_positive("epsilon", epsilon, "It is a radius on the scale of the pixels, e.g. 8/255 of [0, 1].")
    if len(set(values.epsilons)) < len(values.epsilons):
        raise ValueError(f"--epsilons must be radii that differ. Received: {','.join(map(str, values.epsilons))}.")
    bounds = _bounds(values.bounds)
    return networks.Attacks(values.epsilon, values.steps, values.epsilons, values.num_attacked, values.norm, bounds)


def _bounds(text: str) -> Bounds | None:
    """The range that the word names."""
    if text.strip().lower() == "none":
        return None
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"--bounds must be two numbers, as 0,255, or none. Received: {text!r}.") from None
    check_bounds((low, high))
    return low, high


def _text(report: Report, about: str) -> str:
    """The report with a headline and what a reader must know of it."""
    first = report.natural.membership[0]
    return (
        f"Membership audit of {first.num_members} members and {first.num_non_members} non-members{about}\n\n"
        f"{report.to_text()}\n\n"
        "In-sample: the threshold is chosen on the scores it is judged on. A network that leaks\n"
        "nothing scores the noise floor, not 0.5.\n"
        "[20]: Song, Shokri, Mittal, CCS 2019."
    )


if __name__ == "__main__":
    accelerate.set_threads()
    sys.exit(main(sys.argv))
