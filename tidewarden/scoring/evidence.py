"""Evidence that may be looked at after every reading: betting scores, not p-values.

A p-value that is looked at again and again finds something in the end. What is computed here is a likelihood ratio
whose expectation never exceeds 1 while nothing is the matter, so by Ville's inequality the chance that it *ever*
reaches 1/α is at most α (Robbins 1970, Statistical methods related to the law of the iterated logarithm;
Ramdas et al. 2023, Game-theoretic statistics and safe anytime-valid inference).
"""

from __future__ import annotations

import math

EXCESS = 3.0  # a rate of alarms that is worth a rollback: three times what the budget allows
_LN_2 = math.log(2.0)


def log_evidence_for_more(wins: int, losses: int) -> float:
    """Natural logarithm of the evidence that an event is rather a win than a loss.

    The null hypothesis is that each is as likely as the other, as McNemar's test has it, where only events on which
    the two differ count. The alternative is a chance uniform between ½ and 1:
    ``2ⁿ⁺¹ ∫ pᵏ (1−p)ⁿ⁻ᵏ dp`` from ½ to 1, which is ``2ⁿ⁺¹ / ((n+1) C(n, k)) · P(Bin(n+1, ½) ≤ k)``.
    """
    n = wins + losses
    log_choose = math.lgamma(n + 1) - math.lgamma(wins + 1) - math.lgamma(losses + 1)
    return (n + 1) * _LN_2 - math.log(n + 1) - log_choose + _log_at_most(wins, n + 1)


def log_evidence_of_excess(alarms: int, allowed: float) -> float:
    """Natural logarithm of the evidence that alarms come at `EXCESS` times the rate by which ``allowed`` were due."""
    return alarms * math.log(EXCESS) - (EXCESS - 1.0) * allowed


def _log_at_most(k: int, n: int) -> float:
    """Log P(Bin(n, ½) ≤ k): the tail summed from its largest term, about √n terms."""
    if k >= n:
        return 0.0
    upper = 2 * k >= n
    at = k + 1 if upper else k
    largest = math.lgamma(n + 1) - math.lgamma(at + 1) - math.lgamma(n - at + 1) - n * _LN_2
    total = term = 1.0
    while term > 1e-17 * total and 0 < at < n:
        term *= (n - at) / (at + 1) if upper else at / (n - at + 1)
        at += 1 if upper else -1
        total += term
    return math.log1p(-min(math.exp(largest) * total, 1.0 - 1e-16)) if upper else largest + math.log(total)
