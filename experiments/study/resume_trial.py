"""Kills training runs at random moments, resumes them, and compares them with runs that nobody disturbed.

    python -m experiments.study.resume_trial --kills=30 --json=trial.json

Trains small networks on scikit-learn's digits with a checkpoint after every round, kills the processes by SIGKILL at
random moments, resumes them with --resume, and compares weights and optimizer at the end, bit for bit, with a run of
the same flags that ended by itself. Takes turns between float32 and mixed_bfloat16, and the original method and
PINEAT. The exit code is 2 if a run ended differently.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf
from absl import flags

from experiments import child, command_line, files, progress
from pineat_tf.checks import check_count

FLAGS = (
    "--flagfile=quickstart.flags", "--flagfile=smoke.flags", "--train_size=500", "--updates=600", "--export=",
    "--checkpoint_seconds=0", "--output_dir=run",
)  # fmt: skip
CASES = [
    {"precision": precision, "variant": variant}
    for precision in ("float32", "mixed_bfloat16")
    for variant in ("original", "pineat")
]
KILLS_A_RUN = 4
LONGEST_WAIT = 1800.0  # seconds until a process has trained a round, or has ended
_ERRORS = "error"  # the file in which a run says why it failed
RANGE = 2.0  # seconds after the first round within which a process is killed


@dataclasses.dataclass
class Kill:
    """One process that was killed.

    Attributes:
        seconds: how long it lived.
        update: the last checkpoint on disk then.
        half_written: whether files of another checkpoint lay beside it.
        resumed_from: the update that the next process went on from.
    """

    seconds: float
    update: int
    half_written: bool
    resumed_from: int | None = None


def run_to_end(folder: pathlib.Path, arguments: Sequence[str]) -> int:
    """Runs `experiments.run` in a folder until it ends.

    Returns:
        The update that it went on from; 0 if it began again from the start.

    Raises:
        ValueError: if it fails.
    """
    with _process(folder, arguments) as process:
        if process.wait():
            raise ValueError(f"a run failed: {child.why_it_failed(process.returncode, folder / _ERRORS)}")
    return _resumed_from(folder)


def run_and_kill(folder: pathlib.Path, arguments: Sequence[str], rng: random.Random) -> tuple[Kill, int]:
    """Runs `experiments.run` in a folder and kills it at a random moment after it has trained a round.

    Returns:
        The kill, and the update that the process itself had gone on from.

    Raises:
        ValueError: if it ended before that.
    """
    began, checkpoints = time.monotonic(), folder / "run.unfinished" / "checkpoints"
    before, moment = _last_update(checkpoints), rng.uniform(0, RANGE)
    with _process(folder, arguments) as process:
        while process.poll() is None and _last_update(checkpoints) == before:
            if time.monotonic() - began > LONGEST_WAIT:
                raise ValueError(f"a run has not trained a round in {LONGEST_WAIT:.0f} s")
            time.sleep(0.01)
        time.sleep(moment)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            why = child.why_it_failed(process.returncode, folder / _ERRORS)
            raise ValueError(f"a run ended before it was killed: {why}")
    last = _last_update(checkpoints)
    half_written = any(path.name.partition(".")[0] not in _names(checkpoints) for path in checkpoints.iterdir())
    return Kill(round(time.monotonic() - began, 2), last, half_written), _resumed_from(folder)


def final_state(run_dir: pathlib.Path) -> dict[str, bytes]:
    """Weights and optimizer at the end of a run, by the names that the last checkpoint has for them."""
    folder = run_dir / "checkpoints"
    reader = tf.train.load_checkpoint(str(folder / f"ckpt-{_last_update(folder)}"))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("variables/")]
    return {name: reader.get_tensor(name).tobytes() for name in sorted(names)}


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_integer("kills", 30, "How many in all, at most four a run.", **own)
    flags.DEFINE_integer("seed", 0, "Of the moments.", **own)
    flags.DEFINE_string(
        "json", "", "File for each kill: seconds after the process began, updates on disk, whether a half-written "
        "checkpoint lay there too, and the update that the next process went on from.", **own,
    )  # fmt: skip
    if not command_line.parsed(values, argv, __doc__):
        return
    check_count("kills", values.kills, 1, "Give how many in all, e.g. --kills=30.")
    with files.replacing(values.json) if values.json else contextlib.nullcontext() as temporary:
        if temporary:
            temporary.touch()  # so that a path that cannot be written to is told at once
        runs = _trial(values.kills, values.seed)
        if temporary:
            temporary.write_text(json.dumps(_record(runs), indent=1) + "\n", encoding="utf-8")
    differing = sum(not run["identical"] for run in runs)
    if differing:
        raise ValueError(f"{differing} of {len(runs)} resumed runs differ from those that were not disturbed")
    print(f"{values.kills} kills in {len(runs)} runs: all ended with the weights of undisturbed ones, bit for bit.")


def _trial(kills: int, seed: int) -> list[dict]:
    """Runs with so many kills in all, the cases by turns; prints each kill."""
    rng, expected, runs = random.Random(seed), {}, []
    with progress.bar(total=kills, unit=" kills", desc="resume trial") as bar:
        while kills:
            case = CASES[len(runs) % len(CASES)]
            arguments = [*FLAGS, *(f"--{name}={value}" for name, value in case.items())]
            key = tuple(case.values())
            if key not in expected:
                with tempfile.TemporaryDirectory() as folder:
                    run_to_end(pathlib.Path(folder), arguments)
                    expected[key] = final_state(pathlib.Path(folder, "run"))
            with tempfile.TemporaryDirectory() as folder:
                killed = _killed_run(pathlib.Path(folder), arguments, min(KILLS_A_RUN, kills), rng, bar)
                identical = final_state(pathlib.Path(folder, "run")) == expected[key]
            kills -= len(killed)
            runs.append({**case, "identical": identical, "kills": [dataclasses.asdict(kill) for kill in killed]})
            bar.write(f"{' '.join(key)}: {'identical' if identical else 'DIFFERENT'} after {len(killed)} kills")
    return runs


def _killed_run(
    folder: pathlib.Path, arguments: Sequence[str], kills: int, rng: random.Random, bar: progress.Bar
) -> list[Kill]:
    """Kills a run so many times and then lets it end."""
    killed = []
    for number in range(kills):
        kill, resumed_from = run_and_kill(folder, [*arguments, *(["--resume"] if number else [])], rng)
        if killed:
            killed[-1].resumed_from = resumed_from
        killed.append(kill)
        bar.write(f"killed after {kill.seconds} s at update {kill.update}{' while it wrote' * kill.half_written}")
        bar.update()
    killed[-1].resumed_from = run_to_end(folder, [*arguments, "--resume"])
    return killed


def _record(runs: list[dict]) -> dict:
    return {
        "identical": all(run["identical"] for run in runs),
        "kills": sum(len(run["kills"]) for run in runs),
        "half_written": sum(kill["half_written"] for run in runs for kill in run["kills"]),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "flags": list(FLAGS),
        "runs": runs,
    }


@contextlib.contextmanager
def _process(folder: pathlib.Path, arguments: Sequence[str]) -> Iterator[subprocess.Popen]:
    """A run in a process of its own, which does not outlive the context; what it prints goes to `log` in the folder."""
    root = str(pathlib.Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    own = {"errors": folder / _ERRORS, "environment": {**os.environ, "PYTHONPATH": path}, "folder": folder}
    with open(folder / "log", "w", encoding="utf-8") as log, child.start(arguments, output=log, **own) as process:
        try:
            yield process
        finally:
            process.kill()


def _resumed_from(folder: pathlib.Path) -> int:
    found = re.search(r"Going on from update (\d+)\.", (folder / "log").read_text(encoding="utf-8"))
    return int(found[1]) if found else 0


def _names(checkpoints: pathlib.Path) -> set[str]:
    return {path.stem for path in checkpoints.glob("ckpt-*.index")}


def _last_update(checkpoints: pathlib.Path) -> int:
    return max((int(name.partition("-")[2]) for name in _names(checkpoints)), default=0)


if __name__ == "__main__":
    sys.exit(main())
