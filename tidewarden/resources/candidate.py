"""A candidate: a second model beside a detector's own, its champion, and when it takes over."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tidewarden.resources.base import Duration, Model
from tidewarden.resources.models import ModelSpec

CandidateMode = Literal["shadow", "canary", "promoted"]


class Promote(Model):
    """When the candidate answers for all series without anybody saying so."""

    when: Literal["manual", "better"] = Field(
        "manual", description="manual: never by itself, set mode promoted. better: as soon as the rule holds."
    )
    after: Annotated[Duration, Field(ge=60_000)] = Field(
        7 * 86_400_000,
        description="Time, by the readings' count and interval, over which both must have been compared before; as "
        "long again after a promotion it is confirmed.",
    )
    rule: Literal["fewerAlarms", "betterByTruth"] = Field(
        "fewerAlarms",
        description="fewerAlarms: fewer alarms while it finds what was marked right (without marks: what was critical) "
        "as well. betterByTruth: it is right more often where people marked anomalies right or wrong.",
    )
    confidence: float = Field(
        0.95, ge=0.5, le=0.9999, description="Chance that a candidate which is not better is never promoted."
    )


class Candidate(Model):
    """A model that runs beside the detector's own and is compared with it."""

    model: ModelSpec = Field(description="The candidate; everything else is as in the detector.")
    mode: CandidateMode = Field(
        "shadow",
        description="shadow: it is only counted. canary: it answers for a share of the series. promoted: for all.",
    )
    share: float = Field(
        10.0, gt=0, lt=100, description="Percent of the series that a canary answers for, by a hash of their names."
    )
    promote: Promote = Field(default_factory=Promote)

    @model_validator(mode="after")
    def _no_rule_when_promoted(self) -> Self:
        if self.mode == "promoted" and self.promote.when == "better":
            raise ValueError("mode is promoted already, so promote.when: better has nothing to decide: leave it out")
        return self
