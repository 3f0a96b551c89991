"""The oracles against hand arithmetic, finite differences and published figures."""

import pathlib
import subprocess
import sys

import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

UNIT = (0.0, 1.0)

# Two examples of three pixels and a three-by-two linear model, used throughout.
X = np.array([[0.2, 0.5, 0.8], [0.9, 0.1, 0.4]])
Y = np.array([0, 1])
MODEL = oracles.LinearModel([[1, -1], [0.5, 2], [-1.5, 0.3]], [0.1, -0.2])


def numerical_gradient(function, array, step=1e-6):
    """Return the central differences of a scalar function of one array."""
    array = np.array(array, np.float64)
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        up, down = array.copy(), array.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def assert_is_gradient(actual, function, at):
    assert_allclose(actual, numerical_gradient(function, at), rtol=1e-6, atol=1e-8)


def small_images(seed=0):
    """Return 3 images of 2x2x1, their labels and a model of 4 inputs, 3 classes."""
    rng = np.random.default_rng(seed)
    model = oracles.TanhMLP(
        rng.normal(size=(4, 5)),
        rng.normal(size=5),
        rng.normal(size=(5, 3)),
        rng.normal(size=3),
    )
    return rng.uniform(size=(3, 2, 2, 1)), np.array([0, 2, 1]), model


def test_the_oracles_do_without_tensorflow():
    code = "import sys, oracles; sys.exit('tensorflow' in sys.modules)"
    here = pathlib.Path(oracles.__file__).parent
    assert subprocess.run([sys.executable, "-c", code], cwd=here).returncode == 0


# Models


def test_linear_logits_by_hand():
    # row 1: .2*1 + .5*.5 - .8*1.5 + .1 = -.65,  -.2 + 1 + .24 - .2 = .84
    # row 2: .9 + .05 - .6 + .1 = .45,           -.9 + .2 + .12 - .2 = -.78
    assert_allclose(MODEL.logits(X), [[-0.65, 0.84], [0.45, -0.78]], atol=1e-15)


def test_tanh_mlp_by_hand():
    # hidden = tanh(2 * ln(2)/2) = (2 - 1/2)/(2 + 1/2) = .6; logits = (.6, -1.2 + 1)
    # pull (1, 0) back: 1 * (1 - .36) * 2 = 1.28
    model = oracles.TanhMLP([[2.0]], [0.0], [[1.0, -2.0]], [0.0, 1.0])
    x = np.array([[np.log(2) / 2]])
    assert_allclose(model.logits(x), [[0.6, -0.2]])
    assert_allclose(model.input_gradient(x, np.array([[1.0, 0.0]])), [[1.28]])


def test_input_gradients_agree_with_differences():
    images, _, mlp = small_images()
    linear = oracles.LinearModel(np.arange(12).reshape(4, 3) / 7, [0.0, 1.0, 2.0])
    pulled = np.random.default_rng(1).normal(size=(3, 3))
    for model in (linear, mlp):
        actual = model.input_gradient(images, pulled)
        assert actual.shape == images.shape
        assert_is_gradient(actual, lambda x, model=model: np.sum(pulled * model.logits(x)), images)


# Losses


@pytest.mark.parametrize(
    "logits, labels, expected",
    [
        # figures of TensorFlow Privacy's own tests
        ([[-0.3, 1.5, 0.2], [2, 3, 0.5]], [1, 0], [0.36313551, 1.37153903]),
        ([[2, 0.3, 0.2], [0.3, -0.5, 0.2]], [0, 2], [0.29860897, 0.95618669]),
        # equal logits: log 2; a certain answer, right or wrong: 0 or the gap
        ([[5, 5], [1000, 0], [1000, 0]], [0, 0, 1], [np.log(2), 0, 1000]),
    ],
)
def test_cross_entropy(logits, labels, expected):
    assert_allclose(oracles.cross_entropy(labels, logits), expected, atol=1e-8)


def test_kl_divergence_by_hand():
    # p_nat = (1/2, 1/2), p = (3/4, 1/4): (ln(2/3) + ln 2)/2 = ln(4/3)/2
    natural, logits = np.zeros((1, 2)), np.log([[3.0, 1.0]])
    assert_allclose(oracles.kl_divergence(natural, logits), [np.log(4 / 3) / 2])
    assert_allclose(oracles.kl_divergence(logits, logits), [0.0])


