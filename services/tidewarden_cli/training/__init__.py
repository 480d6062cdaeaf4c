"""Training and the registry, from the command line."""
