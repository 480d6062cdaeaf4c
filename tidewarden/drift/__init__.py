"""Drift: what a detector watches is no longer what it learned from. Three questions, never mixed up.

* *data*: do a series' values have another distribution than in its reference window (PSI and KS, `distribution.py`),
  or have the residuals of its model another mean (ADWIN, `adwin.py`)?
* *model*: are the p-values still what they claim, and the alarms within the budget (`model.py`)?
* *source*: did series vanish or appear, do readings come at another pace than the stream declares (`source.py`)?

`monitor.py` holds the three and says what they found; nothing here changes a score.
"""
