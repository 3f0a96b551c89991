"""Interval bounds: what a network can answer for any image of an L-inf ball."""

from pineat_tf.bounds.box import Box
from pineat_tf.bounds.propagation import interval, margins
from pineat_tf.bounds.rules import rule

__all__ = ["Box", "interval", "margins", "rule"]
