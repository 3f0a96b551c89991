"""Several devices and several machines train what one device trains."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import distribution
from experiments.config import ExperimentConfig

ROOT = pathlib.Path(__file__).parents[1]
PATIENCE = 1200  # seconds, against a hang
FLAGS = (
    "--dataset=digits --network=mlp --train_size=160 --test_size=40 --batch_size=40 --updates=24 "
    "--attack=dist --num_steps=2 --ratio=1/1 --learning_rates=1e-2 --eval_steps=2 --checkpoint_seconds=0 --export="
).split()


@contextlib.contextmanager
def started(*arguments, log: pathlib.Path, **environment):
    """A Python process whose whole group is ended with the context, come what may."""
    settings = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "1", **environment}
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def library(runs):
    """What `replicas.py` found of one device and of two."""
    return json.loads((runs / "library.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directory of the same run by one device and by two."""
    directory = tmp_path_factory.mktemp("runs")
    with started("tests/replicas.py", str(directory), *FLAGS, log=directory / "log") as process:
        assert process.wait(PATIENCE) == 0, (directory / "log").read_text(encoding="utf-8")[-4000:]
    return directory


def test_dist_shrinks_noise_by_the_mean_step_of_all_replicas(library):
    # Steps 0.1 * (1, 3), their mean 0.2: moved to 0.1 - 0.2 and 0.3 - 0.2. By itself each replica would stay at 0.
    assert library["dist_step"] == pytest.approx([-0.1, 0.1])


def test_replicas_get_the_parts_of_a_batch_in_order(library):
    whole, parts = library["parts"]
    assert parts == [[batch[:2], batch[2:]] for batch in whole]


def test_replicas_leave_what_is_the_users_as_it_is(library):
    assert library["changed"] == []


def test_a_batch_that_cannot_be_shared_out_is_refused(library):
    fits, refused = library["refused"]
    assert fits == ""
    assert "must divide by their number, 2. Received: batch_size=5. Give e.g. 4." in refused


@pytest.mark.parametrize(
    ("case", "weights", "bias"),
    [
        # Logits are 0, so p = 1/2 and the gradient of w is mean((p - y) x) at rate 1. A first batch of zeros changes
        # nothing. Then x = 1, 2, 3 and y = 1, in parts of two and one, give (-1 - 2 - 3) / 2 / 3 = -1. The mean of the
        # parts' means would be (-3/4 - 3/2) / 2 = -9/8.
        ("linear_ragged", [1.0, -1.0], [0.5, -0.5]),
        # One row, x = 2 and y = 1, for the first replica and none for the second: -1 and -1/2.
        ("linear_one_row_left", [1.0, -1.0], [0.5, -0.5]),
        # Images of zeros, w = 1: the gradient is that of 0.125 w^2, once and not once a replica: 1 - 0.25.
        ("linear_l2", [0.75, 0.75], [0.0, 0.0]),
    ],
)
def test_two_devices_give_the_weights_of_the_closed_form(library, case, weights, bias):
    for devices in ("one", "two"):
        kernel, offset = library[case][devices]["weights"]
        assert kernel == [pytest.approx(weights)] and offset == pytest.approx(bias)


@pytest.mark.parametrize("case", ["diff", "ikl_awp", "ragged"])
def test_two_devices_train_digits_as_one_does(library, case):
    one, two = (np.array(library[case][devices]["weights"]) for devices in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=0, atol=3e-6)


@pytest.mark.parametrize("case", ["linear_ragged", "linear_one_row_left", "linear_l2", "ragged"])
def test_two_devices_log_what_one_does(library, case):
    one, two = (library[case][devices]["history"] for devices in ("one", "two"))
    assert two.keys() == one.keys() and {"loss", "accuracy", "companion_loss"} <= one.keys()
    assert "val_loss" in one or not case.startswith("linear")
    for name, values in one.items():
        assert two[name] == pytest.approx(values, abs=1e-6), name


def test_the_runner_gives_the_same_with_mirrored_devices(runs):
    one, two = (load(runs / name) for name in ("none", "mirrored"))
    assert_close(two, one)
    config = {name: json.loads((runs / name / "metrics.json").read_text())["flags"] for name in ("none", "mirrored")}
    assert {name: flags["strategy"] for name, flags in config.items()} == {"none": "none", "mirrored": "mirrored"}


