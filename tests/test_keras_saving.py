"""The whole trainer in a `.keras` file: what comes back is the same, and trains on as if nothing had been."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
from conftest import NUM_CLASSES, SHAPE, dense_network

import pineat_tf as pt
from pineat_tf.attacks import parts
from pineat_tf.companions import NaturalCompanions, NoCompanions, RandomCompanions, ReverseSymmetry, ShuffledSigns
from pineat_tf.objectives import CrossEntropy, Trades

EPSILON = 0.1
PGD = pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=2)
KL = pt.attacks.trades_kl(epsilon=EPSILON, step_size=0.05, num_steps=2)

STRATEGIES = [
    PGD,
    KL,
    pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=2, norm="l2", random_start=False, bounds=None),
    pt.attacks.dist(coefficient=0.5, num_steps=2, epsilon=EPSILON),
    pt.attacks.dist(),
    pt.attacks.wrm_l2(gamma=1.3),
    NoCompanions(),
    NaturalCompanions(),
    RandomCompanions(epsilon=EPSILON, bounds=None),
    RandomCompanions(epsilon=EPSILON, bounds=(-1.0, 1.0)),
    ShuffledSigns(epsilon=EPSILON),
    ReverseSymmetry(epsilon=EPSILON, bounds=(-0.5, 0.5), keep_in_range=True, decomposition="split", clip=False),
    CrossEntropy(),
    Trades(beta=6.0, detach_natural=True),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: re.sub(" at 0x[0-9a-f]+", "", repr(strategy)))
def test_strategies_come_back_equal_from_json(strategy):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(strategy)))
    assert keras.saving.deserialize_keras_object(config) == strategy
    assert type(strategy).from_config(json.loads(json.dumps(strategy.get_config()))) == strategy


def test_every_strategy_is_registered():
    for module in (parts, pt.attacks.gradient, pt.companions, pt.objectives):
        for item in vars(module).values():
            if getattr(item, "__module__", "") == module.__name__ and dataclasses.is_dataclass(item):
                assert keras.saving.get_registered_name(item) == f"pineat_tf>{item.__name__}"


def busy_network():
    """Whatever has a state: batch statistics, and seeds of dropout and of random flips."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.RandomFlip(seed=1),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.Dropout(0.3, seed=2),
            keras.layers.Dense(NUM_CLASSES),
        ]
    )


def schedule():
    return pt.schedules.piecewise_learning_rate([3, 7], [0.1, 0.05, 0.01])


def train(model, images, labels, epochs=2):
    model.fit(images, labels, batch_size=4, epochs=epochs, shuffle=False, verbose=0)


def state(model):
    return [np.array(variable) for variable in (*model.network.variables, *model.optimizer.variables)]


def assert_same_state(one, other):
    assert len(state(one)) == len(state(other)) > 0
    for got, wanted in zip(state(one), state(other)):
        np.testing.assert_array_equal(got, wanted)


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(schedule()),
    "momentum": lambda: keras.optimizers.SGD(schedule(), momentum=0.9, use_ema=True, clipnorm=1.0),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule()), 4.0, 3),
}


PINEAT = {"attack": PGD, "companions": ReverseSymmetry(epsilon=EPSILON), "ratio": "2/1", "seed": 5}
TRADES = {"attack": KL, "objective": Trades(beta=2.0), "generation": "update", "seed": (3, 4)}


@pytest.mark.parametrize(
    "options, optimizer",
    [(PINEAT, "adam"), (TRADES, "momentum"), ({**PINEAT, "ratio": "1/1"}, "loss scale")],
    ids=["pineat-adam", "trades-momentum", "pineat-loss_scale"],
)
def test_a_loaded_trainer_trains_on_bit_for_bit(options, optimizer, images, labels, tmp_path):
    model = pt.AdversarialTraining(busy_network(), name="trainer", **options)
    model.compile(OPTIMIZERS[optimizer](), metrics=["accuracy"], steps_per_execution=2)
    train(model, images, labels)
    model.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")

    assert isinstance(loaded, pt.AdversarialTraining) and loaded.name == "trainer"
    for name in ("attack", "attacks", "objective", "companions", "ratio", "generation"):
        assert getattr(loaded, name) == getattr(model, name)
    assert type(loaded.optimizer) is type(model.optimizer)
    assert int(loaded.optimizer.iterations) == 4 * model.ratio.updates_per_round
    assert float(loaded.optimizer.learning_rate) == float(model.optimizer.learning_rate) != float(np.float32(0.1))
    assert loaded.steps_per_execution == 2
    assert_same_state(loaded, model)

    before = state(model)
    for either in (model, loaded):
        train(either, images, labels)
    assert_same_state(loaded, model)
    assert any((now != then).any() for now, then in zip(state(loaded), before))
    assert set(loaded.evaluate(images, labels, return_dict=True, verbose=0)) == {"loss", "accuracy"}


