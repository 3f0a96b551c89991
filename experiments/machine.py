"""A description of this machine and its libraries, the precision that it computes fast, and shares of its cores."""

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

import pineat_tf as pt
from pineat_tf import accelerate

_BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16"}


def description(cpuinfo: str = "/proc/cpuinfo") -> dict[str, object]:
    """Describes what the last digits of a run depend on: cores, threads and processors.

    Args:
        cpuinfo: Linux' description of its processors.
    """
    threading = tf.config.threading
    return {
        "cpu": _told(cpuinfo, "model name") or platform.processor() or platform.machine(),
        "cores": len(accelerate.cores()),
        "threads": [threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()],
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """Versions of what a run's figures come from."""
    modules = {"pineat_tf": pt, "tensorflow": tf, "keras": keras, "numpy": np}
    return {name: module.__version__ for name, module in modules.items()} | {"python": platform.python_version()}


@contextlib.contextmanager
def kept_to(cores: Sequence[int]) -> Iterator[None]:
    """Keeps this thread, and what it begins meanwhile, to these cores, where the system can."""
    before, keep = accelerate.cores(), getattr(os, "sched_setaffinity", lambda pid, cores: None)
    keep(0, cores)
    try:
        yield
    finally:
        keep(0, before)


def features(cpuinfo: str = "/proc/cpuinfo") -> set[str]:
    """The names of what this machine's processors can do; none where the system does not tell.

    Args:
        cpuinfo: Linux' description of its processors.
    """
    return {*_told(cpuinfo, "flags", "features").split()}


def emulates_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Tells if this machine would compute bfloat16 without instructions for it, which is slower than float32.

    Args:
        cpuinfo: as for `features`.

    Returns:
        False with a GPU, and where the description is not there or names no features.
    """
    found = features(cpuinfo) if not tf.config.list_physical_devices("GPU") else set()
    return bool(found) and not _BFLOAT16_FEATURES & found


def _told(cpuinfo: str, *names: str) -> str:
    """What is told of the first processor under one of these names; empty where nothing is."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            lines = (line.partition(":") for line in file)
            return next((value.strip() for name, _, value in lines if name.strip().lower() in names), "")
    except OSError:
        return ""
