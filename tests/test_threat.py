"""One fact, one place: what companions and queries take from an attack, and what contradicts it."""

import dataclasses
import functools
import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dense_network

import pineat_tf as pt
from pineat_tf import threat
from pineat_tf.companions import NaturalCompanions, NoCompanions, RandomCompanions, ReverseSymmetry, ShuffledSigns
from pineat_tf.queries import RandomInBall, ReverseSymmetryQuery


@pt.serialization.serializable
@dataclasses.dataclass(frozen=True)
class Shift:
    """An attack of somebody else's, which says what it may do as the library's own do."""

    epsilon: float | None = 0.1
    norm: str = "linf"
    bounds: tuple | None = (0.0, 1.0)

    def __call__(self, logits_fn, x, y, *, seed=0):
        return tf.stop_gradient(tf.clip_by_value(x + self.epsilon, *self.bounds))


def plain(logits_fn, x, y, *, seed):
    return x


KINDS = {"random": RandomCompanions, "signs": ShuffledSigns, "mirror": ReverseSymmetry}
FACTS = {"epsilon": 0.1, "norm": "linf", "bounds": (0.0, 1.0)}
OTHERS = {"epsilon": 0.2, "norm": "l2", "bounds": (-1.0, 1.0)}


def fields(kind):
    return [field.name for field in dataclasses.fields(kind) if field.name in FACTS]


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("attack", [Shift(), Shift(0.3, "l2", (-1.0, 1.0)), Shift(8.0, "linf", (0, 255)),
                                    Shift(0.5, bounds=None)])  # fmt: skip
def test_what_is_not_set_is_that_of_the_attack(kind, attack):
    adopted = threat.adopt(kind(), attack)
    for name in fields(kind):
        assert getattr(adopted, name) == getattr(attack, name)
    assert threat.adopt(adopted, attack) == adopted
    said = {name: getattr(attack, name) for name in fields(kind)}
    assert threat.adopt(kind(**said), attack) == adopted
    trainer = pt.AdversarialTraining(dense_network(), attack=attack, companions=kind(), ratio="1/1")
    assert trainer.companions == adopted


@pytest.mark.parametrize("kind, name", [(kind, name) for kind in KINDS.values() for name in fields(kind)])
def test_what_contradicts_the_attack_is_refused_where_it_is_made(kind, name):
    contradicting = kind(**{name: OTHERS[name]})
    message = rf"`{name}` of {kind.__name__} contradicts.*Received: {name}=.*attack has {name}=.*Leave `{name}` out"
    with pytest.raises(ValueError, match=message):
        threat.adopt(contradicting, Shift(**FACTS))
    with pytest.raises(ValueError, match=message):
        pt.AdversarialTraining(dense_network(), attack=Shift(**FACTS), companions=contradicting, ratio="1/1")


@pytest.mark.parametrize("name", FACTS)
def test_a_query_is_held_to_its_attack_too(name):
    query = ReverseSymmetryQuery(attack=Shift(**OTHERS))
    assert {name: getattr(query, name) for name in FACTS} == OTHERS
    with pytest.raises(ValueError, match=f"`{name}` of ReverseSymmetry contradicts"):
        ReverseSymmetryQuery(attack=Shift(**OTHERS), **{name: FACTS[name]})


def test_free_training_is_the_threat_model_of_its_companions():
    options = {"epsilon": 0.2, "batch_size": 8, "bounds": (-1.0, 1.0), "ratio": "2/1"}
    model = pt.FreeAdversarialTraining(dense_network(), companions=RandomCompanions(), **options)
    assert model.companions == RandomCompanions(epsilon=0.2, norm="linf", bounds=(-1.0, 1.0))
    for name, value in (("epsilon", 0.1), ("norm", "l2"), ("bounds", (0.0, 1.0))):
        with pytest.raises(ValueError, match=f"`{name}` of RandomCompanions contradicts"):
            pt.FreeAdversarialTraining(dense_network(), companions=RandomCompanions(**{name: value}), **options)


