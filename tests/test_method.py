"""From flags to attacks, companions and objectives, and what a round costs, counted from the running code."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from experiments import method, networks
from experiments.config import ATTACKS, VARIANTS, ExperimentConfig

SHAPE, NUM_CLASSES = (8, 8, 1), 10


def config(**fields):
    return ExperimentConfig(**{"network": "mlp", "dataset": "digits", "num_steps": 2, **fields})


@pytest.fixture(scope="module")
def batch():
    """8 images of 8 x 8 and their classes."""
    images = np.random.default_rng(0).uniform(size=(8, *SHAPE)).astype(np.float32)
    return tf.constant(images), tf.constant(np.arange(8) % NUM_CLASSES)


def network():
    keras.utils.set_random_seed(0)
    return networks.build("mlp", input_shape=SHAPE, num_classes=NUM_CLASSES)


# ---------------------------------------------------------------- what the flags name

FIELDS = {"epsilon": 0.2, "step_size": 0.05, "num_steps": 3, "dist_coefficient": 2.0, "wrm_gamma": 0.7}
NAMED = {
    "pgd": pt.attacks.pgd(epsilon=0.2, step_size=0.05, num_steps=3),
    "pgd_l2": pt.attacks.pgd(epsilon=0.2, step_size=0.05, num_steps=3, norm="l2"),
    "dist": pt.attacks.dist(coefficient=2.0, num_steps=3, epsilon=0.2),
    "wrm_l2": pt.attacks.wrm_l2(gamma=0.7, num_steps=3, bounds=(0.0, 1.0)),
    "diff": pt.attacks.trades_kl(epsilon=0.2, step_size=0.05, num_steps=3),
    "fgsm_rs": pt.attacks.fgsm_rs(epsilon=0.2),
    "n_fgsm": pt.attacks.n_fgsm(epsilon=0.2),
    "free": pt.attacks.fgsm_rs(epsilon=0.2, step_size=0.2),  # for pictures
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_is_the_librarys_with_the_values_of_the_flags(name):
    assert method.attack(config(attack=name, **FIELDS)) == NAMED[name]


@pytest.mark.parametrize("name, norm", [("pgd", "linf"), ("pgd_l2", "l2")])
def test_the_random_start_can_be_turned_off(name, norm):
    expected = pt.attacks.pgd(epsilon=0.2, step_size=0.05, num_steps=3, norm=norm, random_start=False)
    assert method.attack(config(attack=name, random_start=False, **FIELDS)) == expected


def test_evaluation_is_linf_pgd_of_two_and_a_half_radii_without_random_start_whatever_trained():
    for attack in ATTACKS:
        expected = pt.attacks.pgd(epsilon=0.1, step_size=2.5 * 0.1 / 20, num_steps=20, random_start=False)
        assert method.evaluation_attack(config(attack=attack, epsilon=0.1, eval_steps=20)) == expected
    expected = pt.attacks.pgd(epsilon=0.3, step_size=2.5 * 0.3 / 5, num_steps=5, random_start=False)
    assert method.evaluation_attack(config(epsilon=0.1, eval_epsilon=0.3, eval_steps=5)) == expected


COMPANIONS = {
    "natural": pt.companions.NaturalCompanions(),
    "original": pt.companions.NoCompanions(),
    "advnat": pt.companions.NaturalCompanions(),
    "advran": pt.companions.RandomCompanions(epsilon=0.2, norm="linf", bounds=(0.0, 1.0)),
    "scaled": pt.companions.ScaledNoise(scale=(2.0,) * 3, epsilon=0.2, norm="linf", bounds=(0.0, 1.0)),
    "advsign": pt.companions.ShuffledSigns(epsilon=0.2, norm="linf"),
    "pineat": pt.companions.ReverseSymmetry(epsilon=0.2, norm="linf", bounds=(0.0, 1.0)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_differ_in_their_companions_and_ratio_only(variant):
    fields = config(variant=variant, ratio="2/3", seed=4, generation="update", **FIELDS)
    model = method.trainer(fields, network())
    assert model.companions == COMPANIONS[variant]
    assert model.ratio == {"natural": (0, 1), "original": (1, 0)}.get(variant, (2, 3))
    assert (model.seed, model.generation, model.objective) == (4, "update", pt.objectives.CrossEntropy())
    assert model.attacks == (NAMED["pgd"],) * model.ratio.num_adversarial


@pytest.mark.parametrize("variant", VARIANTS)
def test_free_training_replays_a_batch_as_often_in_every_variant(variant):
    fields = config(attack="free", variant=variant, ratio="2/3", seed=4, batch_size=7, **FIELDS)
    model = method.trainer(fields, network())
    assert model.ratio == {"natural": (0, 1), "original": (5, 0)}.get(variant, (2, 3))
    assert (model.companions, model.seed) == (COMPANIONS[variant], 4)
    assert isinstance(model, pt.FreeAdversarialTraining) == (variant != "natural")
    if variant != "natural":
        assert (model.epsilon, model.step_size, model.perturbation.shape) == (0.2, 0.2, (7, *SHAPE))


def test_reverse_symmetry_has_the_options_of_the_flags():
    fields = config(variant="pineat", rs_bounds="valid", rs_decomposition="split", rs_clip=False, **FIELDS)
    expected = dataclasses.replace(COMPANIONS["pineat"], keep_in_range=True, decomposition="split", clip=False)
    assert method.trainer(fields, network()).companions == method.companions(fields, "pineat") == expected
    assert method.queries(fields)["reverse_symmetry"] == pt.queries.ReverseSymmetryQuery(
        attack=method.attack(fields), keep_in_range=True
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_companions_and_queries_live_in_the_ball_of_the_attack(attack):
    fields = config(attack=attack, variant="advran", **FIELDS)
    ball = pt.companions.RandomCompanions(epsilon=0.2, norm="l2" if attack == "pgd_l2" else "linf", bounds=(0.0, 1.0))
    # wrm_l2 has no ball to give: by the flag it is L-inf, as it is by default
    expected = dataclasses.replace(ball, norm=None) if attack == "wrm_l2" else ball
    assert method.trainer(fields, network()).companions == expected
    queries = method.queries(fields)
    assert (queries["random"].epsilon, queries["random"].norm) == (0.2, ball.norm)
    assert (queries["reverse_symmetry"].epsilon, queries["reverse_symmetry"].norm) == (0.2, expected.norm)


def test_diff_trains_by_trades_and_natural_training_never_does():
    trades = pt.objectives.Trades(beta=3.0, detach_natural=False)
    fields = {"attack": "diff", "trades_beta": 3.0, "trades_detach": False}
    for variant in ("original", "advnat", "advran", "pineat"):
        assert method.trainer(config(variant=variant, **fields), network()).objective == trades
    assert method.trainer(config(variant="natural", **fields), network()).objective == pt.objectives.CrossEntropy()


def test_the_optimizer_has_the_values_of_the_flags():
    rates = {"learning_rates": (0.5, 0.25), "boundaries": (2,)}
    adam = method.trainer(config(optimizer="adam", adam_epsilon=1e-10, **rates), network()).optimizer
    sgd = method.trainer(config(optimizer="sgd", momentum=0.8, learning_rates=(0.5,)), network()).optimizer
    assert isinstance(adam, keras.optimizers.Adam) and isinstance(sgd, keras.optimizers.SGD)
    assert (adam.epsilon, sgd.momentum, float(sgd.learning_rate)) == (1e-10, 0.8, 0.5)
    seen = []
    for done in range(5):
        adam.iterations.assign(done)
        seen.append(float(adam.learning_rate))
    assert seen == [0.5, 0.5, 0.5, 0.25, 0.25]  # the update on the boundary still has the rate before it


def test_labels_are_smoothed_and_orders_and_averages_taken_as_the_flags_say():
    fields = {"label_smoothing": 0.2, "order": "companions", "ema_momentum": 0.9}
    model = method.trainer(config(**fields), network())
    assert model.objective == pt.objectives.CrossEntropy(label_smoothing=0.2)
    assert model.order == "companions"
    assert model.optimizer.use_ema and model.optimizer.ema_momentum == 0.9
    assert method.trainer(config(attack="diff", **fields), network()).objective.label_smoothing == 0.2
    assert not method.trainer(config(), network()).optimizer.use_ema


# ---------------------------------------------------------------- a round


EVERY = {(attack, "pineat") for attack in ATTACKS} | {(attack, each) for attack in ("pgd", "free") for each in VARIANTS}


@pytest.mark.parametrize("attack, variant", sorted(EVERY))
def test_every_attack_and_variant_trains_a_round(attack, variant, batch):
    model = method.trainer(config(attack=attack, variant=variant, ratio="1/2"), network())
    before = [weight.numpy() for weight in model.network.weights]
    logs = {name: float(value) for name, value in model.train_step(batch).items()}
    assert int(model.optimizer.iterations) == {"natural": 1, "original": 3 if attack == "free" else 1}.get(variant, 3)
    kinds = {"natural": {"companion_loss"}, "original": {"adversarial_loss"}}
    assert logs.keys() == {"loss", "accuracy"} | kinds.get(variant, {"adversarial_loss", "companion_loss"})
    assert np.isfinite(list(logs.values())).all()
    assert all((weight.numpy() != old).any() for weight, old in zip(model.network.weights, before))


@pytest.mark.parametrize("attack", ["pgd", "pgd_l2", "dist", "diff"])
def test_several_adversarial_examples_of_a_round_differ(attack, batch):
    """Otherwise n updates of a round would be the same update n times, and their noises not add up to anything new."""
    x, y = batch
    model = method.trainer(config(attack=attack, ratio="2/1", epsilon=0.2), network())
    first, second = (attack(model.network, x, y, seed=i) for i, attack in enumerate(model.attacks))
    assert (first.numpy() != second.numpy()).any()


def test_wrm_l2_gives_several_examples_only_from_changing_weights(batch):
    with pytest.raises(ValueError, match="generation='update'"):
        method.trainer(config(attack="wrm_l2", ratio="2/1"), network())
    model = method.trainer(config(attack="wrm_l2", ratio="2/1", generation="update"), network())
    model.train_step(batch)
    assert int(model.optimizer.iterations) == 3


# ---------------------------------------------------------------- what a round costs


class Counter(keras.layers.Layer):
    """Passes its input on, and counts how often it goes through forwards and backwards."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.forwards = self.backwards = 0

    def call(self, x):
        @tf.custom_gradient
        def counted(x):
            def gradient(upstream):
                self.backwards += 1
                return upstream

            self.forwards += 1
            return tf.identity(x), gradient

        return counted(x)


