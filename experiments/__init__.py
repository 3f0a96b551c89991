"""The paper's experiments: data, networks, flags and the commands that run them."""

import os


def _import_tensorflow_quietly() -> None:
    """TensorFlow writes remarks to stderr while it is imported, among which one line of ours would be lost."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


_import_tensorflow_quietly()
