"""Commands that work on files: score and evaluate."""