@pytest.mark.parametrize("attack", [plain, Shift(epsilon=None, norm="l2"), None])
@pytest.mark.parametrize("kind", KINDS.values())
def test_without_a_radius_anywhere_the_error_says_so(kind, attack):
    with pytest.raises(ValueError, match=rf"takes its radius from the attack.*{kind.__name__}\(epsilon=0.1\)"):
        threat.adopt(kind(), attack)
    # An attack without a radius says nothing of the norm of a ball.
    assert threat.adopt(kind(epsilon=0.1), attack).norm is None
    with pytest.raises(ValueError, match="`epsilon` is needed where there is no attack"):
        kind()(tf.zeros((2, 3)), (tf.zeros((2, 3)),), num=1)


def test_no_limits_contradict_no_range():
    for attack, said in ((None, (0.0, 1.0)), ((0.0, 1.0), None)):
        companions = RandomCompanions(bounds=said)
        assert threat.adopt(companions, Shift(bounds=attack)).bounds == said


def test_equal_numbers_do_not_contradict_in_another_type():
    attack = Shift(np.float32(8 / 255), bounds=[0, 1])
    companions = RandomCompanions(epsilon=8 / 255, bounds=(0.0, 1.0))
    assert threat.adopt(companions, attack) == dataclasses.replace(companions, norm="linf")


def test_functions_and_strategies_without_such_fields_stay_as_they_are():
    for strategy in (plain, lambda x, adversarial, *, num, seed: (), NoCompanions(), NaturalCompanions()):
        assert threat.adopt(strategy, Shift()) is strategy


def test_strategies_and_attacks_of_other_people_take_part():
    @dataclasses.dataclass(frozen=True)
    class Halfway:
        share: float
        epsilon: float | None = None

    assert threat.adopt(Halfway(0.5), Shift(0.3)) == Halfway(0.5, epsilon=0.3)
    assert threat.adopt(Halfway(0.5), plain) == Halfway(0.5)
    with pytest.raises(ValueError, match="`epsilon` of Halfway contradicts"):
        threat.adopt(Halfway(0.5, epsilon=0.2), Shift(0.3))
    for wrapped in (tf.function(Shift(0.3), autograph=False), functools.partial(Shift(0.3), seed=1)):
        assert threat.ThreatModel.of(wrapped) == (0.3, "linf", (0.0, 1.0))
    with pytest.raises(ValueError, match="`norm` must be one of"):
        threat.ThreatModel.of(Shift(norm="l1"))


def test_a_trainer_comes_back_with_what_was_said():
    options = {"attack": Shift(0.3, "l2", (-1.0, 1.0)), "companions": ReverseSymmetry(keep_in_range=True)}
    model = pt.AdversarialTraining(dense_network(), ratio="1/1", **options)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    restored = keras.saving.deserialize_keras_object(config)
    expected = ReverseSymmetry(epsilon=0.3, norm="l2", bounds=(-1.0, 1.0), keep_in_range=True)
    assert restored.companions == model.companions == expected


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", [RandomCompanions(), ShuffledSigns(), ReverseSymmetry(keep_in_range=True),
                                  ReverseSymmetry(decomposition="split", keep_in_range=True)], ids=str)  # fmt: skip
def test_every_pixel_range_gives_the_same_companions_up_to_scale(kind, norm, bounds, images):
    low, width = bounds[0], bounds[1] - bounds[0]
    x_adv = np.clip(images + np.random.default_rng(3).uniform(-0.2, 0.2, images.shape), 0, 1).astype(np.float32)

    def on_scale(epsilon, x, x_adv, bounds):
        companions = threat.adopt(kind, Shift(epsilon, norm, bounds))
        return np.stack(companions(x, (tf.constant(x_adv, tf.float32),), num=2, seed=4))

    unit = on_scale(0.1, images, x_adv, (0.0, 1.0))
    other = on_scale(0.1 * width, low + width * images, low + width * x_adv, bounds)
    np.testing.assert_allclose((other - low) / width, unit, atol=2e-6)
    assert np.abs(unit - images).max() > 0.01


@pytest.mark.parametrize("make", [RandomCompanions, functools.partial(ReverseSymmetry, keep_in_range=True)])
@pytest.mark.parametrize("options, x", [({}, -0.5), ({}, 200.0), ({"bounds": (-1.0, 1.0)}, 1.5),
                                        ({"bounds": (0, 255)}, -1.0), ({}, np.nan)])  # fmt: skip
