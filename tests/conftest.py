"""What tests share: networks small enough to compute by hand, and images for them."""

import gc
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow leaves oneDNN out by default where a CPU has no AVX-512. What it has instead cannot train convolutions in
# groups, of which the benchmark makes its stacked networks.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
gc.disable()  # nothing of what is imported is garbage

import keras  # noqa: E402
import numpy as np  # noqa: E402
import oracles  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from hypothesis import settings  # noqa: E402
from keras.src.saving import object_registration  # noqa: E402
from tensorflow.python.framework import config, ops  # noqa: E402
from tensorflow.python.util import tf_stack  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from pineat_tf import membership  # noqa: E402

gc.freeze()
gc.enable()

# Tests make thousands of graphs that are small and run a few times. Several threads wait for one another longer than
# they compute, the more so as each worker of xdist would have one a core; and Grappler takes longer than what it saves.
# Both are settings of this process: commands that tests start have TensorFlow's own, as users do.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

# TensorFlow keeps the stack of each operation of a graph, to say in errors where it was made. With pytest and xdist
# below, it is a hundred frames deep, and to read it is a tenth of the time that a graph takes.
_STACK = tf_stack.extract_stack()
tf_stack.extract_stack = lambda stacklevel=1: _STACK

settings.register_profile("long", max_examples=10_000)  # looked for by test_fuzz_readers.py, which counts its own

# Where tests run in the background of a shell or under `nohup`, signals are ignored, and children inherit that:
# commands that are to end by them would not.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda *_: None)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

SHAPE, NUM_CLASSES = (4, 4, 1), 3

# Begun late, one of them would keep a worker of xdist at work when all others are done.
LONGEST = {
    f"test_{name}.py"
    for name in (
        "accelerate", "benchmark", "distribution", "examples", "flags", "heads", "keras_citizen", "page",
        "perturbations", "pipeline", "private", "resume", "shadow_study", "sweep", "training", "tune", "zoo",
    )
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Puts the longest files first: workers take files in this order, as `--no-loadscope-reorder` has it."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="module", autouse=True)
def nothing_of_other_files():
    """Garbage is looked for among what a file's own tests make, and no run of another file has made them deterministic.

    Among all that is imported, and all graphs that trained, a collection takes up to a second; with determinism
    cross-entropies are several operations, and their gradients many.
    """
    config.disable_op_determinism()
    gc.collect()
    gc.freeze()
    gradients = ops.gradient_registry._registry
    before = set(gradients)
    yield
    for name in gradients.keys() - before:  # one a graph with an optimizer, which would keep the graph for good
        del gradients[name]


@pytest.fixture(autouse=True)
def registered_names():
    """What a test registers with Keras ends with it, or it would stand for another's class of the same name."""
    registries = object_registration.GLOBAL_CUSTOM_OBJECTS, object_registration.GLOBAL_CUSTOM_NAMES
    before = [dict(registry) for registry in registries]
    yield
    for registry, names in zip(registries, before):
        registry.clear()
        registry.update(names)


@pytest.fixture
def images():
    """8 images of 4 x 4 in [0, 1], some pixels at the ends of the range."""
    x = np.random.default_rng(0).uniform(-0.2, 1.2, size=(8, *SHAPE))
    return np.clip(x, 0.0, 1.0).astype(np.float32)


@pytest.fixture
def labels():
    return np.arange(8) % NUM_CLASSES


@pytest.fixture
def oracle_network():
    """A two-layer network as a NumPy oracle."""
    rng = np.random.default_rng(1)
    return oracles.TanhMLP(
        rng.normal(size=(16, 12)), rng.normal(size=12), rng.normal(size=(12, NUM_CLASSES)), rng.normal(size=NUM_CLASSES)
    )


@pytest.fixture
def network(oracle_network):
    """The same network in Keras."""
    model = dense_network(activation="tanh")
    o = oracle_network
    model.set_weights([np.asarray(w, np.float32) for w in (o.w1, o.b1, o.w2, o.b2)])
    return model


@pytest.fixture(scope="module")
def one_thread():
    """Threads that wait for one another take longer than small models of scikit-learn do."""
    with threadpool_limits(1):
        yield


def area(member_scores, non_member_scores):
    """The AUC of scores."""
    return membership.auc(membership.roc(member_scores, non_member_scores))


def dense_network(activation: str = "relu", num_classes: int = NUM_CLASSES) -> keras.Model:
    """Flatten, 12 units, logits."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation=activation),
            keras.layers.Dense(num_classes),
        ]
    )


def linear_network(weights, bias) -> keras.Model:
    """Logits x W + b with given weights."""
    weights, bias = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
    model = keras.Sequential([keras.Input((weights.shape[0],)), keras.layers.Dense(weights.shape[1])])
    model.set_weights([weights, bias])
    return model
