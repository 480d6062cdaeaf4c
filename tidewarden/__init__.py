"""Tidewarden watches metrics for the unusual."""