def test_images_of_another_range_are_refused_not_clipped(make, options, x):
    images = np.full((2, 3), x, np.float32)
    companions = make(epsilon=0.1, **options)
    with pytest.raises(ValueError, match="every pixel must lie in the bounds"):
        companions(images, (images.copy(),), num=1)
    graph = tf.function(lambda x: companions(x, (x + 0.0,), num=1), autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="every pixel must lie in the bounds"):
        graph(images)


ORDINARY = [
    (0.1, (0, 1)), (8 / 255, (0, 1)), (1 / 255, (0, 1)), (1e-4, (0, 1)), (1.0, (0, 1)), (16 / 255, (-1, 1)),
    (8.0, (0, 255)), (0.5, (0, 255)), (257.0, (0, 65535)), (0.1, None), (0.05, (-2.1, 2.6)),
]  # fmt: skip


@pytest.mark.parametrize("epsilon, bounds", ORDINARY)
def test_an_ordinary_radius_warns_of_nothing(epsilon, bounds):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threat.check_scale(epsilon, bounds, step_size=epsilon / 4, num_steps=10)
        threat.check_scale(epsilon, bounds, step_size=2 * epsilon)  # N-FGSM and others step beyond the ball
        if bounds is not None:  # the same images by L2, 32 x 32 x 3
            threat.check_scale(15.0 * epsilon + (bounds[1] - bounds[0]) / 10, bounds, norm="l2")
        threat.check_scale(None, bounds, step_size=3.0)


@pytest.mark.parametrize(
    "options, fault",
    [
        ({"epsilon": 8, "bounds": (0, 1)}, "epsilon=8 is more than the whole range"),
        ({"epsilon": 8, "bounds": (-1, 1)}, "epsilon=8 is more than the whole range"),
        ({"epsilon": 8 / 255, "bounds": (0, 255)}, "less than a grey level of pixels in \\[0, 255\\]"),
        ({"epsilon": 0.3, "bounds": (0, 255)}, "less than a grey level"),
        ({"epsilon": 0.5, "bounds": (0, 255), "norm": "l2"}, "less than a grey level"),
        ({"epsilon": 128, "bounds": (0, 1), "norm": "l2"}, "more than the whole range"),
        ({"epsilon": 8 / 255, "bounds": (0, 1), "step_size": 2}, "leads out of any ball"),
        ({"epsilon": 8, "bounds": (0, 255), "step_size": 2 / 255, "num_steps": 10}, "hardly move"),
        ({"epsilon": 8, "bounds": None, "step_size": 2 / 255, "num_steps": 10}, "hardly move"),
    ],
)
def test_a_radius_or_step_that_cannot_be_meant_warns(options, fault):
    with pytest.warns(UserWarning, match=f"On the scale of the pixels.*{fault}.*8/255 for pixels in"):
        threat.check_scale(**options)


def test_queries_and_free_training_warn_where_they_are_made():
    with pytest.warns(UserWarning, match="epsilon=8 is more"):
        RandomInBall(epsilon=8)
    with pytest.warns(UserWarning, match="less than a grey level"):
        pt.FreeAdversarialTraining(dense_network(), epsilon=8 / 255, bounds=(0, 255), batch_size=8)


