"""Robust accuracy by hand on a linear network, and what an evaluation promises: order, resuming, images, warnings."""

import dataclasses
import json
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import linear_network

import pineat_tf as pt
from pineat_tf import evaluation_state, masking

# Two pixels, logits (x0, x1): an image of class 0 is lost at radius (x0 - x1) / 2.
X = np.float32([[0.95, 0.15], [0.6, 0.4], [0.7, 0.5], [0.2, 0.8], [0.3, 0.4]])
Y = np.array([0, 0, 0, 1, 0])  # the last one is wrong from the start; the others are lost at .4, .1, .1, .3
RADII = (0.05, 0.15, 0.35)
ACCURACIES = (0.8, 0.8, 0.4, 0.2)


@pytest.fixture(scope="module")
def linear():
    return linear_network(np.eye(2), np.zeros(2))


def fgsm(epsilon):
    return pt.attacks.pgd(epsilon=epsilon, step_size=epsilon, num_steps=1, random_start=False)


def nothing(epsilon):
    return lambda logits_fn, x, y, *, seed: x


@dataclasses.dataclass(frozen=True)
class Nothing:
    """An attack that does nothing, and is told from others by value."""

    strength: float = 0.0

    def __call__(self, logits_fn, x, y, *, seed=0):
        return x


@dataclasses.dataclass(frozen=True)
class Says:
    """An attack of the library's that says its threat model."""

    epsilon: float
    norm: str = "linf"
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __call__(self, logits_fn, x, y, *, seed=0):
        attack = pt.attacks.pgd(
            epsilon=self.epsilon, step_size=self.epsilon, num_steps=1, random_start=False, norm=self.norm,
            bounds=self.bounds,
        )  # fmt: skip
        return attack(logits_fn, x, y, seed=seed)


def evaluated(network, attacks=None, data=(X, Y), epsilons=RADII, **options):
    return pt.robustness(network, data, attacks or {"fgsm": fgsm}, epsilons=epsilons, **options)


