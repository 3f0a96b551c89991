"""Other libraries in the benchmark: they are installed or left out, and do the same work as ours."""

import functools
import importlib.metadata

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from experiments import networks  # noqa: E402
from experiments.study.benchmark import peers as benchmark_peers  # noqa: E402
from experiments.study.benchmark.peers import evaluators, peers  # noqa: E402
from experiments.study.benchmark.work import Work  # noqa: E402

WORK = Work(width=1, precision="float32", batch_size=8, num_steps=3)
BFLOAT16 = Work(width=1, precision="bfloat16", batch_size=8, num_steps=3)
EAGER = [name for name in peers() if name != "pytorch compiled"]
OWN_PREDICTIONS = {"art": 2, "torchattacks apgd": 1, "pyautoattack apgd": 1}  # passes that a library adds to an attack


@pytest.fixture(autouse=True)
def one_thread():
    """Batches of 8 images are no work for several threads, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_array(images):
    return images.detach().numpy() if torch.is_tensor(images) else images


def assert_in_ball(x, images, work, reach):
    """All in the ball and in [0, 1], and the farthest `reach` away."""
    x, images = as_array(x), as_array(images)
    assert x.shape[-4:] == images.shape and x.dtype == np.float32
    assert np.abs(x - images).max() == pytest.approx(reach, abs=1e-6) and reach <= work.epsilon
    assert x.min() >= 0 and x.max() <= 1


def watch(job):
    """Calls a job. Returns what the network saw, and the passes to its logits and back from them."""
    seen, gradients = [], []

    def forward(module, inputs, output):
        if output.requires_grad:
            output.register_hook(gradients.append)

    handles = [job.network[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))]
    handles.append(job.network[-1].register_forward_hook(forward))
    job()
    for handle in handles:
        handle.remove()
    return seen, len(seen), len(gradients)


def test_the_network_is_the_twin_of_ours():
    keras.utils.set_random_seed(0)
    ours = networks.build("fmnist_vgg", input_shape=(28, 28, 1), num_classes=10, width=1)
    twin = benchmark_peers.build_network(1)
    state = {f"{name}.bias": ours.get_layer(name).bias for name in ("hidden", "logits")}
    for number in range(1, 7):
        kernel = np.asarray(ours.get_layer(f"conv{number}").kernel)
        state[f"conv{number}.weight"] = kernel[::-1, ::-1].transpose(3, 2, 0, 1)
    hidden = np.asarray(ours.get_layer("hidden").kernel).reshape(7, 7, 32, 200)
    state["hidden.weight"] = hidden[::-1, ::-1].transpose(3, 2, 0, 1).reshape(200, -1)
    state["logits.weight"] = np.asarray(ours.get_layer("logits").kernel).T
    twin.load_state_dict({name: torch.tensor(np.array(value)) for name, value in state.items()})
    images, _ = benchmark_peers.batch(WORK)
    mirrored = torch.from_numpy(np.ascontiguousarray(images[:, ::-1, ::-1].transpose(0, 3, 1, 2)))
    with torch.no_grad():
        logits = twin(mirrored).numpy()
    assert np.ptp(logits) > 0.1
    np.testing.assert_allclose(logits, ours(images), atol=1e-4)


@pytest.mark.parametrize("name", EAGER)
def test_an_update_attacks_and_changes_the_weights(name):
    job = peers()[name](WORK)
    before = [weight.detach().clone() for weight in job.network.parameters()]
    seen, forward, backward = watch(job)
    assert backward == WORK.num_steps + 1
    assert forward == backward + OWN_PREDICTIONS.get(name, 0)
    for old, new in zip(before, job.network.parameters()):
        assert 0 < (new - old).abs().max() <= 1.001e-4  # Adam's first step is the learning rate at most
    trained_on, images = (np.sort(as_array(x), axis=0) for x in (seen[-1], job.images))  # ART shuffles
    assert_in_ball(trained_on, images, WORK, reach=WORK.epsilon)


@pytest.mark.parametrize("name", [name for name in evaluators() if name != "pytorch compiled"])
def test_an_evaluation_attacks_and_predicts(name):
    work = Work(width=1, precision="float32", batch_size=8, num_steps=20, step_size=0.0125)
    job = evaluators()[name](work)
    before = [weight.detach().clone() for weight in job.network.parameters()]
    seen, forward, backward = watch(job)
    assert backward == work.num_steps + name.endswith("apgd")
    assert forward == backward + OWN_PREDICTIONS.get(name, 0) + 1
    assert all(torch.equal(old, new) for old, new in zip(before, job.network.parameters()))
    assert_in_ball(torch.stack(seen), job.images, work, reach=work.epsilon)


@pytest.mark.parametrize("name", [name for name in EAGER if name != "pytorch"])
def test_every_pgd_is_the_same_attack(name):
    # Without a random start all are deterministic; their losses differ by the factor 8, which is exact.
    ours, other = (evaluators()[n](WORK) for n in ("pytorch", name))
    expected = as_array(ours.attack(ours.images, ours.labels))
    np.testing.assert_allclose(as_array(other.attack(other.images, other.labels)), expected, atol=1e-6)


def compile_with(monkeypatch, backend):
    """Lets the jobs compile whole graphs with a backend that needs no minutes of C++."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend, fullgraph=True))


@pytest.mark.parametrize("work", [WORK, BFLOAT16], ids=lambda work: work.precision)
def test_the_compiled_attack_is_one_graph_and_the_same_attack(work, monkeypatch):
    compile_with(monkeypatch, "aot_eager")
    ours, compiled = (evaluators()[name](work) for name in ("pytorch", "pytorch compiled"))
    difference = compiled.attack(ours.images, ours.labels) - ours.attack(ours.images, ours.labels)
    assert np.mean(np.abs(as_array(difference)) < 1e-6) > 0.9  # gradients near 0 may change sign
    assert torch.equal(compiled.use(ours.images), ours.labels)


def test_a_compiled_update_changes_the_weights(monkeypatch):
    compile_with(monkeypatch, "aot_eager")
    job, fresh = peers()["pytorch compiled"](WORK), benchmark_peers.build_network(1)  # it has done its first update
    for old, new in zip(fresh.parameters(), job.network.parameters()):
        assert 0 < (new - old).abs().max() <= 1.001e-4
    assert_in_ball(job.attack(job.images, job.labels), job.images, WORK, reach=WORK.epsilon)


def test_a_compiler_that_fails_takes_its_variant_out(monkeypatch, caplog):
    def backend(graph, inputs):
        raise OSError("no compiler")

    compile_with(monkeypatch, backend)
    assert peers()["pytorch compiled"](WORK) is None
    assert "no compiler" in caplog.text


def test_a_bfloat16_update_moves_float32_masters():
    job = peers()["pytorch"](BFLOAT16)
    dtypes = {name: weight.dtype for name, weight in job.network.named_parameters()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == {"logits.weight", "logits.bias"}
    assert set(dtypes.values()) == {torch.float32, torch.bfloat16}
    fresh = benchmark_peers.build_network(1)
    for _ in range(4):
        job()
    for old, new in zip(fresh.parameters(), job.network.parameters()):
        moved = (new - old).abs().max()
        assert 1e-4 < moved < 4.1e-4 + (old.abs().max() / 256 if new.dtype == torch.bfloat16 else 0)


def test_only_what_is_installed_and_able_is_offered(monkeypatch):
    assert "pytorch" in peers() and peers().keys() <= evaluators().keys()
    if "art" in peers():
        assert peers()["art"](BFLOAT16) is None

    def nothing(distribution):
        raise importlib.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    assert peers() == {} and evaluators() == {}
