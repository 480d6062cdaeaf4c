"""`make accuracy`: every model and every peer on the same labelled files, judged alike, in one table.

`sets` reads or makes the data, `ours` and `contestants` score it, `judging` turns scores into figures, `cache` keeps
them, `summary` averages them with intervals, `table` writes them down. Nothing here computes a metric: that is
`tidewarden.evaluate`'s.
"""
