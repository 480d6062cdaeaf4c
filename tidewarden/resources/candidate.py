"""A candidate: a second model beside a detector's own, its champion, and for which series it answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tidewarden.resources.base import Model
from tidewarden.resources.models import ModelSpec

CandidateMode = Literal["shadow", "canary", "promoted"]


class Candidate(Model):
    """A model that runs beside the detector's own and is compared with it."""

    model: ModelSpec = Field(description="The candidate; everything else is as in the detector.")
    mode: CandidateMode = Field(
        "shadow",
        description="shadow: it is only counted. canary: it answers for a share of the series. promoted: for all. "
        "One that answers and turns out worse is rolled back: the detector's own model answers again.",
    )
    share: float = Field(
        10.0, gt=0, lt=100, description="Percent of the series that a canary answers for, by a hash of their names."
    )