def test_a_trainer_is_saved_before_it_has_trained(tmp_path, recwarn):
    model = pt.AdversarialTraining(dense_network(), attack=PGD)
    model.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    assert not [str(warning.message) for warning in recwarn if "built" in str(warning.message)]
    assert not loaded.compiled
    for got, wanted in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A network whose weights are made when it first sees images."""

    def __init__(self, units=12, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.flatten, self.hidden = keras.layers.Flatten(), keras.layers.Dense(units, activation="relu")
        self.head = keras.layers.Dense(NUM_CLASSES)

    def call(self, inputs, training=None):
        return self.head(self.hidden(self.flatten(inputs)))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize("built_by", ["fit", "build"])
def test_a_subclassed_network_comes_back_in_its_trainer(built_by, images, labels, tmp_path):
    model = pt.AdversarialTraining(Subclassed(units=5), attack=PGD)
    model.compile(keras.optimizers.Adam(0.1))
    if built_by == "build":
        model.build((None, *SHAPE))
        assert model.built and len(model.network.get_weights()) == 4
    train(model, images, labels)
    model.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    assert_same_state(loaded, model)
    for either in (model, loaded):
        train(either, images, labels)
    assert_same_state(loaded, model)


class OwnAttack:
    """An attack as a user writes it."""

    def __init__(self, shift):
        self.shift = shift

    def __call__(self, logits_fn, x, y, *, seed):
        return x + self.shift

    def get_config(self):
        return {"shift": self.shift}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def own_function(logits_fn, x, y, *, seed):
    return x * 0.5


@pytest.mark.parametrize("attack", [OwnAttack(0.25), own_function], ids=["class", "function"])
def test_own_strategies_come_back_as_custom_objects_and_are_asked_for(attack, images, labels, tmp_path):
    model = pt.AdversarialTraining(dense_network(), attack=attack)
    model.compile("sgd")
    train(model, images, labels)
    model.save(tmp_path / "trainer.keras")
    own = attack if attack is own_function else type(attack)
    with pytest.raises(TypeError, match=rf"{own.__name__}(.|\n)*register_keras_serializable"):
        keras.models.load_model(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras", custom_objects={own.__name__: own})
    assert loaded.attack is attack if own is attack else loaded.attack.shift == 0.25
    for either in (model, loaded):
        train(either, images, labels)
    assert_same_state(loaded, model)


def test_from_config_takes_custom_objects():
    model = pt.AdversarialTraining(dense_network(), attack=OwnAttack(0.25), ratio=(2, 0), seed=7)
    again = pt.AdversarialTraining.from_config(model.get_config(), custom_objects={"OwnAttack": OwnAttack})
    assert (again.attack.shift, str(again.ratio), again.seed) == (0.25, "2/0", 7)


def test_a_strategy_without_config_says_so_when_it_is_saved(tmp_path):
    class Mute:
        def __call__(self, logits_fn, x, y, *, seed):
            return x

    with pytest.raises(TypeError, match="must implement the `get_config"):
        pt.AdversarialTraining(dense_network(), attack=Mute()).save(tmp_path / "trainer.keras")


def test_a_lambda_is_refused_when_it_is_loaded(tmp_path):
    model = pt.AdversarialTraining(dense_network(), attack=lambda logits_fn, x, y, *, seed: x)
    with pytest.warns(UserWarning, match="lambda"):
        model.save(tmp_path / "trainer.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.models.load_model(tmp_path / "trainer.keras")
