"""Real servers for tests: one file each, its fixtures are loaded by `tests/conftest.py`."""
