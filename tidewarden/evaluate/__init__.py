"""Metrics against truth: the one place that computes them.

Nothing here knows a store, a bus or a clock; arrays and Arrow tables go in, numbers come out.
Point-adjusted F1 is left out on purpose: random scores do well under it.
"""
