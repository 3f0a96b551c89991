"""Recipes: the trainings of the study's flag files, scaled to the images that they are given."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import pineat_tf as pt
from experiments import command_line, method
from pineat_tf import recipes

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(size=(40, 6, 6, 1)).astype(np.float32), np.arange(40) % 3
MAKERS = {
    "balanced": recipes.balanced,
    "certified": recipes.certified,
    "light": recipes.light,
    "pineat": recipes.pineat,
}


def network():
    layers = [keras.Input((6, 6, 1)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(3)])


def config_of(*files):
    values = flags.FlagValues()
    command_line.define_flags(values)
    arguments = [f"--flagfile={name}.flags" for name in files]
    command_line.parsed(values, command_line.expand_flagfiles(["x", *arguments]), "")
    return command_line.config_from(values)


@pytest.mark.parametrize(
    "name, files",
    [
        ("certified", ("fmnist_ibp", "study", "scarce", "fmnist_best")),
        ("balanced", ("fmnist_ibp", "study", "scarce", "fmnist_balanced")),
        ("light", ("fmnist_pgd", "study", "scarce", "fmnist_light")),
        ("pineat", ("fmnist_pgd", "study", "scarce")),
    ],
)
def test_a_recipe_is_the_training_of_its_flag_files(name, files):
    config = config_of(*files)
    recipe = MAKERS[name](config.train_size, epsilon=config.epsilon)
    assert abs(recipe.updates / config.scaled_updates - 1) < 0.02  # whole passes
    assert (recipe.batch_size, recipe.ratio) == (config.batch_size, str(config.round_ratio))
    assert (recipe.max_shift, recipe.flip) == (config.augment_pad, config.augment_flip)
    trainer = recipe.trainer(network())
    theirs = method.trainer(config, network())
    assert trainer.companions == theirs.companions and trainer.companion_objective == theirs.companion_objective
    if recipe.attack:
        for one in ("epsilon", "num_steps", "bounds"):
            assert getattr(trainer.attack, one) == getattr(theirs.attack, one)
        assert trainer.attack.step.step_size == pytest.approx(theirs.attack.step.step_size)
    else:
        assert theirs.attack is None
        for one in ("epsilon", "natural_weight", "mixture"):
            assert getattr(trainer.objective, one) == getattr(theirs.objective, one)
        shares = (
            np.divide(one.objective.ramp, n) for one, n in ((trainer, recipe.updates), (theirs, config.scaled_updates))
        )
        np.testing.assert_allclose(*shares, atol=1e-3)
    assert (recipe.ema_momentum, trainer.optimizer.use_ema) == (config.ema_momentum, config.ema_momentum > 0)
    schedule = trainer.optimizer._learning_rate
    assert schedule.values == pytest.approx(config.learning_rates)
    assert np.divide(schedule.boundaries, recipe.updates) == pytest.approx([0.8, 0.925], abs=1e-3)


def test_the_ramp_is_of_the_length_that_the_recipe_has():
    recipe = recipes.certified(1000, epsilon=0.1, epochs=10)
    for one, updates in ((recipe, 400), (dataclasses.replace(recipe, epochs=30, batch_size=50), 600)):
        trainer = one.trainer(network())
        assert one.updates == updates and trainer.objective.ramp == (0.1 * updates, 0.475 * updates)
    ramps = ((0.5, 0.1), (0.1,), (500, 2000), 0.5, "ab", ("0", "1"), (None, None), {0.1, 0.5}, True)
    for wrong in (*({"ramp": ramp} for ramp in ramps), {"objective": pt.objectives.CrossEntropy()}):
        with pytest.raises(ValueError, match="two rising shares"):
            dataclasses.replace(recipe, **wrong)
    for pair in ([0.1, 0.475], np.array([0.1, 0.475])):
        assert dataclasses.replace(recipe, ramp=pair, bounds=[0, 1]) == recipe and hash(recipe)


class Weights(keras.callbacks.Callback):
    """Keeps the weights after each update."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([variable.numpy() for variable in self.model.network.trainable_variables])


def test_the_network_has_the_averages_of_its_weights_after_fit(tmp_path):
    recipe, kept = dataclasses.replace(recipes.balanced(40, epsilon=0.05, epochs=5), ema_momentum=0.3), Weights()
    trainer = recipe.trainer(network())
    trainer.fit(recipe.batches(X, Y), epochs=recipe.epochs, verbose=0, callbacks=[kept])
    average = kept.seen[0]
    for weights in kept.seen:
        average = [0.3 * before + 0.7 * now for before, now in zip(average, weights)]
    found = trainer.network.get_weights()
    assert all(np.allclose(*pair, atol=1e-6) for pair in zip(found, average))
    assert not all(np.allclose(*pair, atol=1e-6) for pair in zip(found, kept.seen[-1]))
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    assert all(map(np.array_equal, loaded.network.get_weights(), found))


def test_averages_of_a_short_training_reach_back_over_a_tenth_of_it():
    def momentum(num_images, **changes):
        recipe = dataclasses.replace(recipes.balanced(num_images, epsilon=0.1), **changes)
        optimizer = recipe.trainer(network()).optimizer
        return optimizer.ema_momentum if optimizer.use_ema else 0

    assert momentum(2500) == 0.998
    assert momentum(120) == pytest.approx(1 - 10 / 420)
    assert momentum(120, epochs=1) == momentum(2500, ema_momentum=0.0) == 0


