"""The networks against the published figures and against NumPy."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments import networks

FMNIST = (28, 28, 1)
CIFAR10 = (32, 32, 3)

KINDS = [name for name in networks.NAMES if name != "wrn32"]  # wrn8 has all its layers


def small(name, **options):
    """The narrowest network of that name on 8x8 colour images."""
    return networks.build(name, **{"input_shape": (8, 8, 3), "num_classes": 10, "width": 1} | options)


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype("float32")


def num_trainable(network):
    return sum(math.prod(weight.shape) for weight in network.trainable_weights)


def values(network, layer, weight="kernel"):
    return keras.ops.convert_to_numpy(getattr(network.get_layer(layer), weight))


def between(network, layer):
    """The network up to the output of that layer."""
    return keras.Model(network.input, network.get_layer(layer).output)


def randomize(network, seed=0):
    """No vector at 0 or 1: the tests below must notice a forgotten bias, gamma or moving average."""
    rng = np.random.default_rng(seed)
    weights = network.get_weights()
    network.set_weights([rng.uniform(0.5, 1.5, old.shape) if old.ndim == 1 else old for old in weights])
    return network


def conv_in_numpy(x, kernel, strides, before, after):
    """Convolution with `before` zeros at the top and left, `after` at the bottom and right."""
    x = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::strides, ::strides]
    return np.einsum("nrcihw,hwio->nrco", windows, kernel)


def norm_relu_in_numpy(layer, x):
    """Batch norm by moving averages, then ReLU."""
    gamma, beta, mean, variance = layer.get_weights()
    return np.maximum(gamma * (x - mean) / np.sqrt(variance + layer.epsilon) + beta, 0)


@pytest.fixture(scope="module")
def vgg():
    return networks.build("fmnist_vgg", input_shape=FMNIST, num_classes=10)


@pytest.fixture(scope="module")
def vgg_diff():
    return networks.build("fmnist_vgg_diff", input_shape=FMNIST, num_classes=10)


@pytest.fixture(scope="module")
def wrn32():
    return networks.build("wrn32", input_shape=CIFAR10, num_classes=10)


@pytest.fixture(scope="module")
def wrn34():
    return networks.build("wrn34", input_shape=CIFAR10, num_classes=10)


# Size


def test_parameters_of_fmnist_vgg(vgg):
    convs = 9 * (1 * 256 + 256 * 256 + 256 * 256 + 256 * 512 + 512 * 512 + 512 * 512)
    dense = (7 * 7 * 512 + 1) * 200 + (200 + 1) * 10
    assert vgg.count_params() == convs + dense == 12_100_002


def test_parameters_of_fmnist_vgg_diff_add_the_biases_of_convolutions(vgg_diff):
    assert vgg_diff.count_params() == 12_100_002 + 3 * 256 + 3 * 512


def wrn_parameters(*, first_norm_channels_of_groups, shortcuts):
    """Trainable weights of a 10-wide residual network, from the channels 16, 160, 320 and 640."""
    total = 9 * 3 * 16 + shortcuts
    for channels_in, channels in zip(first_norm_channels_of_groups, (160, 320, 640)):
        total += 9 * (channels_in + 9 * channels) * channels  # ten convolutions
        total += 2 * (channels_in + 9 * channels)  # gamma and beta before each
    return total + 2 * 640 + (640 + 1) * 10


def test_parameters_of_wrn32(wrn32):
    expected = wrn_parameters(first_norm_channels_of_groups=(16, 160, 320), shortcuts=0)
    assert num_trainable(wrn32) == expected == 45_901_914


def test_parameters_of_wrn34(wrn34):
    expected = wrn_parameters(first_norm_channels_of_groups=(16, 160, 320), shortcuts=16 * 160 + 160 * 320 + 320 * 640)
    assert num_trainable(wrn34) == expected == 46_160_474


@pytest.mark.parametrize("width, gigaflops", [(16, 2.788), (8, 0.700), (4, 0.177), (2, 0.0451), (1, 0.0117)])
def test_flops_of_fmnist_vgg(vgg, width, gigaflops):
    network = vgg if width == 16 else networks.build("fmnist_vgg", input_shape=FMNIST, num_classes=10, width=width)
    assert networks.forward_flops(network) / 1e9 == pytest.approx(gigaflops, rel=2e-3)


def test_wrn8_halves_the_image_three_times():
    network = networks.build("wrn8", input_shape=CIFAR10, num_classes=10)
    sides = [network.get_layer(f"group{group}_unit1_add").output.shape[1:] for group in (1, 2, 3)]
    assert sides == [(16, 16, 16), (8, 8, 32), (4, 4, 64)]
    norms = 2 * (16 + 16 + 16 + 32 + 32 + 64 + 64)
    convs = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    assert num_trainable(network) == norms + convs + 65 * 10


def test_flops_of_wide_residual_networks(wrn32, wrn34):
    assert networks.forward_flops(wrn32) / 1e9 == pytest.approx(13.26, abs=5e-3)
    assert networks.forward_flops(wrn34) / 1e9 == pytest.approx(13.32, abs=5e-3)


def test_flops_of_small_cnn_by_hand():
    network = networks.build("small_cnn", input_shape=(8, 8, 1), num_classes=10)
    convs = 4 * 4 * 9 * 1 * 16 + 2 * 2 * 9 * 16 * 32  # positions x kernel
    assert networks.forward_flops(network) == 2 * (convs + 128 * 64 + 64 * 10)


def test_flops_refuse_what_they_cannot_count():
    transposed = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2DTranspose(2, 3)])
    with pytest.raises(ValueError, match="Conv2DTranspose"):
        networks.forward_flops(transposed)


def test_width_zero_is_the_default_width():
    assert small("small_cnn", width=0).count_params() == small("small_cnn", width=1).count_params()


@pytest.mark.parametrize("name", KINDS)
def test_every_network_gives_logits_for_images(name):
    network = small(name, num_classes=7)
    logits = network(images(2, 8, 8, 3))
    assert logits.shape == (2, 7)
    assert np.isfinite(logits).all()
    assert network.layers[-1].name == "logits"
    assert network.layers[-1].activation is keras.activations.linear


def test_digits_and_grey_images_of_odd_size():
    assert networks.build("small_cnn", input_shape=(8, 8, 1), num_classes=10).output_shape == (None, 10)
    assert networks.build("wrn34", input_shape=(9, 7, 1), num_classes=10, width=1).output_shape == (None, 10)
    assert networks.build("mlp", input_shape=(1, 2, 1), num_classes=2).output_shape == (None, 2)


# Initial weights. A sample standard deviation of n draws is off by about 1 / sqrt(2 n): 0.2% for n = 147456.


def assert_untruncated_normal(kernel, std):
    assert kernel.std() == pytest.approx(std, rel=0.02)
    assert abs(kernel.mean()) < 0.02 * std
    assert np.mean(np.abs(kernel) > 2 * std) == pytest.approx(0.0455, abs=5e-3)  # truncated: 0.023
    assert np.abs(kernel).max() > 3 * std  # truncated: 2.27


def assert_uniform(kernel, bound):
    assert np.abs(kernel).max() <= bound * (1 + 1e-6)
    assert np.abs(kernel).max() > 0.98 * bound
    assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_initial_weights_of_fmnist_vgg():
    network = networks.build("fmnist_vgg", input_shape=(8, 8, 1), num_classes=10, width=8)
    assert_untruncated_normal(values(network, "conv4"), math.sqrt(2 / (9 * 256)))  # fan-out: 128 -> 256
    assert_uniform(values(network, "hidden"), math.sqrt(3 / (2 * 2 * 256)))
    assert_uniform(values(network, "logits"), math.sqrt(3 / 200))
    assert not values(network, "hidden", "bias").any() and not values(network, "logits", "bias").any()
    assert all(not layer.use_bias for layer in network.layers if isinstance(layer, keras.layers.Conv2D))


def test_initial_weights_of_fmnist_vgg_diff():
    network = networks.build("fmnist_vgg_diff", input_shape=(8, 8, 1), num_classes=10, width=8)
    assert_untruncated_normal(values(network, "conv4"), math.sqrt(2 / (9 * 128)))  # fan-in: 128 -> 256
    assert not values(network, "conv4", "bias").any()
    bound = 1 / math.sqrt(2 * 2 * 256)
    assert_uniform(values(network, "hidden"), bound)
    bias = values(network, "hidden", "bias")
    assert 0.9 * bound < np.abs(bias).max() <= bound and bias.min() < 0 < bias.max()
    assert not values(network, "logits").any() and not values(network, "logits", "bias").any()
    assert not np.any(network(images(2, 8, 8, 1)))


def test_initial_weights_of_wrn32(wrn32):
    assert_untruncated_normal(values(wrn32, "group1_unit2_conv1"), math.sqrt(2 / (9 * 160)))
    assert_uniform(values(wrn32, "logits"), math.sqrt(3 / 640))
    assert not values(wrn32, "logits", "bias").any()


def test_initial_weights_of_wrn34(wrn34):
    assert_untruncated_normal(values(wrn34, "group2_unit1_conv1"), math.sqrt(2 / (9 * 320)))  # 160 -> 320
    assert_untruncated_normal(values(wrn34, "group3_unit1_shortcut"), math.sqrt(2 / 640))
    assert_uniform(values(wrn34, "logits"), 1 / math.sqrt(640))
    assert not values(wrn34, "logits", "bias").any()


@pytest.mark.parametrize("name", KINDS)
def test_layers_draw_apart_and_a_seed_repeats_the_draw(name):
    draws = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        draws.append([weight.numpy() for weight in small(name).weights])
    for first, second in zip(*draws):
        np.testing.assert_array_equal(first, second)
    matrices = [weight for weight in draws[0] if weight.ndim > 1 and weight.any()]
    firsts = [matrix.flat[0] / matrix.std() for matrix in matrices]
    assert len(set(np.round(firsts, 6))) == len(firsts)


# Batch norm


@pytest.mark.parametrize("name, epsilon", [("wrn32", 1e-3), ("wrn34", 1e-5)])
def test_batch_norm(name, epsilon):
    norms = [layer for layer in small(name).layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 3 * 5 * 2 + 1
    assert all((norm.momentum, norm.epsilon, norm.center, norm.scale) == (0.9, epsilon, True, True) for norm in norms)


@pytest.mark.parametrize("name", ["wrn32", "wrn34"])
def test_only_training_moves_the_averages(name):
    network = small(name)
    before = network.get_weights()
    network(images(4, 8, 8, 3), training=False)
    assert all(np.array_equal(old, new) for old, new in zip(before, network.get_weights()))
    network(images(4, 8, 8, 3), training=True)
    assert any(not np.array_equal(old, new) for old, new in zip(before, network.get_weights()))


# Weight decay


def half_squares(weights):
    return sum(np.sum(weight.numpy().astype("float64") ** 2) for weight in weights) / 2


@pytest.mark.parametrize("name", KINDS)
def test_weight_decay_falls_on_kernels(name):
    network = randomize(small(name, weight_decay=2e-4))
    kernels = [weight for weight in network.trainable_weights if weight.name == "kernel"]
    assert 3 <= len(kernels) == sum(len(weight.shape) > 1 for weight in network.weights)
    assert sum(map(float, network.losses)) == pytest.approx(2e-4 * half_squares(kernels), rel=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_weight_decay_falls_on_all(name):
    network = randomize(small(name, weight_decay=5e-4, decay_all=True))
    assert len(network.losses) == len(network.trainable_weights)
    assert sum(map(float, network.losses)) == pytest.approx(5e-4 * half_squares(network.trainable_weights), rel=1e-5)


def test_no_weight_decay_no_losses():
    assert small("wrn32").losses == []
    assert small("wrn34", decay_all=True).losses == []


# Geometry


def strided_convolution(network, before, name):
    """A strided convolution's output, and its input and kernel: from the output of the layer before."""
    x = images(2, 8, 8, 3)
    features, output = between(network, before)(x).numpy(), between(network, name)(x).numpy()
    return features, values(network, name), output