def test_a_killed_worker_ends_the_pair_which_resumes_to_the_same_result(runs, tmp_path):
    output = tmp_path / "pair"
    with contextlib.ExitStack() as stack:
        chief, other = start_pair(stack, output, tmp_path)
        wait_for_checkpoint(output, 6, chief, tmp_path)
        os.kill(other.pid, signal.SIGKILL)
        assert chief.wait(PATIENCE) == distribution.LOST_WORKER
    assert "another worker is gone" in (tmp_path / "0.log").read_text(encoding="utf-8")
    done = max(checkpoints(output))
    assert 6 <= done < 24 and not (output / "metrics.json").exists()

    with contextlib.ExitStack() as stack:
        for process in start_pair(stack, output, tmp_path, "--resume"):
            assert process.wait(PATIENCE) == 0, ends_of_logs(tmp_path)
    printed = [(tmp_path / f"{index}.log").read_text(encoding="utf-8") for index in (0, 1)]
    assert f"Going on from update {done}." in printed[0] and "A_train" in printed[0]
    assert "A_train" not in printed[1] and "Results are in" not in printed[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.log", "1.log", "pair"]
    assert_close(load(output), load(runs / "none"))


def start_pair(stack, output, directory, *flags):
    """The chief and another worker on this machine."""
    ports = free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    command = ["-m", "experiments.run", *FLAGS, "--strategy=multi_worker", f"--output_dir={output}", *flags]
    return [
        stack.enter_context(
            started(
                *command,
                log=directory / f"{index}.log",
                TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            )
        )
        for index in range(2)
    ]


def ends_of_logs(directory):
    return "\n".join(path.read_text(encoding="utf-8")[-4000:] for path in sorted(directory.glob("*.log")))


def free_ports(num):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def checkpoints(output):
    directory = output.with_name(output.name + ".unfinished") / "checkpoints"
    return [int(path.stem.partition("-")[2]) for path in directory.glob("ckpt-*.index")]


def wait_for_checkpoint(output, updates, process, directory):
    deadline = time.monotonic() + PATIENCE
    while max(checkpoints(output), default=0) < updates:
        assert process.poll() is None, ends_of_logs(directory)
        assert time.monotonic() < deadline, "there was no checkpoint in time"
        time.sleep(0.02)


def load(directory):
    with np.load(directory / "predictions.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def assert_close(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(arrays[name], values, rtol=0, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"ps": ["b:1"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:0"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:65536"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:port"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [":1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": true}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": ["worker"], "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": "worker"}',
        '{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}',
        "[" * 100_000,
        "1" * 100_000,
        "NaN",
        '"text"',
    ],
)
def test_a_tf_config_that_says_nothing_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG does not say which worker this is. Received: TF_CONFIG=") as error:
        distribution.strategy("multi_worker")
    assert "indices" not in str(error.value)  # no words of Python's


def test_a_worker_that_waits_says_for_whom_and_can_be_ended(tmp_path):
    ports = free_ports(3)
    cluster = {"chief": [f"127.0.0.1:{ports[0]}"], "worker": [f"127.0.0.1:{port}" for port in ports[1:]]}
    command = ["-m", "experiments.run", *FLAGS, "--strategy=multi_worker", f"--output_dir={tmp_path / 'run'}"]
    log = tmp_path / "log"
    task = {"type": "worker", "index": 0}
    with started(*command, log=log, TF_CONFIG=json.dumps({"cluster": cluster, "task": task})) as process:
        deadline = time.monotonic() + PATIENCE
        while "waits for" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        assert process.wait(PATIENCE) == 143
    said = log.read_text(encoding="utf-8").splitlines()
    assert said[-1] == "interrupted: by SIGTERM"
    assert f"worker 0 waits for chief 0 (127.0.0.1:{ports[0]}), worker 1 (127.0.0.1:{ports[2]})" in said


def test_a_port_that_is_taken_is_one_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = {"worker": [f"127.0.0.1:{port}", "127.0.0.1:1"]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
        with pytest.raises(OSError, match=f"cannot listen at the port of this worker: .*: '127.0.0.1:{port}'"):
            distribution.strategy("multi_worker")


def test_several_workers_need_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="needs TF_CONFIG in the environment, which is not set. Give every worker"):
        distribution.strategy("multi_worker")


def test_strategy_is_one_of_its_names():
    with pytest.raises(ValueError, match="Did you mean 'mirrored'"):
        ExperimentConfig(strategy="miror")