@pytest.fixture(scope="module")
def by_hand(linear):
    """An evaluation as computed by hand, with its images and without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return evaluated(linear, epsilons=RADII[::-1], keep_images=True)  # the order of radii does not matter


class TestFigures:
    def test_accuracy_falls_as_computed_by_hand(self, by_hand):
        assert by_hand.epsilons == (0.0, *RADII) and by_hand.warnings == ()
        assert by_hand.accuracies == pytest.approx(ACCURACIES)
        np.testing.assert_array_equal(by_hand.fooled_at, [-1, 2, 2, 3, 0])
        np.testing.assert_array_equal(by_hand.fooled_by, [-1, 0, 0, 0, -1])
        np.testing.assert_array_equal(by_hand.success(0.15), [False, True, True, False, True])
        assert by_hand.accuracy(0.35) == pytest.approx(0.2)
        low, high = by_hand.interval(0.35)  # 1 of 5
        assert low == pytest.approx(0.005050763379) and high == pytest.approx(0.7164179361)
        record = json.loads(json.dumps(by_hand.to_dict(), allow_nan=False))
        assert record["accuracies"] == pytest.approx(ACCURACIES) and record["epsilons"] == [0.0, *RADII]
        assert record["after_each_attack"][2] == {"fgsm": pytest.approx(0.4)} and record["num"] == 5
        with pytest.raises(ValueError, match="`epsilon`"):
            by_hand.accuracy(0.2)

    def test_kept_images_are_those_that_fooled(self, by_hand):
        for epsilon in RADII:
            wrong = np.argmax(by_hand.clipped[epsilon], axis=1) != Y
            np.testing.assert_array_equal(wrong, by_hand.success(epsilon))
            np.testing.assert_array_equal(by_hand.raw[epsilon], by_hand.clipped[epsilon])
        np.testing.assert_allclose(by_hand.clipped[0.15][1], [0.45, 0.55], atol=1e-6)
        np.testing.assert_array_equal(by_hand.clipped[0.15][0], X[0])
        np.testing.assert_array_equal(by_hand.clipped[0.15][1], by_hand.clipped[0.35][1])  # lost once, lost for good

    def test_each_attack_has_what_it_took(self, linear):
        result = evaluated(linear, {"nothing": nothing, "fgsm": fgsm, "again": fgsm}, epsilons=RADII[:2], check=False)
        assert result.after_each_attack(0.15) == pytest.approx({"nothing": 0.8, "fgsm": 0.4, "again": 0.4})
        assert result.after_each_attack(0.0) == pytest.approx({"nothing": 0.8, "fgsm": 0.8, "again": 0.8})

    def test_what_leaves_the_ball_is_brought_back_before_it_is_judged(self, linear):
        far = {"far": lambda epsilon: lambda logits_fn, x, y, *, seed: x + tf.reverse(x, [1]) * 9.0 - 9.0 * x}
        result = evaluated(linear, far, bounds=None, keep_images=True, check=False)
        assert result.accuracies == pytest.approx(ACCURACIES)
        assert np.abs(result.raw[0.15] - X).max() > 1.0
        assert np.abs(result.clipped[0.15] - X).max() <= 0.15 + 1e-6

    def test_l2_radii(self, linear):
        # An image of class 0 is lost at the L2 radius (x0 - x1) / sqrt(2): .57, .14, .14, .42.
        attack = {"pgd": lambda epsilon: pt.attacks.pgd(
            epsilon=epsilon, step_size=epsilon, num_steps=2, random_start=False, norm="l2")}  # fmt: skip
        result = evaluated(linear, attack, epsilons=(0.13, 0.15, 0.43), norm="l2", check=False)
        assert result.accuracies == pytest.approx((0.8, 0.8, 0.4, 0.2))


class TestStreaming:
    def test_only_robust_images_go_on_in_whole_batches(self, linear):
        seen, told = [], []

        def watched(epsilon):
            def attack(logits_fn, x, y, *, seed):
                tf.numpy_function(lambda images: seen.append(len(images)), [x], [])
                return fgsm(epsilon)(logits_fn, x, y, seed=seed)

            return attack

        options = {"batch_size": 3, "check": False, "on_batch": lambda *numbers: told.append(numbers)}
        evaluated(linear, {"a": watched, "b": watched}, epsilons=(0.15, 0.35), **options)
        assert seen == [3, 1, 2, 2, 1]  # 4 are right at first; 2 are lost at .15, then 1 of 2 at .35
        assert told == [(3, 4), (4, 4), (2, 2), (2, 2), (1, 1)]

    @pytest.mark.parametrize("labels", [np.eye(2, dtype=np.float32)[Y], Y[:, None]], ids=["one_hot", "column"])
    def test_a_dataset_gives_what_arrays_give(self, linear, labels):
        dataset = tf.data.Dataset.from_tensor_slices((X, labels)).batch(2)
        result = evaluated(linear, data=dataset, batch_size=4, epsilons=RADII[1:2], check=False)
        assert result.accuracies == pytest.approx((0.8, 0.4))

    def test_a_dataset_that_changes_its_order_is_refused(self, linear):
        dataset = tf.data.Dataset.from_tensor_slices((np.tile(X, (20, 1)), np.tile(Y, 20))).shuffle(100).batch(10)
        with pytest.raises(ValueError, match="same order in every pass.*reshuffle_each_iteration"):
            evaluated(linear, data=dataset)

    def test_the_seed_decides(self, linear):
        def result(seed):
            attack = {"random": lambda epsilon: pt.queries.RandomInBall(epsilon=epsilon)}
            data = np.tile(X, (8, 1)), np.tile(Y, 8)
            options = {"epsilons": (0.35,), "keep_images": True, "check": False}
            return evaluated(linear, attack, data, seed=seed, **options).raw[0.35]

        np.testing.assert_array_equal(result(1), result(1))
        assert not np.array_equal(result(1), result(2))


class Stop:
    """Interrupts an evaluation after so many batches."""

    def __init__(self, batches):
        self.left = batches

    def __call__(self, done, of):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


class TestResuming:
    ATTACKS = {"random": lambda epsilon: pt.queries.RandomInBall(epsilon=epsilon), "fgsm": fgsm}
    OPTIONS = {"batch_size": 2, "check": False, "epsilons": RADII[1:]}

    @pytest.fixture(scope="class")
    def whole(self, linear):
        return evaluated(linear, self.ATTACKS, **self.OPTIONS)

    @pytest.mark.parametrize("fails_at", range(1, 7))
    def test_an_interrupted_evaluation_goes_on_where_it_was(self, linear, whole, tmp_path, fails_at, monkeypatch):
        monkeypatch.setattr("pineat_tf.robust_accuracy._SAVE_SECONDS", 0.0)
        path = tmp_path / "state.json"
        with pytest.raises(KeyboardInterrupt):
            evaluated(linear, self.ATTACKS, state_path=path, on_batch=Stop(fails_at), **self.OPTIONS)
        assert path.exists()
        resumed = evaluated(linear, self.ATTACKS, state_path=path, **self.OPTIONS)
        np.testing.assert_array_equal(resumed.fooled_at, whole.fooled_at)
        np.testing.assert_array_equal(resumed.fooled_by, whole.fooled_by)
        assert not list(tmp_path.iterdir())


class TestIdentity:
    """A state is taken up by the same evaluation alone: each change of a part of it is refused."""

    ATTACKS = {"a": Nothing(), "fgsm": fgsm}

    def network(self, activation="relu", precision="float32"):
        keras.utils.set_random_seed(0)
        layers = keras.layers.Dense(4, activation, dtype=precision), keras.layers.Dense(2, dtype=precision)
        return keras.Sequential([keras.Input((2,)), *layers])

    @pytest.fixture(scope="class")
    def kept(self, tmp_path_factory):
        """A state that an interrupted evaluation left."""
        path = tmp_path_factory.mktemp("kept") / "state.json"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("pineat_tf.robust_accuracy._SAVE_SECONDS", 0.0)
            evaluated(self.network(), self.ATTACKS, state_path=path, on_batch=Stop(2), check=False)
        return path

    @pytest.fixture
    def path(self, kept, tmp_path):
        return shutil.copy(kept, tmp_path / "state.json")

    def resumed(self, path, **options):
        calls = {"attacks": self.ATTACKS, "network": self.network(), "check": False} | options
        return evaluated(calls.pop("network"), state_path=path, **calls)

    def test_a_network_of_the_same_values_goes_on(self, path):
        attacks, calls = {"a": Nothing(), "fgsm": fgsm}, []
        result = self.resumed(path, attacks=attacks, on_batch=lambda *numbers: calls.append(numbers))
        assert result.accuracies == evaluated(self.network(), attacks, check=False).accuracies
        assert len(calls) == 2 * len(RADII) - 1  # the first attack was done

    def test_any_other_part_is_refused(self, path):
        others = [
            {"network": self.network("elu")},
            {"network": self.network("relu", "mixed_bfloat16")},
            {"attacks": {"a": Nothing(1.0), "fgsm": fgsm}},
            {"data": (X, np.array([0, 0, 0, 1, 1]))},
            {"data": (X * 0.9, Y)},
            {"batch_size": 2},  # what is done is counted in batches
            {"seed": 1},
            {"epsilons": (0.1,)},
            {"bounds": (0.0, 2.0), "attacks": {"a": Nothing()}},
        ]
        for other in others:
            with pytest.raises(ValueError, match="of an evaluation of other weights, images, labels, attacks or radii"):
                self.resumed(path, **other)

    def test_damaged_states_are_refused(self, path):
        whole = json.loads(path.read_text())
        for change in ("fooled_at", "stage", "batches", "probe", "checksum"):
            damaged = json.loads(path.read_text())
            where = damaged if change == "checksum" else damaged["content"]
            where[change] = "0" * 64 if change == "checksum" else 99
            path.write_text(json.dumps(damaged))
            with pytest.raises(ValueError, match="is no state of an evaluation"):
                self.resumed(path)
            path.write_text(json.dumps(whole))
        path.write_bytes(b"no state")
        with pytest.raises(ValueError, match="is no state of an evaluation"):
            self.resumed(path)

    @pytest.mark.parametrize(
        "name, value",
        [("fooled_at", 9), ("fooled_by", 9), ("fooled_by", -2), ("fooled_at", 0.5), ("stage", [9, 0]), ("batches", -1)],
    )
    def test_states_out_of_range_are_refused_although_their_checksum_fits(self, path, name, value):
        state = json.loads(path.read_text())
        entries = state["content"][name]
        whole = name in ("stage", "batches")
        state["content"][name] = value if whole else [value, *entries[1:]]
        state["checksum"] = evaluation_state._checksum(state["content"])
        path.write_text(json.dumps(state))
        with pytest.raises(ValueError, match="is no state of an evaluation: its entries are"):
            self.resumed(path)

    def test_what_has_no_identity_is_refused(self, tmp_path):
        for attack in (nothing(0.1), lambda logits_fn, x, y, *, seed=0: x):
            with pytest.raises(ValueError, match="With `state_path`.*frozen dataclass"):
                self.resumed(tmp_path / "state.json", attacks=[attack])
        with pytest.raises(ValueError, match="`keep_images` or `state_path`, not both"):
            self.resumed(tmp_path / "state.json", keep_images=True)


class TestCalls:
    @pytest.mark.parametrize(
        "attacks, names",
        [
            (Says(0.15), ("Says",)),
            ([Says(0.15)], ("Says",)),
            ((fgsm, fgsm), ("fgsm", "fgsm_2")),
            ({"own": Says(0.15)}, ("own",)),
            (fgsm, ("fgsm",)),
            ([lambda epsilon: fgsm(epsilon)], ("attack",)),
        ],
    )
    def test_attacks_and_what_makes_them_in_every_structure(self, linear, attacks, names):
        result = evaluated(linear, attacks, epsilons=[0.15], check=False)
        assert result.attacks == names and result.accuracies == pytest.approx((0.8, 0.4))

    def test_radius_norm_and_range_are_the_attacks(self, linear):
        attack = Says(0.15, norm="l2", bounds=(-1.0, 1.0))
        result = pt.robustness(linear, (X - 0.5, Y), attack, check=False)
        assert (result.epsilons, result.norm) == ((0.0, 0.15), "l2")

    @pytest.mark.parametrize(
        "attacks, options, match",
        [
            (Says(0.1), {"epsilons": [0.2]}, "radius of its own"),
            (lambda epsilon: Says(0.1), {"epsilons": [0.2]}, "radius of its own"),
            (fgsm, {}, "`epsilons` is needed"),
            ([Says(0.1), Says(0.2)], {}, "`epsilons` is needed"),
            (Says(0.1), {"norm": "l2"}, "`norm` must be the same"),
            (Says(0.1), {"bounds": (0, 255)}, "`bounds` must be the same"),
            (Says(0.1), {"bounds": None}, "`bounds` must be the same"),
            (3, {"epsilons": [0.1]}, "must be an attack"),
            (lambda a, b: a, {"epsilons": [0.1]}, "must be an attack, called as"),
            (lambda epsilon: None, {"epsilons": [0.1]}, "must make an attack"),
        ],
    )
    def test_contradictions_are_told(self, linear, attacks, options, match):
        with pytest.raises(ValueError, match=match):
            pt.robustness(linear, (X, Y), attacks, **options)

    def test_what_needs_more_classes_or_images_is_left_out_before_anything_runs(self, linear):
        def needy(**needs):
            attack = fgsm(0.15)
            wrapped = lambda logits_fn, x, y, *, seed=0: attack(logits_fn, x, y, seed=seed)  # noqa: E731
            vars(wrapped).update(needs)
            return wrapped

        attacks = {"four": needy(min_classes=4), "images": needy(image_rank=4), "fgsm": fgsm}
        with pytest.warns(UserWarning, match="'four' was left out: it needs 4 classes"):
            result = evaluated(linear, attacks, epsilons=[0.15], check=False)
        assert result.attacks == ("fgsm",) and len(result.warnings) == 2
        with pytest.raises(ValueError, match="No attack fits"):
            evaluated(linear, [needy(min_classes=4)], epsilons=[0.15])

    def test_the_standard_ensemble_takes_vectors_of_two_classes(self, linear):
        attacks = pt.attacks.auto_attack(num_steps=1, num_queries=1)
        with pytest.warns(UserWarning, match="'square' was left out: it needs images of shape"):
            result = evaluated(linear, attacks, epsilons=[0.15], check=False)
        assert result.attacks == ("apgd_ce", "fab_t")

    def test_one_logit_is_attacked_as_two_classes(self):
        one, two = linear_network([[-1.0], [1.0]], [0.0]), linear_network(np.eye(2), np.zeros(2))
        expected = evaluated(two, check=False).accuracies
        assert evaluated(one, check=False).accuracies == pytest.approx(expected)


class TestErrors:
    @pytest.mark.parametrize(
        "options, message",
        [
            ({"epsilons": ()}, "at least one"),
            ({"epsilons": (0.1, 0.1)}, "differ"),
            ({"epsilons": (0.0,)}, "`epsilons` must be positive"),
            ({"norm": "l1"}, "`norm`"),
            ({"batch_size": 0}, "`batch_size`"),
            ({"bounds": (1.0, 0.0)}, "bounds"),
            ({"data": (X[:0], Y[:0])}, "at least one"),
            ({"data": (X * 2, Y)}, "every pixel must lie in the bounds"),
            ({"data": (X, Y[:3])}, "as many labels as images"),
            ({"data": (X, Y + 2)}, r"must lie in 0 .. 1, as the network has 2 logits.*Received.*3"),
        ],
    )
    def test_bad_arguments_are_told(self, linear, options, message):
        with pytest.raises(ValueError, match=message):
            evaluated(linear, **options)

    def test_no_attack_and_no_logits(self, linear):
        with pytest.raises(ValueError, match="at least one attack"):
            pt.robustness(linear, (X, Y), {}, epsilons=[0.1])
        softmax = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2, activation="softmax")])
        with pytest.raises(ValueError, match="logits"):
            evaluated(softmax)

    def test_a_network_without_finite_logits_is_refused(self):
        network = linear_network([[np.nan, 0], [0, np.nan]], [0, 0])
        with pytest.raises(ValueError, match="finite logits for natural images. Received: NaN or infinite ones for 5"):
            evaluated(network, check=False)

    def test_logits_that_an_attack_drives_to_infinity_count_as_fooled(self):
        network = linear_network(np.eye(2) * 3e38, [0, 0])  # beyond 1.13 there is no float32
        far = {"far": lambda _: lambda f, x, y, *, seed: x + 1.0}
        result = evaluated(network, far, epsilons=(1.0,), bounds=None, check=False)
        assert result.accuracies == pytest.approx((0.8, 0.0))


class TestWarnings:
    def check(self, network, x=X, y=Y):
        return masking.check_network(network, x, y, epsilon=0.1)

    def test_probabilities(self):
        network = keras.Sequential(
            [keras.layers.Input((2,)), keras.layers.Dense(2), keras.layers.Lambda(tf.nn.softmax)]
        )
        network.layers[0].set_weights([9.0 * np.eye(2), np.zeros(2)])
        with pytest.raises(ValueError, match="outputs are probabilities"):
            self.check(network)

    def test_randomness(self):
        noisy = keras.Sequential(
            [keras.layers.Input((2,)), keras.layers.Lambda(lambda x: x + 0.1 * tf.random.normal(tf.shape(x)))]
        )
        assert "two calls with the same images" in " ".join(self.check(noisy))

    def test_no_gradient(self):
        # A sigmoid of 1e4 x is 1 to the last bit where x > 0: its slope is 0, and an attack stands still.
        saturated = keras.Sequential(
            [keras.layers.Input((2,)), keras.layers.Dense(2, activation="sigmoid"), keras.layers.Dense(2)]
        )
        saturated.set_weights([1e4 * np.eye(2), np.full(2, 1e3), 9.0 * np.eye(2), np.zeros(2)])
        labels = np.argmax(saturated(X), axis=1)
        (sign,) = self.check(saturated, y=labels)
        assert "exactly 0 at 100.0% of them" in sign
        stepped = keras.Sequential([keras.layers.Input((2,)), keras.layers.Lambda(lambda x: tf.round(4 * x))])
        assert "operations that have a gradient" in " ".join(self.check(stepped))

    @pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float16", "mixed_bfloat16", "bfloat16"])
    @pytest.mark.parametrize("sure", [1.0, 5000.0])
    def test_a_network_is_not_suspected_of_being_sure_or_of_half_precision(self, policy, sure):
        network = keras.Sequential([keras.layers.Input((2,), dtype="float32"), keras.layers.Dense(2, dtype=policy)])
        network.set_weights([9.0 * sure * np.eye(2), np.zeros(2)])
        assert self.check(network) == ()

    def test_more_steps_that_are_weaker(self):
        assert masking._weaker_by_steps(0.5, 0.6).startswith(
            "50 attack steps left an accuracy of 60.0%, 10 steps 50.0%"
        )
        assert masking._weaker_by_steps(0.5, 0.51) == ""

    def test_what_only_a_black_box_finds(self, linear):
        with pytest.warns(UserWarning, match="60.0% of the images were fooled by a black-box attack alone"):
            assert len(evaluated(linear, {"nothing": nothing, "square": fgsm}).warnings) == 1

    def test_accuracy_where_there_can_be_none(self, linear):
        with pytest.warns(UserWarning, match="the robust accuracy is 80.0% at radius 0.5"):
            evaluated(linear, {"nothing": nothing}, epsilons=(0.5,))


def test_the_standard_ensemble_takes_a_small_network_apart(network, images):
    labels = np.argmax(network(images), axis=1)
    attacks = pt.attacks.auto_attack(num_steps=5, num_queries=20, num_targets=2)
    assert list(attacks) == ["apgd_ce", "apgd_t", "fab_t", "square"]
    for norm, epsilon in (("linf", 0.3), ("l2", 1.0)):
        attacks = pt.attacks.auto_attack(norm=norm, num_steps=5, num_queries=20, num_targets=2)
        attacks.pop("apgd_t")  # it needs 4 classes
        result = pt.robustness(network, (images, labels), attacks, epsilons=[epsilon], norm=norm, check=False)
        assert result.accuracies[0] == 1 and result.accuracies[1] < 1
    with pytest.raises(ValueError, match="norm"):
        pt.attacks.auto_attack(norm="l1")


@pytest.mark.parametrize(
    "bounds, warned", [((0.0, 1.0), True), ((-1.0, 1.0), False), ((0.0, 255.0), False), (None, False)]
)
def test_whether_every_pixel_can_become_grey_depends_on_the_bounds(bounds, warned):
    found = masking.check_figures(np.array([0, -1]), ["a"], norm="linf", epsilon=0.5, accuracy=0.5, bounds=bounds)
    assert bool(found) == warned


@pytest.mark.parametrize(
    "attacks, warned", [(["square", "apgd"], False), (["apgd", "square"], True), (["square"], False)]
)
def test_only_what_the_gradients_left_tells_of_masking(attacks, warned):
    by = np.array([attacks.index("square"), -1])
    found = masking.check_figures(by, attacks, norm="linf", epsilon=0.1, accuracy=0.5, bounds=(0.0, 1.0))
    assert bool(found) == warned
