"""From a config to what it names: data, attack, network, the trainer around it, and what a round of it costs."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import pineat_tf as pt
from experiments import datasets, networks, stored
from experiments.config import ExperimentConfig


def _shifted(down: int, across: int) -> Callable:
    """A query that shifts images by a pixel, with zeros in the gap, as `--augment_pad` does."""

    def query(logits_fn: Callable, x: tf.Tensor, y: tf.Tensor, *, seed: object = 0) -> tf.Tensor:
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return padded[:, 1 - down : 1 - down + x.shape[1], 1 - across : 1 - across + x.shape[2]]

    return query


def _mirrored(logits_fn: Callable, x: tf.Tensor, y: tf.Tensor, *, seed: object = 0) -> tf.Tensor:
    return x[:, :, ::-1]


VIEWS: dict[str, Callable] = {
    "mirrored": _mirrored,
    "shifted_up": _shifted(-1, 0),
    "shifted_down": _shifted(1, 0),
    "shifted_left": _shifted(0, -1),
    "shifted_right": _shifted(0, 1),
}
"""Queries that augmentation would have made of an image."""


class Pool(NamedTuple):
    """The data that halves are drawn from.

    Attributes:
        data: with the wrong labels of the canaries.
        is_canary: which training images are canaries, booleans of shape `(num,)`.
    """

    data: datasets.Dataset
    is_canary: np.ndarray


def pool(config: ExperimentConfig) -> Pool:
    """The data that the flags name, before a half of it is drawn. Its canaries are the same for every half.

    Raises:
        ValueError: if it cannot be read, or there are fewer images than canaries.
    """
    seed = config.seed if config.half < 0 else 0  # the halves of shadow models are drawn from one pool
    loaded = datasets.load(
        config.dataset,
        data_dir=config.data_dir or None,
        train_size=config.train_size,
        test_size=config.test_size,
        pools_seed=None if config.pools == "split" else seed,
    )
    images, labels = loaded.train
    is_canary = np.zeros(len(labels), bool)
    if config.canaries:
        labels, canaries = pt.membership.plant_canaries(labels, num=config.canaries, num_classes=loaded.num_classes)
        is_canary[canaries] = True
    return Pool(loaded._replace(train=datasets.Split(images, labels)), is_canary)


def data_fingerprint(config: ExperimentConfig) -> str:
    """A digest of the content of a run's data; empty for data of a public name."""
    return datasets.fingerprint(config.dataset, config.data_dir or None)


def data(config: ExperimentConfig) -> datasets.Dataset:
    """The members and non-members of a run."""
    whole = pool(config).data
    if config.half < 0:
        return whole
    chosen = datasets.random_half(len(whole.train.labels), config.half)
    return whole._replace(train=datasets.Split(*(array[chosen] for array in whole.train)))


def attack(config: ExperimentConfig) -> pt.attacks.GradientAttack:
    """The attack that training generates its adversarial examples by."""
    epsilon, steps = config.epsilon, config.num_steps
    pgd = {"epsilon": epsilon, "step_size": config.step_size, "num_steps": steps}
    makers: dict[str, Callable] = {
        "pgd": lambda: pt.attacks.pgd(**pgd, random_start=config.random_start, loss=_climbed(config)),
        "pgd_l2": lambda: pt.attacks.pgd(**pgd, random_start=config.random_start, norm="l2"),
        "dist": lambda: pt.attacks.dist(coefficient=config.dist_coefficient, num_steps=steps, epsilon=epsilon),
        "wrm_l2": lambda: pt.attacks.wrm_l2(gamma=config.wrm_gamma, num_steps=steps, bounds=(0.0, 1.0)),
        "diff": lambda: pt.attacks.trades_kl(**pgd),
        "fgsm_rs": lambda: pt.attacks.fgsm_rs(epsilon=epsilon),
        "n_fgsm": lambda: pt.attacks.n_fgsm(epsilon=epsilon),
        # Free training has no attack of its own. A step like that of a replay stands for it in pictures.
        "free": lambda: pt.attacks.fgsm_rs(epsilon=epsilon, step_size=epsilon),
    }
    return makers[config.attack]()


def evaluation_attack(config: ExperimentConfig) -> pt.attacks.GradientAttack:
    """PGD as reference [20] evaluates by it: L-inf, 2.5 * epsilon / steps a step, no random start."""
    epsilon, steps = config.evaluation_epsilon, config.eval_steps
    return pt.attacks.pgd(epsilon=epsilon, step_size=2.5 * epsilon / steps, num_steps=steps, random_start=False)


def queries(config: ExperimentConfig) -> dict[str, Callable | None]:
    """The queries of an attacker who knows the defence: natural images, three kinds made from them, and five views."""
    of_training, radius = attack(config), _radius(config)
    mirrored = pt.queries.ReverseSymmetryQuery(attack=of_training, keep_in_range=_keeps_in_range(config), **radius)
    norm = pt.threat.ThreatModel.of(of_training).norm or "linf"
    return {
        "natural": None,
        "adversarial": evaluation_attack(config),
        "reverse_symmetry": mirrored,
        "random": pt.queries.RandomInBall(epsilon=config.epsilon, norm=norm),
        **VIEWS,
    }


