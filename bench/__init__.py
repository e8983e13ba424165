"""Measurements of the library through its public API; run one with ``python -m bench.<name>`` from a checkout."""
