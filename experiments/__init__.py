"""The paper's experiments: data, networks, flags and the commands that run them."""

import os

# TensorFlow prints pages of remarks at start-up, among which our one line on stderr would be lost.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
