"""A process in an environment of peers: a job a line in, an answer a line out, until its input ends.

Job: ``{"name", "input", "output", "seed", "budget_s", "train_rows"}``, files in numpy's format. Answer:
``{"failure", "slow", "seconds"}``; slow: with more time it would have come through.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings

import numpy as np

from benchmarks.accuracy.libraries import TooSlowError, raw_scores


def main() -> None:
    """Answer jobs. What a library prints goes to stderr: stdout is the answers'."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        job = json.loads(line)
        start = time.process_time()
        failure, slow = "", False
        try:
            with np.errstate(all="ignore"):
                values = np.load(job["input"])
                raw = raw_scores(job["name"], values, job["seed"], job["budget_s"], job["train_rows"])
            np.save(job["output"], raw)
        except TooSlowError as error:
            failure, slow = str(error), True
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        answers.write(json.dumps({"failure": failure, "slow": slow, "seconds": time.process_time() - start}) + "\n")


if __name__ == "__main__":
    main()