@pt.bounds.rule(Counter)
def _ends_of_a_box(layer, box):
    return box.map(layer)  # both ends, as layers with weights take centre and radius


class CountedNetwork:
    """A network that counts its passes, in eager mode.

    Only an attack asks for the gradient of the images, so it alone goes backwards through the counter before the
    weights; everything goes backwards through the one behind them.
    """

    def __init__(self):
        self.at_images, self.at_logits = Counter(), Counter()
        images = keras.Input(SHAPE)
        self.network = keras.Model(images, self.at_logits(network()(self.at_images(images))))
        self.reset()

    def reset(self):
        for counter in (self.at_images, self.at_logits):
            counter.forwards = counter.backwards = 0

    @property
    def attack_gradients(self):
        return self.at_images.backwards

    @property
    def forward_units(self):
        """A forward pass is 1, a backward one to the images 1, one to the weights 2."""
        to_weights = self.at_logits.backwards - self.at_images.backwards
        return self.at_images.forwards + self.attack_gradients + 2 * to_weights


# attack, variant, ratio, then by arithmetic with K = 8: gradient passes and forward units of a round.
COSTS = [
    ("pgd", "natural", "1/1", 1, 3),
    ("diff", "natural", "1/1", 1, 3),
    ("pgd", "original", "1/1", 8 + 1, 2 * 8 + 3),  # 19
    ("pgd_l2", "original", "1/1", 9, 19),
    ("dist", "original", "1/1", 9, 19),
    ("wrm_l2", "original", "1/1", 9 + 1, 2 * 9 + 3),  # one whole gradient step before its K
    ("pgd", "pineat", "1/1", 9 + 1, 19 + 3),  # 22
    ("pgd", "advnat", "1/1", 10, 22),
    ("pgd", "advran", "1/1", 10, 22),
    ("dist", "pineat", "1/1", 10, 22),
    ("pgd", "pineat", "1/4", 9 + 4, 19 + 4 * 3),
    ("pgd", "pineat", "2/3", 2 * 9 + 3, 2 * 19 + 3 * 3),
    ("dist", "pineat", "3/2", 3 * 9 + 2, 3 * 19 + 2 * 3),
    ("fgsm_rs", "original", "1/1", 1 + 1, 2 + 3),  # 5, whatever K is
    ("fgsm_rs", "pineat", "1/1", 2 + 1, 5 + 3),  # 8
    ("n_fgsm", "original", "1/1", 2, 5),
    ("n_fgsm", "pineat", "1/2", 2 + 2, 5 + 2 * 3),
    ("diff", "original", "1/1", 9, 1 + 2 * 8 + 6),  # 23: the natural prediction once, TRADES sees two images
    ("diff", "pineat", "1/1", 10, 23 + 6),  # 29
    ("diff", "advran", "1/1", 10, 29),
    ("diff", "advnat", "1/1", 10, 23 + 3),  # 26: plain cross-entropy
    ("diff", "pineat", "2/2", 2 * 9 + 2, 2 * 23 + 2 * 6),
]


