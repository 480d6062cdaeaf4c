"""The cluster: what is watched, what it looks like, and the only file with effects (`client.py`)."""