@pytest.mark.parametrize("name", MAKERS)
def test_a_recipe_trains_as_long_as_its_schedule_says(name):
    recipe = MAKERS[name](40, epsilon=0.05, epochs=2)
    trainer = recipe.trainer(network(), seed=3)
    history = trainer.fit(recipe.batches(X, Y), epochs=recipe.epochs, verbose=0).history
    assert int(trainer.optimizer.iterations) == recipe.updates and np.isfinite(history["loss"]).all()


def test_batches_are_all_images_shifted_and_mirrored_in_another_way_each_pass():
    recipe = recipes.light(40, epsilon=0.05, bounds=(-1.0, 1.0))
    steps = np.linspace(-1, 1, 41)[1:]
    images = np.full((40, 6, 6, 1), 0.0, np.float32) + steps[:, None, None, None].astype(np.float32)
    passes = []
    dataset = recipe.batches(images, np.arange(40), seed=1)
    for _ in range(2):
        given, labels = (np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator()))
        assert sorted(labels) == list(range(40))
        for image, label in zip(given, labels):
            assert set(np.unique(image)) <= {np.float32(-1), np.float32(steps[label])}  # shifts bring in the lower end
            assert (image == np.float32(steps[label])).sum() in (25, 30, 36)
        passes.append(given)
    assert not np.array_equal(*passes)
    again = np.concatenate([batch for batch, _ in recipe.batches(images, np.arange(40), seed=1).as_numpy_iterator()])
    assert np.array_equal(again, passes[0])


def test_half_of_the_images_are_mirrored():
    recipe = recipes.certified(40, epsilon=0.05, max_shift=0)
    given, labels = (np.concatenate(parts) for parts in zip(*recipe.batches(X, Y + 0).as_numpy_iterator()))
    same = sum(any(np.array_equal(image, one) for one in X) for image in given)
    mirrored = sum(any(np.array_equal(image[:, ::-1], one) for one in X) for image in given)
    assert same + mirrored == 40 and 10 <= mirrored <= 30


def test_what_a_recipe_refuses():
    with pytest.raises(ValueError, match="`images` must be those .* Received: 40 for num_images=50"):
        recipes.light(50, epsilon=0.1).batches(X, Y)
    with pytest.raises(ValueError, match="`labels` must be those .* Received: 3 "):
        recipes.light(40, epsilon=0.1).batches(X, Y[:3])
    with pytest.raises(ValueError, match=r"shifts and flips are of images .* with max_shift=0 and flip=False"):
        recipes.certified(40, epsilon=0.1).batches(X.reshape(40, 36), Y)
    vectors = recipes.certified(40, epsilon=0.1, max_shift=0, flip=False).batches(X.reshape(40, 36), Y)
    assert next(iter(vectors))[0].shape == (25, 36)
    for name, value in (("epochs", 0), ("max_shift", -1), ("epochs", 1.5)):
        with pytest.raises(ValueError, match=f"`{name}`"):
            recipes.certified(40, epsilon=0.1, **{name: value})
    with pytest.raises(ValueError, match="`seed` must be a whole number >= 0"):
        recipes.light(40, epsilon=0.1).batches(X, Y, seed=None)
    with pytest.raises(ValueError, match=r"images\[\.\.\., None\]"):
        recipes.light(40, epsilon=0.1).batches(X[..., 0], Y)
    recipe, dataset = recipes.light(40, epsilon=0.1), tf.data.Dataset.from_tensor_slices((X, Y))
    for images, labels in ((dataset, Y), (X, None), (iter(X), Y)):
        with pytest.raises(ValueError, match="must be an array.* is for `fit` as it is"):
            recipe.batches(images, labels)
    with pytest.raises(ValueError, match="must be floating point for bounds"):
        recipe.batches((255 * X).astype(np.uint8), Y)
    with pytest.raises(ValueError, match="Images must be numbers"):
        recipe.batches(X.astype(str), Y)
    with pytest.raises(ValueError, match="`max_shift` must be less than height and width"):
        recipes.light(40, epsilon=0.1, max_shift=6).batches(X, Y)


@pytest.mark.parametrize("name", MAKERS)
def test_no_recipe_of_a_radius_or_a_range_that_is_none(name):
    for epsilon in (None, "0.1", 0, np.nan):
        with pytest.raises(ValueError, match="`epsilon`"):
            MAKERS[name](40, epsilon=epsilon)
    recipe = MAKERS[name](40, epsilon=0.1)
    wrong = {"bounds": (1, 0), "batch_size": 0, "learning_rate": np.nan, "ratio": "x", "flip": "no", "ema_momentum": 1}
    for field, value in wrong.items():
        with pytest.raises(ValueError, match=f"`{field}`"):
            dataclasses.replace(recipe, **{field: value})
    with pytest.raises(ValueError, match="`bounds` must say what shifts move in"):
        dataclasses.replace(recipe, bounds=None, max_shift=1)
    assert dataclasses.replace(recipe, bounds=None, max_shift=0, flip=False).bounds is None
    with pytest.raises(ValueError, match="`bounds` must be those of the (attack|objective)"):
        dataclasses.replace(recipe, bounds=(0, 255))
    with pytest.warns(UserWarning, match="epsilon=8 is more than the whole range"):
        MAKERS[name](40, epsilon=8)


def test_recipes_are_part_of_the_library():
    assert pt.recipes.__all__ == ["Recipe", "balanced", "certified", "light", "pineat"]
    assert tf.is_tensor(next(iter(pt.recipes.pineat(40, epsilon=0.1).batches(X, Y)))[0])
