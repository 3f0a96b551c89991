"""Audits of what was trained elsewhere: predictions in a file, or a network with its data."""

from experiments.audit.predictions import QUERIES, audit_file

__all__ = ["QUERIES", "audit_file"]