def companions(config: ExperimentConfig, variant: str) -> Callable:
    """The companions of a variant, with radius, norm and pixel range of the attack that the flags name."""
    radius = _radius(config)
    kinds: dict[str, Callable] = {
        "natural": pt.companions.NaturalCompanions,
        "original": pt.companions.NoCompanions,
        "advnat": pt.companions.NaturalCompanions,
        "advran": lambda: pt.companions.RandomCompanions(**radius),
        "advsign": lambda: pt.companions.ShuffledSigns(**radius),
        "scaled": lambda: pt.companions.ScaledNoise(
            scale=(config.companion_scale,) * config.round_ratio.num_companions,
            labels=stored.load_network(config.companion_labels) if config.companion_labels else "true",
            keep_in_range=_keeps_in_range(config),
            **radius,
        ),
        "pineat": lambda: pt.companions.ReverseSymmetry(
            keep_in_range=_keeps_in_range(config),
            decomposition=config.rs_decomposition,
            clip=config.rs_clip,
            **radius,
        ),
    }
    return pt.threat.adopt(kinds[variant](), attack(config))


def network(
    config: ExperimentConfig, *, input_shape: tuple[int, int, int], num_classes: int, precision: str
) -> keras.Model:
    """The network that the flags describe, in a precision of its own, with fresh weights."""
    return networks.build(
        config.network,
        input_shape=input_shape,
        num_classes=num_classes,
        width=config.width,
        activation=config.activation,
        weight_decay=config.weight_decay,
        decay_all=config.decay_all,
        normalization=config.normalization,
        precision=precision,
    )


def trainer(config: ExperimentConfig, network: keras.Model) -> pt.AdversarialTraining:
    """The network wrapped in its training method, compiled."""
    num_classes = network.output_shape[-1]
    options = {
        "objective": _defended(config, _objective(config, num_classes), num_classes),
        "companions": companions(config, config.variant),
        "ratio": config.round_ratio,
        "seed": config.seed,
    }
    if _is_free(config):
        options |= {"epsilon": config.epsilon, "batch_size": config.batch_size, **_faster(network)}
        model: pt.AdversarialTraining = pt.FreeAdversarialTraining(network, **options)
    else:
        options |= {"attack": _training_attack(config), **_around_updates(config, num_classes)}
        model = _attacked(config, network, options)
    kinds = keras.metrics.SparseCategoricalAccuracy, keras.metrics.CategoricalAccuracy
    accuracy = kinds[config.mixing != "none"](name="accuracy")  # by its name it would be made in the graph
    model.compile(optimizer=_optimizer(config), metrics=[accuracy])
    return model


@dataclasses.dataclass(frozen=True)
class RoundCost:
    """The cost of one round for one image.

    Attributes:
        gradients: gradient passes.
        forwards: all passes in units of one forward pass (a backward pass to the images is one such unit, one to
            images and weights two).
    """

    gradients: int
    forwards: int


_UPDATES = {
    "trades": (6, 3),
    "mart": (6, 3),
    "score": (6, 3),
    "ikl": (6, 3),
    "ibp": (10, 9),
    "mtl_ibp": (12, 9),
    "cc_ibp": (12, 9),
    "sabr": (10, 9),
}
"""Passes of an update by an example and by the natural image, by objective; bounds cost twice a network's."""


def round_cost(config: ExperimentConfig) -> RoundCost:
    """Counts a round's passes: n attacks, n + m updates (cost model in docs/paper.md).

    With differential privacy they are those of the expected batch, whose n + m losses have one update in common.
    """
    n, m = config.round_ratio
    made_by = None if _is_free(config) else _training_attack(config)
    steps = made_by.num_steps if made_by else 0
    one_attack = 2 * steps + (1 if made_by and (config.attack == "diff" or _climbed(config) in _OF_NATURAL) else 0)
    taught = 1 if config.teacher_share else 0
    objective = "" if config.variant == "natural" else config.objective or ("trades" * (config.attack == "diff"))
    of_example, of_natural = _UPDATES.get(objective, (3, 3))
    natural_example = made_by is None and not _is_free(config)
    update = (of_natural if natural_example else of_example) + taught
    if _companion_objective(config) is not None:
        of_example = of_natural = 3
    companion = (of_natural if config.variant in ("natural", "advnat") else of_example) + taught
    passes = 2 if config.awp_gamma and not _is_free(config) else 1  # AWP goes up the loss of an update before it
    labels = 1 if config.variant == "scaled" and config.companion_labels else 0
    return RoundCost(
        gradients=n * (steps + passes) + m * passes,
        forwards=n * (one_attack + passes * update) + m * passes * companion + labels,
    )


def evaluation_forwards(config: ExperimentConfig) -> int:
    """Passes of the evaluation for one image, in units of one forward pass."""
    return 2 * config.eval_steps + 2