MIXED = [
    ("ibp", "original", "1/0", 1, 9),  # natural prediction 3, bounds twice that
    ("mtl_ibp", "original", "1/0", 9, 16 + 3 + 3 + 6),
    ("cc_ibp", "original", "1/0", 9, 28),
    ("sabr", "original", "1/0", 9, 16 + 3 + 1 + 6),  # the example's prediction is for metrics only
    ("mtl_ibp", "pineat", "2/1", 2 * 9 + 1, 2 * 28 + 12),
    ("mtl_ibp", "advnat", "1/1", 10, 28 + 9),
    ("ibp", "advran", "1/1", 2, 9 + 3),  # companions by cross-entropy
    ("ibp", "pineat", "2/1", 2 * 9 + 1, 2 * (16 + 10) + 3),
    ("mart", "original", "1/0", 9, 16 + 6),
    ("mart", "pineat", "1/1", 10, 22 + 6),
    ("mart", "advnat", "1/1", 10, 22 + 3),
    ("score", "pineat", "1/1", 10, 1 + 22 + 6),  # its attack takes the natural prediction once
    ("ikl", "advran", "2/1", 2 * 9 + 1, 2 * 22 + 6),
]


AROUND = [
    ({"awp_gamma": 0.01}, 8 + 2 + 2, 16 + 6 + 6),  # each update twice
    ({"awp_gamma": 0.01, "attack": "diff", "variant": "original"}, 8 + 2, 17 + 12),
    ({"attack": "diff", "companion_objective": "cross_entropy"}, 10, 23 + 3),
    ({"epsilon_ramp": (0.0, 1.0)}, 10, 22),
    ({"variant": "scaled", "attack": "diff", "companion_objective": "cross_entropy"}, 10, 23 + 3),
]