def test_loss_gradients_agree_with_differences():
    rng = np.random.default_rng(2)
    natural, logits, labels = *rng.normal(size=(2, 4, 3)), np.array([0, 1, 2, 1])
    assert_is_gradient(
        oracles.cross_entropy_gradient(labels, logits),
        lambda z: oracles.cross_entropy(labels, z).sum(),
        logits,
    )
    assert_is_gradient(
        oracles.kl_gradient(natural, logits),
        lambda z: oracles.kl_divergence(natural, z).sum(),
        logits,
    )
    assert_is_gradient(
        oracles.kl_natural_gradient(natural, logits),
        lambda z: oracles.kl_divergence(z, logits).sum(),
        natural,
    )


def test_margin_and_dlr_by_hand():
    # the best other logit minus the label's; DLR divides by first minus third:
    #   (2, 1, .5, -1), y=0:   1 - 2    = -1;   over 2 - .5   -> -2/3
    #   (.3, 1.2, .9, .1), y=2: 1.2 - .9 = .3;  over 1.2 - .3 ->  1/3
    #   (5, -2, 4.5, 1), y=1:  5 + 2    = 7;    over 5 - 1    ->  7/4
    logits = [[2, 1, 0.5, -1], [0.3, 1.2, 0.9, 0.1], [5, -2, 4.5, 1]]
    assert_allclose(oracles.margin([0, 2, 1], logits), [-1, 0.3, 7])
    assert_allclose(oracles.dlr([0, 2, 1], logits), [-2 / 3, 1 / 3, 1.75])


def test_dlr_ignores_shift_and_scale():
    logits = np.array([[2, 1, 0.5, -1], [5, -2, 4.5, 1]])
    assert_allclose(oracles.dlr([0, 1], 3 * logits + 7), oracles.dlr([0, 1], logits))


# Attacks


def test_pgd_linf_reaches_the_corner():
    # Signs never change on a linear model of two classes. y=0 ascends along
    # w_1 - w_0 = (-2, 1.5, 1.8), y=1 against it. 5 * .03 > .1, so each pixel ends
    # at x -+ .1; the second example meets the bounds at 1 and 0.
    adversarial = oracles.pgd_linf(MODEL, X, Y, X, 0.1, 0.03, 5, UNIT)
    assert_allclose(adversarial, [[0.1, 0.6, 0.9], [1.0, 0.0, 0.3]], atol=1e-15)


def test_pgd_linf_steps_from_the_start():
    # one step of .03 from x + (.05, .05, -.05): example 1 moves by (-, +, +),
    # example 2 by (+, -, -); bounds None let example 2 leave [0, 1].
    start = X + [0.05, 0.05, -0.05]
    adversarial = oracles.pgd_linf(MODEL, X, Y, start, 0.1, 0.03, 1, None)
    assert_allclose(adversarial, start + 0.03 * np.array([[-1, 1, 1], [1, -1, -1]]))
    wide = oracles.pgd_linf(MODEL, X, Y, X, 0.2, 0.1, 5, None)
    assert_allclose(wide, [[0.0, 0.7, 1.0], [1.1, -0.1, 0.2]], atol=1e-15)


def test_attacks_take_images_and_raise_their_loss():
    images, labels, model = small_images()
    start = images + 0.01
    natural = model.logits(images)
    for attack in (oracles.pgd_linf, oracles.pgd_l2):
        found = attack(model, images, labels, start, 0.1, 0.02, 8, UNIT)
        assert found.shape == images.shape
        before = oracles.cross_entropy(labels, natural)
        assert np.all(oracles.cross_entropy(labels, model.logits(found)) > before)
    found = oracles.trades_kl(model, images, start, 0.1, 0.02, 8, UNIT)
    before = oracles.kl_divergence(natural, model.logits(start))
    assert np.all(oracles.kl_divergence(natural, model.logits(found)) > before)


def test_pgd_l2_by_hand():
    # w_1 - w_0 = (3, 4)/1: with y=0 the unit direction is (.6, .8) wherever we stand.
    # From (-1, 1), steps of .1: (-.94, 1.08), then (-.88, 1.16); radius .15 keeps
    # only (.09, .12), as NSL's adversarial_neighbor_test has it.
    model = oracles.LinearModel([[0.0, 3.0], [0.0, 4.0]], [0.0, 0.0])
    x, y = np.array([[-1.0, 1.0]]), np.array([0])

    def attack(epsilon, num_steps, bounds=None):
        return oracles.pgd_l2(model, x, y, x, epsilon, 0.1, num_steps, bounds)

    assert_allclose(attack(1.0, 1), [[-0.94, 1.08]])
    assert_allclose(attack(1.0, 2), [[-0.88, 1.16]])
    assert_allclose(attack(0.15, 2), [[-0.91, 1.12]])
    assert_allclose(attack(0.15, 2, (-1.0, 1.1)), [[-0.91, 1.1]])


