"""Everything that decides an experiment: one frozen record, a field a flag."""

import dataclasses
import functools
import os
import pathlib
import re
import string
from collections.abc import Sequence
from typing import Any

from experiments import datasets, export, networks, options
from experiments.options import beyond, option
from pineat_tf import schedules
from pineat_tf.types import Ratio

ATTACKS = ("pgd", "pgd_l2", "dist", "wrm_l2", "diff", "fgsm_rs", "n_fgsm", "free")
DEFENCES = ("", "relaxloss", "convexconcave", "entropy")
OF_BOUNDS = ("ibp", "mtl_ibp", "cc_ibp", "sabr")
OBJECTIVES = ("", "mart", "score", "ikl", *OF_BOUNDS)
PAPER_DATASETS = ("", "fmnist", "cifar10")
STRATEGIES = ("none", "mirrored", "multi_worker")
_NOT_PRIVATE = ("augment_pad", "augment_flip", "mixing", "awp_gamma", "generation", "order", "teacher_share",
                "strategy")  # fmt: skip
_COUPLING = {"attack": ("dist", "free"), "objective": ("ikl",), "defence": ("relaxloss",)}
VARIANTS = ("natural", "original", "advnat", "advran", "advsign", "scaled", "pineat")
_ATTACKED, _BESIDE = (f"variant={','.join(VARIANTS[first:])}" for first in (1, 2))
_BOUNDS, _MIXTURE = (f"objective={','.join(OF_BOUNDS[first:])}" for first in (0, 1))
_SMOOTHED = f"objective= or variant=natural or companion_objective=cross_entropy or objective=ibp and {_BESIDE}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One run: the data, the network, the method, and where results go.

    Raises:
        ValueError: if a value is out of its range. Checks that need the data run after loading.
    """

    # Data
    dataset: str = option("fmnist", "Which images to train on.", datasets.NAMES)
    data_dir: str = option(
        "", "Folder of the data (for npz: the file). Empty: the usual places, then a download.", scope="run"
    )
    paper_dataset: str = option(
        "",
        "Whose figures of the paper to print beside, where a folder or file holds its images.",
        PAPER_DATASETS,
        scope="run",
    )
    pools: str = option(
        "exchangeable",
        "Where non-members are from: of the training split, as the members, drawn by the seed; or of the test split, "
        "as in the paper (split).",
        ("exchangeable", "split"),
    )
    train_size: int = option(0, "How many images to train on, the members; 0 for all.", least=0)
    test_size: int = option(0, "How many images to test on, the non-members; 0 for all of the test split.", least=0)
    canaries: int = beyond(0, "How many training images get a wrong label: the worst case of leakage.", least=0)
    half: int = beyond(
        -1, "Which random half of the training images to train on, by number (shadow models); -1: all.", least=-1
    )
    augment_pad: int = option(0, "Random crops after padding by this many pixels a side; 0 for none.", least=0)
    augment_flip: bool = option(False, "Random horizontal flips.")
    mixing: str = beyond("none", "Mix each image and its label with another of the batch.", datasets.MIXINGS)

    # Network
    network: str = option("fmnist_vgg", "Which classifier to train.", networks.NAMES)
    width: int = option(0, "Its width multiplier; 0 for that of the paper.", least=0)
    activation: str = option("relu", "Its activation (slope 0.1 if leaky).", networks.ACTIVATIONS)
    weight_decay: float = option(0.0, "Adds this times ||w||^2 / 2 to the mean loss.", least=0)
    decay_all: bool = option(
        False, "Weight decay on biases and batch normalisation too, not on kernels only.", needs="weight_decay"
    )
    normalization: str = option(
        "batch", "Of networks that normalise: by batches, or each example by itself (group).", networks.NORMALIZATIONS
    )
    precision: str = option("float32", "Of the layers; logits and losses are float32.", networks.PRECISIONS)

    # Method
    attack: str = option(
        "pgd", "How adversarial examples are generated; diff is TRADES, with its loss; free replays batches.", ATTACKS
    )
    variant: str = option("pineat", "What stands beside adversarial examples.", VARIANTS)
    ratio: str = option("1/1", "n/m of all variants but two (natural is 0/1, original 1/0, or n+m/0 for free).")
    epsilon: float = option(
        0.1, "Radius of the ball, of companions as well, for pixels in [0, 1]; 8/255 will do.", paper="attack"
    )
    step_size: float = option(0.02, "Length of an attack step (pgd, pgd_l2, diff).", paper="attack")
    num_steps: int = option(8, "Attack steps.", least=1, paper="attack")
    random_start: bool = option(True, "Start pgd and pgd_l2 randomly in the ball.", paper="attack")
    dist_coefficient: float = option(
        1.0, "Factor on the gradient in dist, for pixels in [0, 1].", paper="attack", needs="attack=dist"
    )
    wrm_gamma: float = option(0.5 / 1.3, "Price of moving a pixel in wrm_l2.", needs="attack=wrm_l2")
    trades_beta: float = option(
        1.0, "Weight of the divergence in diff.", paper="attack", needs="attack=diff and objective="
    )
    trades_detach: bool = option(
        True,
        "Keep diff's divergence from changing the natural prediction, as in [20].",
        paper="attack",
        needs="attack=diff and objective=",
    )
    objective: str = beyond(
        "",
        "Loss of an update; empty for that of the attack: TRADES for diff, else cross-entropy.",
        OBJECTIVES,
        needs_attack=True,
        needs=_ATTACKED,
    )
    objective_beta: float = option(
        0.0,
        "Weight of robustness in mart, score, ikl; 0 for that of the authors.",
        least=0,
        needs="objective=mart,score,ikl",
    )
    ikl_period: int = option(400, "Updates between renewals of the class means of ikl.", least=1, needs="objective=ikl")
    defence: str = beyond(
        "", "What is added to the loss of an update against membership inference.", DEFENCES, needs_attack=True
    )
    relaxloss_alpha: float = option(
        1.0, "Level at which relaxloss keeps the mean loss of a batch.", needs="defence=relaxloss"
    )
    relaxloss_period: int = option(
        400, "Updates of its descent, then of its flattening, and so on.", least=1, needs="defence=relaxloss"
    )
    convexconcave_share: float = option(
        0.5, "Share of the loss itself in convexconcave; above 0.", share=True, needs="defence=convexconcave"
    )
    entropy_share: float = option(
        0.95, "Entropy of labels in entropy (HAMP), as a share of the largest.", share=True, needs="defence=entropy"
    )
    entropy_weight: float = option(
        0.01, "Weight of the entropy of predictions there.", least=0, needs="defence=entropy"
    )
    companion_objective: str = beyond(
        "",
        "Loss of an update by a companion; empty for that of the others, but cross-entropy with ibp.",
        ("", "cross_entropy"),
        needs_attack=True,
        needs=_BESIDE,
    )
    awp_gamma: float = beyond(
        0.0,
        "Share of their norm by which weights are perturbed in an update (AWP); 0 for none.",
        least=0,
        needs_attack=True,
    )
    awp_begin: float = option(0.0, "Share of the training before AWP begins.", share=True, needs="awp_gamma")
    epsilon_ramp: tuple[float, ...] = beyond(
        (),
        "Shares of the training after which the attack's radius begins to grow and is reached.",
        needs_attack=True,
        needs=_ATTACKED,
        ramp=True,
    )
    companion_scale: float = beyond(
        2.0,
        "By which scaled companions multiply the noise: -1 is what pineat does, advnat is 0.",
        signed=True,
        needs="variant=scaled",
    )
    companion_labels: str = beyond(
        "", "File of a network that labels scaled companions; empty for the true labels.", needs="variant=scaled"
    )
    ibp_natural_weight: float = option(
        0.5, "Share of the natural cross-entropy after the ramp, with interval bounds.", share=True, needs=_BOUNDS
    )
    ibp_ramp: tuple[float, ...] = option(
        (),
        "Shares of the training after which the radius of interval bounds begins to grow and is reached.",
        needs=_BOUNDS,
        ramp=True,
    )
    ibp_share: float = option(
        0.5, "Of the bounds in mtl_ibp and cc_ibp, of the radius in sabr; above 0.", share=True, needs=_MIXTURE
    )
    rs_bounds: str = beyond(
        "paper", "Keep reverse-symmetry examples in the ball, or in the pixel range too (valid).", ("paper", "valid")
    )
    rs_decomposition: str = beyond(
        "random", "How m >= 2 of them share the noise.", ("random", "split"), needs="variant=pineat"
    )
    rs_clip: bool = beyond(True, "Clip them to the ball at all.", needs="variant=pineat")
    generation: str = beyond(
        "round",
        "Weights that generate: of the round's start or current.",
        ("round", "update"),
        needs_attack=True,
        needs=_ATTACKED,
    )
    order: str = beyond(
        "adversarial",
        "Which updates of a round come first.",
        ("adversarial", "companions"),
        needs_attack=True,
        needs=_BESIDE,
    )
    teacher_share: float = beyond(
        0.0, "Share of a label that the averaged network predicts; 0 for no teacher.", share=True, needs_attack=True
    )
    teacher_momentum: float = option(
        0.99, "Momentum of the teacher's weights a round.", share=True, needs="teacher_share"
    )
    label_smoothing: float = beyond(
        0.0, "Share of a label that is spread over all classes.", share=True, needs=_SMOOTHED
    )

    dp_noise: float = beyond(
        0.0,
        "Differential privacy: deviation of the noise over dp_clip; 0 for none. A round is one update then. The "
        "guarantee is against who does not know the seed.",
        least=0,
    )
    dp_clip: float = option(1.0, "Largest norm of the gradient of an example's mean loss.", needs="dp_noise")
    dp_delta: float = option(
        1e-5, "Probability with which the guarantee may fail; above 0.", share=True, needs="dp_noise"
    )

    # Training
    updates: int = option(80_000, "Updates of the weights; a round of ratio n/m is n + m of them.", least=1)
    schedule_scale: float = beyond(1.0, "Factor on updates and boundaries: 0.5 stops training early, at half of it.")
    batch_size: int = option(
        100, "Images a batch, of all devices together; an incomplete last one is dropped.", least=1
    )
    strategy: str = option("none", "Devices: one, all of this machine, or those of TF_CONFIG's workers.", STRATEGIES)
    optimizer: str = option("adam", "Adam, or SGD with momentum.", ("adam", "sgd"))
    learning_rates: tuple[float, ...] = option((1e-4,), "Learning rates, one more than boundaries.")
    boundaries: tuple[int, ...] = option((), "Updates after which the next learning rate holds.")
    adam_epsilon: float = option(1e-7, "Epsilon of Adam.", needs="optimizer=adam")
    momentum: float = option(0.9, "Momentum of SGD.", least=0, needs="optimizer=sgd")
    ema_momentum: float = beyond(
        0.0, "Momentum of the averaged weights that the network has at the end; 0 for none.", share=True
    )
    seed: int = option(
        0, "Of the initial weights, the order of the data, the attack and the companions.", least=0, below=1 << 32
    )

    deterministic: bool = option(True, "The same numbers in every run of the same flags on the same machine.")

    # Evaluation
    eval_epsilon: float = option(
        0.0, "Radius of the evaluation's PGD; 0 for that of training.", least=0, scope="evaluation"
    )
    eval_steps: int = option(
        20, "Its steps, each 2.5 * radius / steps long, without random start.", least=1, scope="evaluation"
    )
    eval_batch_size: int = option(250, "Images predicted at once.", least=1, scope="evaluation")
    eval_precision: str = option(
        "", "Of the layers; empty for that of training.", ("", *networks.PRECISIONS), scope="evaluation"
    )
    verify: bool = option(
        False, "Prove robustness of the test images at that radius as well, by interval bounds.", scope="evaluation"
    )

    # Results
    output_dir: str = option(
        "runs/{dataset}-{method}-{variant}-{ratio}-seed{seed}",
        "Run directory; names of flags in braces are filled in, and {method}: the attack with what is added to it.",
        scope="run",
    )
    overwrite: bool = option(
        False, "Replace earlier results, once the new ones are whole.", scope="run", recorded=False
    )
    resume: bool = option(False, "Go on with an unfinished run.", scope="run", recorded=False)
    export: tuple[str, ...] = option(
        ("keras", "saved_model"), "Formats to export the network in.", export.FORMATS, scope="run"
    )
    checkpoint_seconds: int = option(60, "Keep a checkpoint about this often.", least=0, scope="run")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            options.check(field, getattr(self, field.name))
        Ratio.parse(self.ratio)
        self.rounds  # noqa: B018 (raises if there is none)
        if self.attack == "free" and self.variant != "natural":
            self._check_free()
        if self.dp_noise:
            self._check_private()
        schedules.piecewise_learning_rate(self.boundaries, self.learning_rates)
        schedules.piecewise_learning_rate(self.scaled_boundaries, self.learning_rates)
        if pathlib.Path(self.run_dir).name in ("", ".."):  # also a template that cannot be filled in is told now
            raise ValueError(
                f"`output_dir` must name a directory of its own. Received: output_dir={self.output_dir!r}. Give e.g. "
                "'runs/{dataset}-{seed}'."
            )

    def _check_free(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata["needs_attack"] and value != field.default:
                raise ValueError(
                    f"`{field.name}` has no effect with attack='free', which perturbs while it updates. Received: "
                    f"{field.name}={value!r}. Leave it out, or choose another attack."
                )

    def _check_private(self) -> None:
        apart = {
            name: (getattr(self, name),) for name in _NOT_PRIVATE if getattr(self, name) != getattr(type(self), name)
        }
        for name, values in (apart | _COUPLING).items():
            if getattr(self, name) in values:
                raise ValueError(
                    "differential privacy draws its batches from the images as they are and makes one update of a "
                    "round, by examples that know nothing of each other, on one device. Received: "
                    f"{name}={getattr(self, name)!r} with dp_noise={self.dp_noise!r}. Give one of them."
                )

    @property
    def round_ratio(self) -> Ratio:
        """n/m of this variant."""
        ratio = Ratio.parse(self.ratio)
        original = ratio.updates_per_round if self.attack == "free" else 1  # free sees a batch as often in any variant
        fixed = {"natural": Ratio(0, 1), "original": Ratio(original, 0)}
        return fixed.get(self.variant, ratio)

    @property
    def updates_per_round(self) -> int:
        """How often a round moves the weights."""
        return 1 if self.dp_noise else self.round_ratio.updates_per_round

    @property
    def method(self) -> str:
        """What is trained by, in words: the attack and what is added to it."""
        added = (self.objective, self.defence, "awp" if self.awp_gamma else "", "dp" if self.dp_noise else "")
        return " ".join(filter(None, (self.attack, *added)))

    @property
    def scaled_updates(self) -> int:
        """Updates of the training."""
        return round(self.updates * self.schedule_scale)

    @property
    def rounds(self) -> int:
        """Rounds of the training."""
        return schedules.rounds_for(self.scaled_updates, Ratio(1, 0) if self.dp_noise else self.round_ratio)

    @property
    def scaled_boundaries(self) -> tuple[int, ...]:
        """Updates after which the next learning rate holds."""
        return tuple(round(boundary * self.schedule_scale) for boundary in self.boundaries)

    def updates_of(self, ramp: tuple[float, ...]) -> tuple[int, int]:
        """A ramp of shares of the training in updates."""
        begin, end = (round(share * self.scaled_updates) for share in ramp or (0.0, 0.0))
        return begin, end

    @property
    def run_dir(self) -> str:
        """The output directory with its names filled in."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {"ratio": str(self.round_ratio).replace("/", "-"), "method": self.method.replace(" ", "-")}
        try:
            for _, name, form, _ in string.Formatter().parse(self.output_dir):
                if re.search(r"\d{4}|{", form or "") or "." in (name or ""):
                    raise ValueError("no name: longer than a name can be, or what Python holds behind a value")
            return os.path.expanduser(self.output_dir.format(**values))
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            unknown = f", which names {error}" if isinstance(error, KeyError) else ""
            raise ValueError(
                "`output_dir` may hold names of flags in braces, as in 'runs/{dataset}-{seed}'. "
                f"Received: output_dir={self.output_dir!r}{unknown}."
            ) from None

    @property
    def evaluation_epsilon(self) -> float:
        """Radius of the evaluation's attack."""
        return self.eval_epsilon or self.epsilon

    def to_dict(self, *, without: Sequence[str] = ()) -> dict:
        """The fields as plain values, but for those named in `without`."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in without}


@functools.cache
def names(**says: Any) -> tuple[str, ...]:
    """The names of the fields that say so of themselves, as in `names(scope="run")`."""
    fields = dataclasses.fields(ExperimentConfig)
    return tuple(field.name for field in fields if says.items() <= field.metadata.items())