def named(axis, rows, **more):
    """Rows of an attack or objective, a variant, a ratio and the costs, as those of `AROUND`."""
    return [(dict(zip((axis, "variant", "ratio"), row)) | more, *row[3:]) for row in rows]


@pytest.mark.parametrize(
    "fields, gradients, forwards",
    [
        *named("attack", COSTS, generation="round"),
        *named("attack", [row for row in COSTS if row[2][0] > "1"], generation="update"),
        *named("objective", MIXED),
        *AROUND,
    ],
)
def test_the_cost_of_a_round_is_that_of_the_cost_model_and_of_the_running_code(fields, gradients, forwards, batch):
    fields = config(**{"variant": "pineat", "num_steps": 8, **fields})
    assert method.round_cost(fields) == method.RoundCost(gradients=gradients, forwards=forwards)
    counted = CountedNetwork()
    model = method.trainer(fields, counted.network)
    counted.reset()
    model.train_step(batch)
    images = 2 if fields.attack == "diff" else 1  # TRADES sees two in a pass
    passes = (counted.at_logits.backwards - counted.attack_gradients) // images
    updates = passes if fields.awp_gamma else model.optimizer.iterations
    assert counted.attack_gradients + int(updates) == gradients
    assert counted.forward_units == forwards


def test_defences_go_around_the_loss_of_every_update():
    fields = {"objective": "mart", "companion_objective": "cross_entropy", "label_smoothing": 0.1}
    model = method.trainer(config(defence="relaxloss", relaxloss_alpha=0.5, relaxloss_period=7, **fields), network())
    assert model.objective == pt.defences.RelaxLoss(objective=pt.objectives.MART(), alpha=0.5, period=7)
    inner = pt.objectives.CrossEntropy(label_smoothing=0.1)
    assert model.companion_objective == pt.defences.RelaxLoss(objective=inner, alpha=0.5, period=7)
    model = method.trainer(config(defence="entropy", variant="natural", entropy_share=0.5), network())
    assert model.objective == pt.defences.EntropyRegularised(num_classes=10, entropy=0.5)
    assert method.trainer(config(defence="convexconcave"), network()).objective == pt.defences.ConvexConcave()