def test_pgd_l2_stays_where_the_gradient_is_zero():
    model = oracles.LinearModel(np.zeros((3, 2)), np.zeros(2))
    assert_array_equal(oracles.pgd_l2(model, X, Y, X, 0.1, 0.1, 3, UNIT), X)


def test_dist_by_hand():
    # One example of two pixels, logits equal at x = (.5, .5), so p = (1/2, 1/2) and
    # the gradient is -1/2 * (2, 6) = (-1, -3). Coefficient .1: g = (-.1, -.3), mean
    # .2, moved = (.4, .2), both below x: moved + .2 = (.6, .4). The pixel with the
    # small gradient goes AGAINST it.
    model = oracles.LinearModel([[1.0, -1.0], [3.0, -3.0]], [-2.0, 2.0])
    x, y = np.array([[0.5, 0.5]]), np.array([0])
    assert_allclose(oracles.dist(model, x, y, x, 0.1, 1, UNIT), [[0.6, 0.4]])
    # With coefficient .5: g = (-.5, -1.5), mean 1, moved = (0, -1) -> (1, 0): on the
    # bounds, which hold no epsilon. In the tighter range [.2, .7]: (.7, .2).
    assert_allclose(oracles.dist(model, x, y, x, 0.5, 1, UNIT), [[1.0, 0.0]])
    assert_allclose(oracles.dist(model, x, y, x, 0.5, 1, (0.2, 0.7)), [[0.7, 0.2]])


def test_dist_pulls_towards_the_image_not_along_the_gradient():
    # From (.8, .4) the logits are equal again, g = (-.1, -.3), moved = (.7, .1): the
    # first pixel is above x = .5 and is pulled down, .7 - .2; the second up, .1 + .2.
    model = oracles.LinearModel([[1.0, -1.0], [3.0, -3.0]], [-2.0, 2.0])
    x, start, y = np.array([[0.5, 0.5]]), np.array([[0.8, 0.4]]), np.array([0])
    assert_allclose(oracles.dist(model, x, y, start, 0.1, 1, UNIT), [[0.5, 0.3]])


def test_dist_second_step_by_hand():
    # From (.6, .4), x still (.5, .5): logits 0 = .6 + 1.2 - 2 = -.2, logits 1 = .2, so
    # 1 - p_0 = 1/(1 + e^-.4) = s and g = -.1 * 2 s (1, 3) = -s (.2, .6); mean .4 s.
    # s = .5986877: moved = (.6 - .1197375, .4 - .3592126) = (.4802625, .0407874), both
    # below .5: + .2394751 = (.7197375, .2802625).
    model = oracles.LinearModel([[1.0, -1.0], [3.0, -3.0]], [-2.0, 2.0])
    x, y = np.array([[0.5, 0.5]]), np.array([0])
    assert_allclose(
        oracles.dist(model, x, y, x, 0.1, 2, UNIT),
        [[0.7197375, 0.2802625]],
        atol=1e-7,
    )


def test_dist_couples_the_batch():
    # Beside a second example of zero gradient (its label certain), the mean |g|
    # halves to .1: moved (.4, .2) + .1 = (.5, .3).
    model = oracles.LinearModel([[1.0, -1.0], [3.0, -3.0]], [-2.0, 2.0])
    x, y = np.array([[0.5, 0.5], [400.0, 400.0]]), np.array([0, 0])
    adversarial = oracles.dist(model, x, y, x, 0.1, 1, None)
    assert_allclose(adversarial, [[0.5, 0.3], [400.0, 400.0]])


# 15 steps at eps = 1.3, that is gamma = 1/(2 * 1.3) = 1/2.6.
WRM = [
    [-2.39973761, 2.4498032, 3.13976385],
    [3.4996771, -1.84975783, -1.93970939],
]


def test_wrm_l2_figures():
    assert_allclose(oracles.wrm_l2(MODEL, X, Y, 1 / 2.6, 15), WRM, atol=5e-9)