def _attacked(config: ExperimentConfig, network: keras.Model, options: dict) -> pt.AdversarialTraining:
    """The trainer that generates by an attack."""
    if config.dp_noise:
        privacy = {"noise_multiplier": config.dp_noise, "clip_norm": config.dp_clip, "delta": config.dp_delta}
        return pt.PrivateAdversarialTraining(network, batch_size=config.batch_size, **privacy, **options)
    options |= {"generation": config.generation, "order": config.order, **_faster(network)}
    if config.awp_gamma:
        begin = round(config.awp_begin * config.scaled_updates)
        options["weight_perturbation"] = pt.perturbations.AWP(gamma=config.awp_gamma, begin=begin)
    if config.teacher_share:
        taught = {"share": config.teacher_share, "momentum": config.teacher_momentum}
        return pt.SelfDistilledTraining(network, **taught, **options)
    return pt.AdversarialTraining(network, **options)


def _faster(network: keras.Model) -> dict:
    return {"forward": pt.accelerate.compute_twin(network)}


def _radius(config: ExperimentConfig) -> dict[str, float]:
    """The radius of companions where the attack has none to give them; their ball is L-inf then."""
    return {"epsilon": config.epsilon} if config.attack == "wrm_l2" else {}


def _keeps_in_range(config: ExperimentConfig) -> bool:
    return config.rs_bounds == "valid"


def _is_free(config: ExperimentConfig) -> bool:
    return config.attack == "free" and config.variant != "natural"


_MIXTURES = {"ibp": "none", "mtl_ibp": "loss", "cc_ibp": "logits", "sabr": "small_box"}


def _training_attack(config: ExperimentConfig) -> pt.attacks.GradientAttack | None:
    """The attack of a round; None where nothing looks at its examples."""
    return None if config.objective == "ibp" and config.variant != "pineat" else attack(config)


_OF_NATURAL = ("squared_distance",)
"""What is climbed from the natural prediction, which costs a pass of its own."""


def _climbed(config: ExperimentConfig) -> str:
    """The loss that PGD climbs."""
    of_score = config.objective == "score" and config.attack == "pgd" and config.variant != "natural"
    return "squared_distance" if of_score else "cross_entropy"


def _companion_objective(config: ExperimentConfig) -> Callable | None:
    """The loss of a companion's update, where it is not that of the others. Bounds alone see no companions."""
    has_both = config.round_ratio.num_adversarial and config.round_ratio.num_companions
    plain = config.companion_objective == "cross_entropy" or config.objective == "ibp"
    return pt.objectives.CrossEntropy(label_smoothing=config.label_smoothing) if has_both and plain else None


def _around_updates(config: ExperimentConfig, num_classes: int) -> dict:
    """What changes around an update: the objective of companions, the radius."""
    of_companions = _companion_objective(config)
    grows = config.epsilon_ramp and config.variant != "natural"
    return {
        "companion_objective": of_companions and _defended(config, of_companions, num_classes),
        "ramp": config.updates_of(config.epsilon_ramp) if grows else None,
    }


def _defended(config: ExperimentConfig, objective: Callable, num_classes: int) -> Callable:
    """An objective with what the flags add against membership inference."""
    inner = {"objective": objective}
    makers: dict[str, Callable] = {
        "relaxloss": lambda: pt.defences.RelaxLoss(
            alpha=config.relaxloss_alpha, period=config.relaxloss_period, **inner
        ),
        "convexconcave": lambda: pt.defences.ConvexConcave(share=config.convexconcave_share, **inner),
        "entropy": lambda: pt.defences.EntropyRegularised(
            num_classes=num_classes, entropy=config.entropy_share, weight=config.entropy_weight, **inner
        ),
    }
    return makers[config.defence]() if config.defence else objective


def _objective(config: ExperimentConfig, num_classes: int) -> Callable:
    smoothing = {"label_smoothing": config.label_smoothing}
    beta = {"beta": config.objective_beta} if config.objective_beta else {}
    makers: dict[str, Callable] = {
        "mart": lambda: pt.objectives.MART(**beta),
        "score": lambda: pt.objectives.SCORE(**beta),
        "ikl": lambda: pt.objectives.IKL(num_classes=num_classes, period=config.ikl_period, **beta),
    }
    if config.objective in makers and config.variant != "natural":
        return makers[config.objective]()
    if config.objective and config.variant != "natural":
        return pt.objectives.IntervalBounds(
            epsilon=config.epsilon,
            natural_weight=config.ibp_natural_weight,
            ramp=config.updates_of(config.ibp_ramp),
            mixture=_MIXTURES[config.objective],
            share=config.ibp_share,
        )
    if config.attack == "diff" and config.variant != "natural":
        return pt.objectives.Trades(beta=config.trades_beta, detach_natural=config.trades_detach, **smoothing)
    return pt.objectives.CrossEntropy(**smoothing)


def _optimizer(config: ExperimentConfig) -> keras.optimizers.Optimizer:
    rate = pt.schedules.piecewise_learning_rate(config.scaled_boundaries, config.learning_rates)
    average = {"use_ema": True, "ema_momentum": config.ema_momentum} if config.ema_momentum else {}
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum, **average)
    return keras.optimizers.Adam(rate, epsilon=config.adam_epsilon, **average)
