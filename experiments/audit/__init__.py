"""Audits of what was trained elsewhere: predictions in a file, or a network with its data."""

from experiments.audit.predictions import QUERIES

__all__ = ["QUERIES"]