def test_wrm_l2_without_steps_is_one_gradient_step():
    # p = (1/2, 1/2), gradient -1/2 * 2 = -1; gamma = 1/4 gives eps = 2: .5 - 2.
    model = oracles.LinearModel([[1.0, -1.0]], [-0.5, 0.5])
    x, y = np.array([[0.5]]), np.array([0])
    assert_allclose(oracles.wrm_l2(model, x, y, 0.25, 0), [[-1.5]])
    # one step of 1/sqrt 2. At -1.5 the logits are (-2, 2): gradient
    # -2/(1 + e^-4) = -1.9640276; direction 2 * -1.9640276 + 2 = -1.9280552.
    expected = -1.5 - 1.9280552 / np.sqrt(2)
    assert_allclose(oracles.wrm_l2(model, x, y, 0.25, 1), [[expected]], atol=1e-7)


def test_wrm_l2_residual_shrinks():
    # At a stationary point of CE(z) - gamma |z - x|^2, eps grad = z - x.
    def residual(num_steps):
        z = oracles.wrm_l2(MODEL, X, Y, 1 / 2.6, num_steps)
        gradient = oracles.cross_entropy_input_gradient(MODEL, z, Y)
        return np.abs(1.3 * gradient - (z - X)).max()

    assert_allclose(residual(15), 3.2e-4, rtol=0.05)
    assert residual(60) < residual(15) < residual(5) < residual(0)


TRADES_START = X + 0.001 * np.array([1, -1, 1])
TRADES_ADVERSARIAL = [[0.3, 0.4, 0.7], [1.0, 0.0, 0.3]]


def test_trades_kl_figures():
    adversarial = oracles.trades_kl(MODEL, X, TRADES_START, 0.1, 0.03, 5, UNIT)
    assert_allclose(adversarial, TRADES_ADVERSARIAL, atol=1e-15)
    # The labels play no part: the start only tips the side. z_1 - z_0 changes by
    # .001 * (-2 - 1.5 + 1.8) < 0, so both examples go on against (-2, 1.5, 1.8).


def test_trades_kl_needs_a_start_off_the_image():
    assert_array_equal(oracles.trades_kl(MODEL, X, X, 0.1, 0.03, 5, UNIT), X)


def test_trades_loss_figures():
    natural, logits = MODEL.logits(X), MODEL.logits(TRADES_ADVERSARIAL)
    divergence = oracles.kl_divergence(natural, logits).mean()
    cross_entropy = oracles.cross_entropy(Y, natural).mean()
    assert_allclose(divergence, 0.02283118502968, rtol=1e-11)
    assert_allclose(cross_entropy, 1.58983141968767, rtol=1e-13)
    assert_allclose(cross_entropy + 6 * divergence, 1.72681852986577, rtol=1e-13)


# Companions


def test_aggregate_noise_is_a_sum():
    # (.1 - .2) + (.4 - .2) = .1 for pixel 1, and so on
    x = np.array([[0.2, 0.5]])
    adversarial = (np.array([[0.1, 0.6]]), np.array([[0.4, 0.5]]))
    assert_allclose(oracles.aggregate_noise(x, adversarial), [[0.1, 0.1]])


def test_one_reverse_symmetry_companion_mirrors_one_example():
    # x_rs + x_adv = 2 x_nat, untouched by the clip while |noise| <= epsilon
    adversarial = oracles.pgd_linf(MODEL, X, Y, X, 0.1, 0.03, 5, UNIT)
    (companion,) = oracles.reverse_symmetry(X, (adversarial,), (), 0.1)
    assert_allclose(companion + adversarial, 2 * X, atol=1e-15)


def test_reverse_symmetry_2_1_clips_the_sum():
    # noises (.1, -.1) + (.1, .05) = (.2, -.05); reversed (-.2, .05) -> (-.1, .05)
    x = np.array([[0.5, 0.5]])
    adversarial = (np.array([[0.6, 0.4]]), np.array([[0.6, 0.55]]))
    (companion,) = oracles.reverse_symmetry(x, adversarial, (), 0.1)
    assert_allclose(companion, [[0.4, 0.55]])
    (unclipped,) = oracles.reverse_symmetry(x, adversarial, (), 0.1, clip=False)
    assert_allclose(unclipped, [[0.3, 0.55]])


