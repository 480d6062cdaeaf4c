"""Reconcile: what is brought about, step by step."""