def test_differential_privacy_has_the_numbers_of_the_flags_and_the_passes_of_its_rounds():
    fields = {"variant": "pineat", "ratio": "1/2", "num_steps": 8, "updates": 6}
    private = config(dp_noise=0.7, dp_clip=0.2, dp_delta=1e-4, batch_size=3, seed=5, **fields)
    model = method.trainer(private, network())
    assert isinstance(model, pt.PrivateAdversarialTraining) and model.seed == 5 and str(model.ratio) == "1/2"
    assert (model.noise_multiplier, model.clip_norm, model.delta, model.batch_size) == (0.7, 0.2, 1e-4, 3)
    assert private.rounds == 6 and config(**fields).rounds == 2
    assert method.round_cost(private) == method.round_cost(config(**fields))


def test_a_teacher_costs_a_forward_pass_an_update(batch):
    fields = config(variant="pineat", num_steps=8, teacher_share=0.5)
    assert method.round_cost(fields) == method.RoundCost(gradients=10, forwards=22 + 2)
    counted = CountedNetwork()
    model = method.trainer(fields, counted.network)
    counter = next(layer for layer in model.teacher.layers if isinstance(layer, Counter))
    counted.reset()
    counter.forwards = counter.backwards = 0
    model.train_step(batch)
    assert counted.forward_units == 22 and (counter.forwards, counter.backwards) == (2, 0)


@pytest.mark.parametrize("detach", [True, False])
def test_detaching_the_natural_prediction_does_not_change_the_cost(detach, batch):
    counted = CountedNetwork()
    model = method.trainer(config(attack="diff", variant="original", trades_detach=detach), counted.network)
    counted.reset()
    model.train_step(batch)
    assert counted.forward_units == 1 + 2 * 2 + 6  # K = 2


def test_evaluation_costs_one_natural_prediction_the_attack_and_one_more(batch):
    x, y = batch
    fields, counted = config(eval_steps=5), CountedNetwork()
    counted.network(x, training=False)
    counted.network(method.evaluation_attack(fields)(counted.network, x, y), training=False)
    assert counted.forward_units == method.evaluation_forwards(fields) == 1 + 2 * 5 + 1