def test_reverse_symmetry_1_3_by_hand():
    # noise (.1, .02), draws (.05, .03) and (-.02, .04):
    # last = (-.1 - .03, -.02 - .07) = (-.13, -.09), clipped to (-.1, -.09)
    x = np.array([[0.05, 0.98]])
    adversarial = (x + [[0.1, 0.02]],)
    draws = (np.array([[0.05, 0.03]]), np.array([[-0.02, 0.04]]))
    first, second, last = oracles.reverse_symmetry(x, adversarial, draws, 0.1)
    assert_allclose(first, [[0.1, 1.01]])
    assert_allclose(second, [[0.03, 1.02]])
    assert_allclose(last, [[-0.05, 0.89]])
    # in the pixel range, the last still computed from the draws as given
    valid = oracles.reverse_symmetry(x, adversarial, draws, 0.1, bounds=UNIT)
    assert_allclose(valid, [[[0.1, 1.0]], [[0.03, 1.0]], [[0.0, 0.89]]])
    # without the clip to the ball all noises cancel: .1 + .05 - .02 - .13 = 0
    free = oracles.reverse_symmetry(x, adversarial, draws, 0.1, clip=False)
    assert_allclose(sum(free) + adversarial[0], 4 * x)


def test_split_by_hand():
    # reversed noises (-.1, .04) and (.08, 0); shares 3/4 and 1/4, then 1/2 and 1/2
    x = np.array([[0.5, 0.5], [0.2, 0.2]])
    adversarial = (x + [[0.1, -0.04], [-0.08, 0.0]],)
    weights = np.array([[0.75, 0.5], [0.25, 0.5]])
    first, second = oracles.split(x, adversarial, weights, 0.1)
    assert_allclose(first, [[0.425, 0.53], [0.24, 0.2]])
    assert_allclose(second, [[0.475, 0.51], [0.24, 0.2]])
    assert_allclose(first + second + adversarial[0], 3 * x)
    # epsilon .05 cuts the largest share, -.075, to -.05
    assert_allclose(oracles.split(x, adversarial, weights, 0.05)[0][0], [0.45, 0.53])


def test_split_weighs_whole_images():
    images, _, _ = small_images()
    weights = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
    first, second = oracles.split(images, (images + 0.04,), weights, 0.1)
    shift = np.array([0.04, 0.0, 0.02]).reshape(3, 1, 1, 1)
    assert_allclose(first, images - shift)
    assert_allclose(second, images - (0.04 - shift))


def test_random_companion_by_hand():
    x, draw = np.array([[0.05, 0.5]]), np.array([[-0.1, 0.1]])
    assert_allclose(oracles.random_companion(x, draw, UNIT), [[0.0, 0.6]])
    assert_allclose(oracles.random_companion(x, draw, None), [[-0.05, 0.6]])


# Training


def test_parameter_gradients_agree_with_differences():
    x, labels = X + 0.05, Y

    def models(parameters):
        return oracles.LinearModel(parameters[:3], parameters[3])

    def trades(natural_model, model):
        natural, logits = natural_model.logits(X), model.logits(x)
        divergence = oracles.kl_divergence(natural, logits)
        first = oracles.cross_entropy(labels, model.logits(X))
        return np.mean(first + 3.0 * divergence)

    at = np.vstack([MODEL.weights, MODEL.bias])
    weights, bias = oracles.cross_entropy_parameter_gradients(MODEL, x, labels)
    assert_is_gradient(
        np.vstack([weights, bias]),
        lambda p: oracles.cross_entropy(labels, models(p).logits(x)).mean(),
        at,
    )
    for detach in (True, False):
        weights, bias = oracles.trades_parameter_gradients(MODEL, X, x, labels, 3.0, detach)
        assert_is_gradient(
            np.vstack([weights, bias]),
            lambda p, detach=detach: trades(MODEL if detach else models(p), models(p)),
            at,
        )


def shift_by(*noises):
    """Return an "attack" that adds each noise, whatever the model."""
    return lambda model, x, y: tuple(x + noise for noise in noises)


def mirror(x, adversarial):
    return oracles.reverse_symmetry(x, adversarial, (), np.inf)


