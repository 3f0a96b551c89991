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
        "cpu": _processor(cpuinfo) or platform.processor() or platform.machine(),
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


def _processor(cpuinfo: str) -> str:
    """The model's name; empty where the system does not tell."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            lines = (line.partition(":") for line in file)
            return next((value.strip() for name, _, value in lines if name.strip() == "model name"), "")
    except OSError:
        return ""


def emulates_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Tells if this machine would compute bfloat16 without instructions for it, which is slower than float32.

    Args:
        cpuinfo: Linux' description of its processors.

    Returns:
        False with a GPU, and where the description is not there or names no features.
    """
    if tf.config.list_physical_devices("GPU"):
        return False
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return False
    features = next((values.split() for name, _, values in lines if name.strip().lower() in ("flags", "features")), ())
    return bool(features) and not _BFLOAT16_FEATURES.intersection(features)
