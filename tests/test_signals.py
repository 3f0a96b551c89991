"""Signals that end a command: in one line, at the right exit code, also where Python does not come to hear of them."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments import WITHOUT_TENSORFLOW, command_line, signals
from experiments.signals import InterruptedRun

ROOT = Path(__file__).resolve().parents[1]
GUARD = 1200.0  # seconds, against a hang
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ALL)
def test_a_signal_outside_training_is_one_line_and_an_exit_code(number, capsys):
    before = [signal.getsignal(each) for each in ALL]
    code = command_line.guarded(lambda argv: os.kill(os.getpid(), number), [])
    assert (code, capsys.readouterr().err) == (128 + number, f"interrupted: by {number.name}\n")
    assert [signal.getsignal(each) for each in ALL] == before


@pytest.mark.parametrize("number", ALL)
def test_what_the_caller_ignores_stays_ignored(number):  # as nohup does, and shells for jobs in the background
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert command_line.guarded(lambda argv: os.kill(os.getpid(), number), []) == 0
    finally:
        signal.signal(number, before)


def test_an_interruption_is_no_failure_that_others_would_catch():
    def command(argv):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:  # as Keras and TensorFlow have it here and there
            pytest.fail("was caught on the way")

    assert command_line.guarded(command, []) == 143


def test_other_threads_may_run_commands():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(command_line.guarded(lambda argv: None, [])))
    thread.start()
    thread.join(GUARD)
    assert codes == [0]


def test_handlers_are_put_back_after_an_error():
    before = [signal.getsignal(each) for each in ALL]
    with pytest.raises(InterruptedRun), signals.ending.listening():
        raise InterruptedRun("kept", 143)
    assert [signal.getsignal(each) for each in ALL] == before


# A main thread that stays in C, as in a wait of TensorFlow's for a worker that is gone: a deadlock with itself. As it
# gives the interpreter to others nowhere but there, it has left Python for good when the other thread says "ready".
STUCK = """
import ctypes, sys, threading
from experiments import signals

signals._GRACE = 0.1
libc, mutex, go = ctypes.CDLL(None), ctypes.create_string_buffer(64), threading.Lock()
libc.pthread_mutex_init(mutex, None)
libc.pthread_mutex_lock(mutex)
go.acquire()
with signals.ending.listening(), signals.ending.patient({patience}):
    threading.Thread(target=lambda: go.acquire() and print("ready", flush=True), daemon=True).start()
    sys.setswitchinterval(3600.0)
    go.release()
    libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a deadlock by way of the C library of Linux")
@pytest.mark.parametrize("patience, signals_sent", [("0.1", 1), ("None", 2)])
def test_a_process_that_is_stuck_ends_nevertheless(patience, signals_sent):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        WITHOUT_TENSORFLOW: "1",
    }  # signals need none, and it takes 5 s
    command = [sys.executable, "-c", STUCK.format(patience=patience)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stuck:
        assert stuck.stdout.readline() == "ready\n"
        stuck.send_signal(signal.SIGTERM)
        if signals_sent > 1:
            with pytest.raises(subprocess.TimeoutExpired):  # a first one waits for the round
                stuck.wait(1.0)
            stuck.send_signal(signal.SIGTERM)
        _, said = stuck.communicate(timeout=GUARD)
    assert (stuck.returncode, said) == (143, "interrupted: by SIGTERM, at once\n")


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("command", ["run", "sweep", "compare"])
def test_a_signal_during_imports_is_one_line_and_an_exit_code(tmp_path, command, number):
    (tmp_path / "tensorflow.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(3600)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    started = [sys.executable, "-m", f"experiments.{command}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(started, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=GUARD)
    assert (process.returncode, said) == (128 + number, "interrupted\n")


def test_an_import_by_another_program_leaves_its_signals_alone(tmp_path):
    (tmp_path / "tensorflow.py").touch()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    program = "import signal; before = signal.getsignal(2); import experiments; assert signal.getsignal(2) is before"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


# Modules are imported anew in each case, but for those of TensorFlow and Keras.
ABSENT = """
import os, signal, sys
import fcntl, keras, tensorflow

parts = {"fcntl": (sys.modules, "fcntl"), "SIGHUP": (vars(signal), "SIGHUP")}
parts["affinity"] = vars(os), "sched_getaffinity"
for absent in (["fcntl"], ["SIGHUP"], ["affinity"], list(parts)):
    for name in [name for name in sys.modules if name.split(".")[0] in ("experiments", "pineat_tf")]:
        del sys.modules[name]
    before = [(place, name, place[name]) for place, name in map(parts.get, absent)]
    for place, name, _ in before:
        if place is sys.modules:
            place[name] = None
        else:
            del place[name]
    import experiments.run, experiments.child, experiments.machine
    from experiments.sweep import executors
    from pineat_tf import accelerate

    accelerate.set_threads()
    assert experiments.machine.description()["cores"] >= 1
    with executors._share_of_the_machine(2):
        pass
    assert experiments.run.main(["run", "--helpshort"]) == 0
    print("without", *absent)
    for place, name, value in before:
        place[name] = value
"""


def test_the_runner_works_where_parts_of_posix_are_absent():
    """It is imported, asks the machine, shares out its cores, listens to signals, and answers."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ABSENT], env=environment, check=True, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("without ")] == [
        "without fcntl", "without SIGHUP", "without affinity", "without fcntl SIGHUP affinity",
    ]  # fmt: skip


BROKEN = """
import os, sys
from experiments import command_line

def command(argv):
    for number in range(100_000):
        print(number)
        print(number, file=sys.stderr)
    open(argv[0], "w").write("done")

sys.exit(command_line.guarded(command, sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
@pytest.mark.parametrize("redirection", ["2>/dev/null", "2>&1"])
def test_a_command_goes_on_when_its_reader_goes_away(tmp_path, redirection):
    program, done = tmp_path / "program.py", tmp_path / "done"
    program.write_text(BROKEN)
    line = f"( {sys.executable} {program} {done}; echo $? > {tmp_path}/code ) {redirection} | head -n 1"
    ran = subprocess.run(
        ["sh", "-c", line], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=GUARD
    )
    assert (ran.stdout, ran.stderr) == ("0\n", "")
    assert (tmp_path / "code").read_text() == "0\n" and done.read_text() == "done"