def test_cross_entropy_round_by_hand():
    # One pixel, weights and bias zero, x = .5, y = 0; x_adv = 1, so x_rs = 0.
    # update 1: p = (1/2, 1/2), grad of logits (-1/2, 1/2), of weights the same * 1.
    #           learning rate 1: weights (.5, -.5), bias (.5, -.5)
    # update 2 at x_rs = 0: logits (.5, -.5), p_1 = 1/(1 + e) = .26894142; the weights
    #           get 0 * grad, the bias (+p_1, -p_1): (.76894142, -.76894142)
    model = oracles.LinearModel([[0.0, 0.0]], [0.0, 0.0])
    weights, bias = oracles.sgd_round(
        model,
        np.array([[0.5]]),
        np.array([0]),
        shift_by(0.5),
        mirror,
        "cross_entropy",
        1.0,
    )
    assert_allclose(weights, [[0.5, -0.5]])
    assert_allclose(bias, [0.76894142, -0.76894142], atol=1e-8)
    assert_array_equal(model.weights, [[0.0, 0.0]])  # the model given is not changed


def test_updates_are_means_over_the_batch():
    # two examples, no companion, p = (1/2, 1/2) for both: x = 1 of class 0 gives
    # (-1/2, 1/2), x = 3 of class 1 gives 3 * (1/2, -1/2); mean (1/2, -1/2), and the
    # bias gradients cancel. Learning rate .2: weights (-.1, .1).
    weights, bias = oracles.sgd_round(
        oracles.LinearModel([[0.0, 0.0]], [0.0, 0.0]),
        np.array([[1.0], [3.0]]),
        np.array([0, 1]),
        shift_by(0.0),
        lambda x, adversarial: (),
        "cross_entropy",
        0.2,
    )
    assert_allclose(weights, [[-0.1, 0.1]])
    assert_allclose(bias, [0.0, 0.0])


@pytest.mark.parametrize("detach_natural", [True, False])
def test_trades_round_by_hand(detach_natural):
    # weights (ln 3, 0), x_nat = 0, x_adv = 1: p_nat = (1/2, 1/2), p = (3/4, 1/4).
    # CE at x_nat: (-1/2, 1/2), on the bias only since x_nat = 0.
    # KL at x_adv, beta 2: 2 (p - p_nat) = (1/2, -1/2), on weights and bias.
    # Sum: weights (1/2, -1/2), bias 0.
    # KL = ln(4/3)/2. Through p_nat, if not detached, on the bias only:
    # 2 * 1/2 * (-ln(3/2) - KL, ln 2 - KL) = (-ln 3/2, ln 3/2).
    weights, bias = oracles.sgd_round(
        oracles.LinearModel([[np.log(3.0), 0.0]], [0.0, 0.0]),
        np.array([[0.0]]),
        np.array([0]),
        shift_by(1.0),
        lambda x, adversarial: (),
        "trades",
        0.1,
        beta=2.0,
        detach_natural=detach_natural,
    )
    natural = 0.0 if detach_natural else np.log(3.0) / 2
    assert_allclose(weights, [[np.log(3.0) - 0.05, 0.05]])
    assert_allclose(bias, [0.1 * natural, -0.1 * natural], atol=1e-16)


def test_trades_on_the_natural_image_is_cross_entropy():
    # KL(p || p) = 0 and both of its gradients are 0, so AdvNat needs no special case.
    plain = oracles.cross_entropy_parameter_gradients(MODEL, X, Y)
    for detach in (True, False):
        trades = oracles.trades_parameter_gradients(MODEL, X, X, Y, 6.0, detach)
        assert_allclose(trades[0], plain[0])
        assert_allclose(trades[1], plain[1])


def test_a_round_is_its_updates_in_order():
    # n = 2, m = 2: one attack at the start, then x_adv,1, x_adv,2, x_rs,1, x_rs,2
    seen = []
    draw = np.array([[0.02, -0.03, 0.01], [0.0, 0.05, -0.05]])

    def attack(model, x, y):
        seen.append(model.weights)
        starts = (x, x + 0.05)
        return [oracles.pgd_linf(model, x, y, s, 0.1, 0.02, 2, UNIT) for s in starts]

    def companions(x, adversarial):
        return oracles.reverse_symmetry(x, adversarial, (draw,), 0.1)

    actual = oracles.sgd_round(MODEL, X, Y, attack, companions, "cross_entropy", 0.5)
    assert len(seen) == 1
    assert_array_equal(seen[0], MODEL.weights)

    adversarial = attack(MODEL, X, Y)
    weights, bias = MODEL.weights, MODEL.bias
    for example in [*adversarial, *companions(X, adversarial)]:
        residual = oracles.softmax(example @ weights + bias) - np.eye(2)[Y]
        weights = weights - 0.5 * example.T @ residual / 2
        bias = bias - 0.5 * residual.sum(axis=0) / 2
    assert_allclose(actual[0], weights)
    assert_allclose(actual[1], bias)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="Received: objective='hinge'"):
        oracles.sgd_round(MODEL, X, Y, shift_by(0.0), mirror, "hinge", 0.1)