def test_fmnist_vgg_pads_strided_convolutions_at_the_bottom_and_right():
    features, kernel, output = strided_convolution(small("fmnist_vgg"), "conv2_activation", "conv3")
    np.testing.assert_allclose(output, conv_in_numpy(features, kernel, 2, 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    "name, before, conv",
    [
        ("fmnist_vgg_diff", "conv2_activation", "conv3"),
        ("fmnist_vgg_diff", "conv5_activation", "conv6"),
        ("wrn34", "group2_unit1_1_activation", "group2_unit1_conv1"),
        ("wrn34", "group3_unit1_1_activation", "group3_unit1_conv1"),
    ],
)
def test_networks_from_pytorch_pad_strided_convolutions_all_round(name, before, conv):
    features, kernel, output = strided_convolution(small(name), before, conv)
    np.testing.assert_allclose(output, conv_in_numpy(features, kernel, 2, 1, 1), atol=1e-5)
    assert np.abs(output - conv_in_numpy(features, kernel, 2, 0, 1)).max() > 0.1


def test_fmnist_vgg_diff_pads_plain_convolutions_by_one():
    network = small("fmnist_vgg_diff")
    x = images(2, 8, 8, 3)
    expected = conv_in_numpy(x, values(network, "conv1"), 1, 1, 1)
    np.testing.assert_allclose(between(network, "conv1")(x), expected, atol=1e-5)


def test_activations():
    x = np.array([[[[-1.0, 2.0]]]], "float32")
    relu = small("wrn32").get_layer("final_activation")
    leaky = small("wrn32", activation="leaky_relu").get_layer("final_activation")
    np.testing.assert_allclose(relu(x), [[[[0.0, 2.0]]]])
    np.testing.assert_allclose(leaky(x), [[[[-0.1, 2.0]]]])


# Standardisation inside wrn32


def standardized(x):
    """What wrn32's first convolution sees."""
    network = small("wrn32")
    return keras.Model(network.input, network.get_layer("conv0").input)(x)


def test_wrn32_standardizes_each_image():
    x = images(4, 8, 8, 3)
    x[1] = 0.5 + 1e-3 * x[1]  # standard deviation 3e-4, below the floor 1 / sqrt(192) = 0.072
    x[2] = 1.0
    np.testing.assert_allclose(standardized(x), tf.image.per_image_standardization(x), atol=1e-6)


def test_wrn34_does_not_standardize():
    network = small("wrn34")
    assert network.get_layer("conv0").input is network.input


def test_the_gradient_of_a_constant_image_is_finite():
    network = randomize(small("wrn32"))  # fresh, every ReLU would stand at 0
    x = tf.zeros((1, 8, 8, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(network(x, training=False)[:, 0])
    gradient = tape.gradient(loss, x).numpy()
    assert np.isfinite(gradient).all() and gradient.any()


# Shortcuts: with the second convolution of every unit at 0 the residuals are 0 and only shortcuts are left


def without_residuals(name):
    network = randomize(small(name, width=2))
    for layer in network.layers:
        if layer.name.endswith("_conv2"):
            layer.kernel.assign(tf.zeros_like(layer.kernel))
    return network


def test_wrn32_shortcuts_in_numpy():
    network = without_residuals("wrn32")
    x = images(2, 8, 8, 3)
    features = between(network, "conv0")(x).numpy()
    features = norm_relu_in_numpy(network.get_layer("group1_unit1_1_norm"), features)  # unit 1 shares its activation
    features = np.pad(features, ((0, 0), (0, 0), (0, 0), (8, 8)))  # 16 -> 32 channels
    np.testing.assert_allclose(between(network, "group1_unit5_add")(x), features, rtol=1e-5, atol=1e-5)
    features = features.reshape(2, 4, 2, 4, 2, 32).mean(axis=(2, 4))
    features = np.pad(features, ((0, 0), (0, 0), (0, 0), (16, 16)))  # 32 -> 64, not activated
    np.testing.assert_allclose(between(network, "group2_unit5_add")(x), features, rtol=1e-5, atol=1e-5)
    features = features.reshape(2, 2, 2, 2, 2, 64).mean(axis=(2, 4))
    features = np.pad(features, ((0, 0), (0, 0), (0, 0), (32, 32)))  # 64 -> 128
    np.testing.assert_allclose(between(network, "group3_unit5_add")(x), features, rtol=1e-5, atol=1e-5)
    assert np.ptp(features) > 0.5  # not dead


def test_wrn34_shortcuts_in_numpy():
    network = without_residuals("wrn34")
    x = images(2, 8, 8, 3)
    features = between(network, "conv0")(x).numpy()
    for group, strides in ((1, 1), (2, 2), (3, 2)):
        first_unit = f"group{group}_unit1"
        features = norm_relu_in_numpy(network.get_layer(f"{first_unit}_1_norm"), features)
        features = features[:, ::strides, ::strides] @ values(network, f"{first_unit}_shortcut")[0, 0]
        np.testing.assert_allclose(between(network, f"group{group}_unit5_add")(x), features, rtol=1e-5, atol=1e-5)
    assert np.ptp(features) > 0.5  # not dead


def test_wrn34_projects_only_where_the_channels_change(wrn34):
    projections = [layer.name for layer in wrn34.layers if layer.name.endswith("_shortcut")]
    assert projections == ["group1_unit1_shortcut", "group2_unit1_shortcut", "group3_unit1_shortcut"]
    narrow = [layer.name for layer in small("wrn34").layers if layer.name.endswith("_shortcut")]
    assert narrow == ["group2_unit1_shortcut", "group3_unit1_shortcut"]  # 16 -> 16 channels in group 1


def test_wide_residual_networks_end_in_norm_activation_mean_and_logits():
    network = randomize(small("wrn34"))
    x = images(2, 8, 8, 3)
    features = norm_relu_in_numpy(network.get_layer("final_norm"), between(network, "group3_unit5_add")(x).numpy())
    expected = features.mean(axis=(1, 2)) @ values(network, "logits") + values(network, "logits", "bias")
    np.testing.assert_allclose(network(x), expected, rtol=1e-5, atol=1e-5)


# Precision


@pytest.mark.parametrize("name", KINDS)
def test_mixed_precision(name):
    policy = keras.config.dtype_policy().name
    network = small(name, precision="mixed_bfloat16", weight_decay=2e-4)
    computed = {layer.compute_dtype for layer in network.layers[1:] if layer.name != "logits"}
    assert computed == {"bfloat16"}
    assert network.get_layer("logits").compute_dtype == "float32"
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert all(loss.dtype == tf.float32 for loss in network.losses)
    assert network(images(2, 8, 8, 3)).dtype == tf.float32
    assert keras.config.dtype_policy().name == policy


def test_mixed_precision_is_near_full_precision():
    full, mixed = small("wrn32"), small("wrn32", precision="mixed_bfloat16")
    mixed.set_weights(full.get_weights())
    x = images(4, 8, 8, 3)
    assert mixed.get_layer("conv0").input.dtype == "float32"  # standardisation is not rounded to 8 bits
    difference = np.abs(full(x, training=True) - mixed(x, training=True)).max()
    assert 0 < difference < 0.1


def test_the_global_policy_does_not_matter():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = small("wrn32")
        logits = network(images(2, 8, 8, 3))
        assert {layer.compute_dtype for layer in network.layers[1:]} == {"float32"}
        assert logits.dtype == tf.float32
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy(policy)


# Errors


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "wrn43"}, "name='wrn43'. Did you mean 'wrn34'"),
        ({"name": "xyz"}, "one of ['fmnist_vgg', 'fmnist_vgg_diff', 'wrn32', 'wrn34', 'wrn8', 'small_cnn', 'mlp']"),
        ({"activation": "leaky"}, "Did you mean 'leaky_relu'"),
        ({"precision": "bfloat16"}, "Did you mean 'mixed_bfloat16'"),
        ({"width": -1}, "width=-1"),
        ({"width": 1.5}, "width=1.5"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"weight_decay": -2e-4}, "weight_decay=-0.0002"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"input_shape": (8, 8)}, "need the channel axis"),
        ({"input_shape": 8}, "input_shape=8"),
        ({"input_shape": (8, 0, 3)}, "whole numbers > 0"),
        ({"input_shape": (None, None, 3)}, "whole numbers > 0"),
        ({"input_shape": (3, 8, 3)}, "at least 4"),
        ({"name": "wrn32", "input_shape": (30, 30, 3)}, "multiples of 4"),
        ({"name": "wrn8", "input_shape": (28, 28, 3)}, "multiples of 8"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"name": "small_cnn", "input_shape": (8, 8, 3), "num_classes": 10} | options
    with pytest.raises(ValueError, match=re.escape(message)):
        networks.build(**arguments)
