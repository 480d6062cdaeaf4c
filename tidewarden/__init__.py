"""Tidewarden watches metrics for the unusual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidewarden.scoring.offline import Scores

__all__ = ["score"]


def score(
    data: Any,
    timestamps: Any = None,
    *,
    model: str | Mapping[str, Any] = "auto",
    interval: str | int | None = None,
    seasonality: Sequence[str | int] = ("1d",),
    threshold: float | None = None,
    warm: Any = None,
) -> Scores:
    """Score readings, each judged by what came before it. The same code path as the stream.

    Args:
        data: one series as an array (n,); a matrix (n, m) with a column a metric; a mapping of columns; or
            a data frame of pandas, polars or pyarrow. A column ``timestamp`` gives the times; ``label`` and
            ``is_anomaly`` are never read. NaN is a missing reading.
        timestamps: times of the rows, integer milliseconds since the epoch or datetimes (UTC), in order.
            Absent: one minute apart.
        model: kind of the model, or a mapping as under ``spec.model`` of an AnomalyDetector.
        interval: expected spacing, as ``5m``; absent: the median spacing.
        seasonality: seasons to expect, as ``1d``.
        threshold: anomaly score that makes an anomaly, 0.8 unless said otherwise.
        warm: readings of the same columns to learn from first.

    Returns:
        Scores in the order and shape of the input, and the anomalies found.

    Raises:
        ValueError: shapes, columns or timestamps do not fit; the message says which.

    >>> import numpy as np, tidewarden
    >>> values = np.random.default_rng(0).normal(100, 5, 600); values[500:504] = 180
    >>> scores = tidewarden.score(values)
    >>> int(scores.anomaly_score.argmax()), scores.anomalies[0].kind
    (500, 'spike')
    """
    from tidewarden.scoring.offline import score as score_offline

    return score_offline(
        data, timestamps, model=model, interval=interval, seasonality=seasonality, threshold=threshold, warm=warm
    )