# Membership


def test_membership_figures_of_art():
    # Score .35 and up: 3 of 4 members, no non-member. From .32 up: all members, and
    # .33, one of two non-members.
    member, non_member = [0.35, 0.32, 0.6, 0.6], [0.33, 0.2]
    assert oracles.tpr_at_fpr(member, non_member, 0.0) == 0.75
    assert oracles.rates(member, non_member, 0.35) == (0.75, 0.0)
    assert oracles.tpr_at_fpr(member, non_member, 0.5) == 1.0
    assert oracles.rates(member, non_member, 0.32) == (1.0, 0.5)
    # between the two nothing is gained, and nothing interpolated
    assert oracles.tpr_at_fpr(member, non_member, 0.49) == 0.75
    # balanced accuracy: (.75 + 1 - 0)/2 = .875 against (1 + 1 - .5)/2 = .75
    assert oracles.best_threshold_accuracy(member, non_member) == 0.875
    # pairs: .35, .6, .6 beat both; .32 beats .2 only: 7 of 8
    assert oracles.auc(member, non_member) == 0.875


def test_auc_of_tensorflow_privacy():
    # Losses, so scores are negated. Members .1 .2 .4 .5 .6 against 1.1 1.2 1.3 .4 1.5
    # 1.6: 6 + 6 + 5.5 + 5 + 5; member 1.3 beats 1.5, 1.6 and ties with 1.3: 2.5.
    # 30 of 36.
    member = [-0.1, -0.2, -1.3, -0.4, -0.5, -0.6]
    non_member = [-1.1, -1.2, -1.3, -0.4, -1.5, -1.6]
    assert_allclose(oracles.auc(member, non_member), 30 / 36)


def test_scores_that_say_nothing_or_the_opposite():
    same = [0.5, 0.5, 0.5]
    assert oracles.best_threshold_accuracy(same, same) == 0.5
    assert oracles.auc(same, same) == 0.5
    # members score lower: the direction is not flipped
    assert oracles.best_threshold_accuracy([0.0, 0.1], [0.8, 0.9]) == 0.5
    assert oracles.auc([0.0, 0.1], [0.8, 0.9]) == 0.0


def test_smallest_attainable_fpr_counts_ties_at_the_top():
    # No tie: one non-member in four. Two tied at the top: two in four, so no
    # threshold has an FPR of .25, whatever the TPR at FPR 0.
    assert oracles.smallest_attainable_fpr([0.9], [0.1, 0.2, 0.3, 0.4]) == 0.25
    assert oracles.smallest_attainable_fpr([0.9], [0.1, 0.2, 0.4, 0.4]) == 0.5
    # Saturated scores: two of three members and two of four non-members at 1.
    member, non_member = [1.0, 1.0, 0.5], [1.0, 1.0, 0.4, 0.3]
    assert oracles.smallest_attainable_fpr(member, non_member) == 0.5
    assert oracles.tpr_at_fpr(member, non_member, 0.49) == 0.0
    assert oracles.tpr_at_fpr(member, non_member, 0.5) == 1.0


# Accuracies as printed by the paper's reference [20] for its Yale Face models.
YALE = {
    ("natural", "benign"): 0.5585306164243293,
    ("natural", "adversarial"): 0.5427329510546794,
    ("pgd", "benign"): 0.6168687282408356,
    ("pgd", "adversarial"): 0.6882561949621135,
}


@pytest.mark.parametrize("name, inputs", YALE)
def test_best_threshold_accuracy_of_reference_20(name, inputs):
    path = pathlib.Path(__file__).resolve().parents[2] / "shared" / "truth" / "yale" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the Yale predictions of reference [20] are not at ../shared/truth/yale: {name}")
    with np.load(path) as arrays:
        scores = [
            probs[np.arange(len(labels)), labels]
            for probs, labels in (
                (arrays[f"output_{split}_{inputs}"], arrays[f"{split}_label"]) for split in ("train", "test")
            )
        ]
    assert oracles.best_threshold_accuracy(*scores) == YALE[name, inputs]
