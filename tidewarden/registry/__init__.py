"""Versions of detectors' models: what was trained, on what, how good it was, and which one is the champion."""
