"""Times this library beside plain TensorFlow loops and other libraries, all in one run.

    python -m experiments.study.benchmark --widths=1,4 --json=benchmark.json --picture=benchmark.png

Each engine has a process of its own; they take turns at each task, so that ratios hold on a machine that others use
as well. Engines whose library is not installed are left out.
"""

import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import tempfile

from absl import flags

from experiments import WITHOUT_TENSORFLOW, command_line, files, machine, progress
from experiments.study.benchmark import results, work
from experiments.study.benchmark.work import EVALUATION, MATMUL, METHODS, TRAINING
from pineat_tf import accelerate
from pineat_tf.checks import check_choice

_PRECISIONS = ["float32", "bfloat16"]


class _Process:
    """An engine at work, in a process of its own or, a core each, in several."""

    def __init__(self, engine: str, width: int, precision: str):
        self.engine = engine
        self.errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", work.module_of(engine), engine, str(width), precision]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        without = {} if engine in work.OURS else {WITHOUT_TENSORFLOW: "1"}
        cores = accelerate.cores()
        shares = [[core] for core in cores] if engine == work.A_CORE_EACH else [cores]
        self.processes = []
        for share in shares:
            with machine.kept_to(share):
                self.processes.append(subprocess.Popen(command, env=os.environ | without, text=True, **pipes))

    def updates_per_second(self, task: str, seconds: float) -> float | None:
        """One measurement; None where the engine cannot do the task, or has ended, which is told."""
        try:
            for process in self.processes:
                process.stdin.write(json.dumps({"task": task, "seconds": seconds}) + "\n")
                process.stdin.flush()
            rates = [json.loads(process.stdout.readline())["updates_per_second"] for process in self.processes]
            return None if None in rates else sum(rates)
        except (OSError, ValueError):
            self.errors.seek(0)
            words = self.errors.read().strip().splitlines() or ["without a word"]
            print(f"{self.engine} has ended at {task!r}: {words[-1]}", file=sys.stderr)
            return None

    def close(self) -> None:
        """Ends it."""
        for process in self.processes:
            process.terminate()
            process.wait()


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = _flags()
    if not command_line.parsed(values, argv, __doc__):
        return
    known = {"tasks": [*TRAINING, *METHODS, *EVALUATION], "engines": work.engines(), "precisions": _PRECISIONS}
    chosen = {name: getattr(values, name) or all_of_them for name, all_of_them in known.items()}
    for name, items in chosen.items():
        for item in items:
            check_choice(name, item, known[name])
    widths = _widths(values.widths)
    for path in filter(None, (values.json, values.picture)):
        if not pathlib.Path(path).parent.is_dir():
            raise ValueError(f"{path!r} is in no folder that there is. Make it, or write elsewhere.")
        files.check_replaceable(path)
    costs = results.costs() if values.json else []
    timings, matmul = [], {}
    for width in widths:
        for precision in chosen["precisions"]:
            timings += _measure(chosen["engines"], chosen["tasks"], width, precision, values)
            matmul[precision] = max([matmul.get(precision, 0.0), *_matmul(timings, precision)])
            _write(values, timings, matmul, costs)
    print(results.to_markdown(results.summarised(timings, matmul)))


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_list("widths", ["1", "4"], "Widths of the network, whole numbers.", flag_values=values)
    flags.DEFINE_list("precisions", [], "float32, bfloat16; empty for both.", flag_values=values)
    flags.DEFINE_list("tasks", [], "What to time; empty for everything.", flag_values=values)
    flags.DEFINE_list("engines", [], "Who takes part; empty for all that are installed.", flag_values=values)
    flags.DEFINE_integer("repeats", 5, "Turns of each engine at each task.", lower_bound=1, flag_values=values)
    flags.DEFINE_float("seconds", 1.0, "Length of a turn.", lower_bound=0.0, flag_values=values)
    flags.DEFINE_string("json", "", "File for all figures.", flag_values=values)
    flags.DEFINE_string("picture", "", "PNG file for the bars of PGD training.", flag_values=values)
    return values


def _widths(texts: list[str]) -> list[int]:
    if not texts or not all(text.isdecimal() and int(text) >= 1 for text in texts):
        raise ValueError(f"`widths` must be whole numbers >= 1. Received: {','.join(texts)!r}. Give e.g. --widths=1,4.")
    return [int(text) for text in texts]


def _measure(engines: list[str], tasks: list[str], width: int, precision: str, values: flags.FlagValues) -> list[dict]:
    """Timings of all engines at one width and precision, by turns."""
    processes = [_Process(engine, width, precision) for engine in engines]
    matmul = next((process for process in processes if process.engine == "tf.function"), None)
    matmul = matmul or _Process("tf.function", width, precision)
    order = random.Random(0)
    timings = {}
    try:
        with progress.bar(total=values.repeats * len(tasks), desc=f"width {width} {precision}", unit=" turns") as bar:
            for task in tasks:
                for process in processes:  # builds and compiles
                    if process.updates_per_second(task, 0.0) is not None:
                        timings[process, task] = []
                for _ in range(values.repeats):
                    taking_part = [process for process in processes if (process, task) in timings]
                    for process in order.sample(taking_part, len(taking_part)):
                        timings[process, task].append(process.updates_per_second(task, values.seconds))
                    timings.setdefault((matmul, MATMUL), []).append(matmul.updates_per_second(MATMUL, 0.2))
                    bar.update()
    finally:
        for process in {*processes, matmul}:
            process.close()
    return [
        {"engine": process.engine, "task": task, "width": width, "precision": precision, "updates_per_second": rates}
        for (process, task), rates in timings.items()
        if None not in rates
    ]


def _matmul(timings: list[dict], precision: str) -> list[float]:
    """All rates of the matrix product in GFLOP/s."""
    wanted = (MATMUL, precision)
    return [r for t in timings if (t["task"], t["precision"]) == wanted for r in t["updates_per_second"]]


def _write(values: flags.FlagValues, timings: list[dict], matmul: dict[str, float], costs: list[dict]) -> None:
    """Writes what there is so far."""
    rows = results.summarised(timings, matmul)
    if values.json:
        kinds = [kind for kind in ("avx2", "avx512f", "amx_bf16") if kind in machine.features()]
        cpu = " ".join([platform.machine(), *kinds])
        where = {"cores": len(accelerate.cores()), "cpu": cpu, "matmul_gflops": matmul}
        record = {"machine": where, "versions": results.versions(), "costs": costs, "rows": rows}
        files.write_json(values.json, record | {"timings": timings})
    if values.picture:
        results.write_picture(values.picture, rows)


if __name__ == "__main__":
    sys.exit(main())
