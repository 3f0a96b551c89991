"""What the machine at hand is good at."""

import tensorflow as tf

_BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16"}


def emulates_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether this machine would compute bfloat16 without instructions for it, which is slower than float32.

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