ATTACKS = {
    "pgd": (pt.attacks.pgd(epsilon=0.2, step_size=0.05, num_steps=2), (0.2, "linf", (0.0, 1.0))),
    "pgd, l2": (
        pt.attacks.pgd(epsilon=2.0, step_size=0.5, num_steps=2, norm="l2", bounds=(-1.0, 1.0)),
        (2.0, "l2", (-1.0, 1.0)),
    ),
    "pgd, inf": (pt.attacks.pgd(epsilon=0.2, step_size=0.05, num_steps=2, norm=np.inf), (0.2, "linf", (0.0, 1.0))),
    "fgsm": (pt.attacks.fgsm(epsilon=8.0, bounds=(0, 255)), (8.0, "linf", (0, 255))),
    "fgsm_rs": (pt.attacks.fgsm_rs(epsilon=0.2), (0.2, "linf", (0.0, 1.0))),
    "n_fgsm": (pt.attacks.n_fgsm(epsilon=0.2), (0.2, "linf", (0.0, 1.0))),
    "trades_kl": (pt.attacks.trades_kl(epsilon=0.2, step_size=0.05, num_steps=2), (0.2, "linf", (0.0, 1.0))),
    "dist": (pt.attacks.dist(epsilon=0.2, bounds=None), (0.2, "linf", None)),
    "dist, no radius": (pt.attacks.dist(), (None, None, (0.0, 1.0))),
    "wrm_l2": (pt.attacks.wrm_l2(gamma=1.0), (None, None, None)),
    "apgd": (pt.attacks.apgd(epsilon=2.0, norm="l2"), (2.0, "l2", (0.0, 1.0))),
    "fab": (pt.attacks.fab(epsilon=0.2), (0.2, "linf", (0.0, 1.0))),
    "fab, no radius": (pt.attacks.fab(epsilon=None, norm="l2"), (None, None, (0.0, 1.0))),
    "square": (pt.attacks.square(epsilon=0.2), (0.2, "linf", (0.0, 1.0))),
    "deepfool": (pt.attacks.deepfool(), (None, None, (0.0, 1.0))),
    "random": (RandomInBall(epsilon=2.0, norm="l2"), (2.0, "l2", (0.0, 1.0))),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("kind", KINDS.values())
def test_every_attack_says_what_it_may_do(name, kind):
    attack, known = ATTACKS[name]
    assert threat.ThreatModel.of(attack) == known
    if known[0] is None:
        with pytest.raises(ValueError, match="takes its radius from the attack, which has none"):
            pt.AdversarialTraining(dense_network(), attack=attack, companions=kind(), ratio="1/1")
        return
    ball = dict(zip(FACTS, known))
    adopted = threat.adopt(kind(), attack)
    assert {name: getattr(adopted, name) for name in fields(kind)} == {name: ball[name] for name in fields(kind)}
    for name in fields(kind):
        other = {"epsilon": 3.0, "norm": {"l2": "linf", "linf": "l2"}[known[1]], "bounds": (-3.0, 3.0)}[name]
        if known[2] is not None or name != "bounds":
            with pytest.raises(ValueError, match=f"`{name}` of {kind.__name__} contradicts"):
                threat.adopt(kind(**{name: other}), attack)


@pytest.mark.parametrize(
    "make",
    [
        lambda epsilon, bounds: pt.attacks.pgd(epsilon=epsilon, step_size=epsilon / 4, num_steps=8, bounds=bounds),
        lambda epsilon, bounds: pt.attacks.fgsm_rs(epsilon=epsilon, bounds=bounds),
        lambda epsilon, bounds: pt.attacks.n_fgsm(epsilon=epsilon, bounds=bounds),
        lambda epsilon, bounds: pt.attacks.apgd(epsilon=epsilon, bounds=bounds),
        lambda epsilon, bounds: pt.attacks.fab(epsilon=epsilon, bounds=bounds),
        lambda epsilon, bounds: pt.attacks.square(epsilon=epsilon, bounds=bounds),
        lambda epsilon, bounds: RandomInBall(epsilon=epsilon, bounds=bounds),
    ],
)
def test_attacks_warn_of_a_radius_of_another_scale(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epsilon, bounds in ORDINARY:
            make(epsilon, bounds)
    with pytest.warns(UserWarning, match="epsilon=8 is more than the whole range"):
        make(8, (0.0, 1.0))
    with pytest.warns(UserWarning, match="less than a grey level"):
        make(8 / 255, (0, 255))


def test_the_companions_of_an_l2_attack_train_in_its_ball(images, labels):
    seen = []

    def watch(logits_fn, x_nat, x, y):
        seen.append(np.linalg.norm(np.reshape(x - x_nat, (len(x), -1)), axis=1))
        logits = logits_fn(x)
        return pt.losses.cross_entropy(y, logits), logits

    attack = pt.attacks.pgd(epsilon=0.5, step_size=0.5, num_steps=2, norm="l2", bounds=None)
    model = pt.AdversarialTraining(
        dense_network(), attack=attack, companions=ReverseSymmetry(), objective=watch, ratio="1/3"
    )
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    model.fit(images, labels, batch_size=8, verbose=0)
    assert len(seen) == 4
    for norms in seen:
        assert norms.max() <= 0.5 + 1e-5 and norms.max() > 0.1
