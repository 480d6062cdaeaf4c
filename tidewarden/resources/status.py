"""What the operator says of each resource, under ``status``: conditions, counts, progress, evaluation.

The fields are part of the CRDs' schemas; nobody but the operator writes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tidewarden.resources.base import Duration, Model

ConditionStatus = Literal["True", "False", "Unknown"]
Phase = Literal["Waiting", "Running", "Paused", "Completed", "Failed"]

# The bounds of Kubernetes' own metav1.Condition, so that its tools can read ours.
_Type = Annotated[str, StringConstraints(min_length=1, max_length=316, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
_Reason = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
_Message = Annotated[str, StringConstraints(max_length=32_768)]


class Condition(Model):
    """One aspect of the resource, as Kubernetes' own conditions are."""

    type: _Type = Field(description="Which aspect, such as Ready, Accepted or DataFlowing.")
    status: ConditionStatus = Field(description="Whether it holds.")
    observed_generation: int = Field(0, ge=0, description="Generation of the spec that this was said of.")
    last_transition_time: datetime = Field(description="Since when the status is what it is.")
    reason: _Reason = Field(description="Why, in one stable word for programs.")
    message: _Message = Field("", description="Why, in a sentence for people, with what to do next.")


class Status(Model):
    """What the statuses of all kinds share."""

    observed_generation: int = Field(0, ge=0, description="Generation of the spec that the operator has dealt with.")
    conditions: list[Condition] = Field(
        default_factory=list, max_length=16, description="Aspects of the resource; one entry a type."
    )


class SourceStatus(Model):
    """One source of a stream."""

    name: str = Field(description="Name of the source.")
    kind: str = Field("", description="Its kind: http, kafka, prometheus or file.")
    readings: int = Field(0, ge=0, description="Readings accepted since its beginning.")
    rejected: int = Field(0, ge=0, description="Readings refused since its beginning.")
    late: int = Field(
        0, ge=0, description="Readings older than the newest of their series; they are scored all the same."
    )
    state: str = Field("", description="What it is doing, such as running, waiting or failed.")
    message: str = Field("", max_length=1_024, description="Its last failure, and what to do.")
    lag: Duration | None = Field(None, description="Now minus its newest timestamp.")


class MetricStreamStatus(Status):
    """Status of a MetricStream."""

    readings: int = Field(0, ge=0, description="Readings accepted since the stream's beginning.")
    rejected: int = Field(0, ge=0, description="Readings refused since then; the topic of rejected readings says why.")
    last_reading_time: datetime | None = Field(None, description="Timestamp of the newest reading.")
    sources: list[SourceStatus] = Field(
        default_factory=list, max_length=64, description="Each source, in the order of the spec."
    )
    topics: list[str] = Field(default_factory=list, max_length=1_000, description="Kafka topics of the stream.")
    partitions: int = Field(0, ge=0, description="Partitions that the readings topic has.")
    detectors: int = Field(0, ge=0, description="AnomalyDetectors that watch the stream.")
    lag_records: int = Field(0, ge=0, description="Records that the archive has not yet written.")


class EvaluationStatus(Model):
    """How one detector did against the truth of a simulation."""

    detector: str = Field(description="Name of the AnomalyDetector.")
    precision: float | None = Field(None, ge=0, le=1, description="Share of its anomalies that are true.")
    recall: float | None = Field(None, ge=0, le=1, description="Share of the true events that it found.")
    f1: float | None = Field(None, ge=0, le=1, description="Harmonic mean of precision and recall.")
    delay: Duration | None = Field(None, description="Median time from an event's start to its anomaly.")
    vus_pr: float | None = Field(None, ge=0, le=1, description="Volume under the precision-recall surface (VUS-PR).")
    false_alarms_per_day: float | None = Field(None, ge=0, description="False alarms of the whole detector a day.")
    events: int = Field(0, ge=0, description="True events that were judged.")
    detected: int = Field(0, ge=0, description="True events that were found.")
    false_alarms: int = Field(0, ge=0, description="Anomalies without an event.")


class MetricSimulationStatus(Status):
    """Status of a MetricSimulation."""

    phase: Phase | None = Field(None, description="Where it stands.")
    played: int = Field(0, ge=0, description="Readings played so far.")
    total: int | None = Field(None, ge=0, description="Readings in all; absent: endless.")
    percent: int | None = Field(None, ge=0, le=100, description="Share played; absent: endless.")
    start_time: datetime | None = Field(None, description="When its pod started.")
    completion_time: datetime | None = Field(None, description="When it ended.")
    evaluation: list[EvaluationStatus] = Field(
        default_factory=list, max_length=64, description="How each detector under evaluate did."
    )


class CandidateStatus(Model):
    """How a detector's candidate compares with its champion."""

    version: str = Field(description="Kind and version of the candidate.")
    mode: str = Field("", description="shadow, canary, promoted or rolledBack.")
    series: int = Field(0, ge=0, description="Series that it answers for.")
    readings: int = Field(0, ge=0, description="Readings that both scored.")
    champion_alarms: int = Field(0, ge=0, description="Alarms of the champion since both are compared.")
    candidate_alarms: int = Field(0, ge=0, description="Alarms of the candidate since then.")
    champion_only: int = Field(0, ge=0, description="Closed alarms that only the champion raised.")
    candidate_only: int = Field(0, ge=0, description="Closed alarms that only the candidate raised.")
    agreement: float | None = Field(None, ge=0, le=1, description="Share of closed alarms that the other raised, too.")
    champion_found: int = Field(0, ge=0, description="Marked right, and the champion had raised them.")
    candidate_found: int = Field(0, ge=0, description="Marked right, and the candidate had raised them.")
    champion_false: int = Field(0, ge=0, description="Marked wrong, and the champion had raised them.")
    candidate_false: int = Field(0, ge=0, description="Marked wrong, and the candidate had raised them.")
    verdict: str = Field("", max_length=256, description="How many partitions stand where, as: 5 shadow, 1 promoted.")
    message: str = Field("", max_length=1_024, description="Why, and what is still wanted.")


class AnomalyDetectorStatus(Status):
    """Status of an AnomalyDetector."""

    model: str = Field("", description="Kind of its model.")
    began_with: list[int] = Field(
        default_factory=list,
        max_length=1_000,
        description="Registered versions that it began with, if any.",
    )
    series: int = Field(0, ge=0, description="Series that it knows.")
    learning: int = Field(0, ge=0, description="Series that have too few readings to be scored.")
    ready: int = Field(0, ge=0, description="Series that are scored.")
    warmup: int = Field(0, ge=0, description="Readings a series needs before it is scored.")
    message: str = Field("", max_length=1_024, description="What it is doing, such as: learning 34 of 120.")
    anomalies_last_hour: int = Field(0, ge=0, description="Anomalies that began within the last hour.")
    candidates: list[CandidateStatus] = Field(
        default_factory=list, max_length=4, description="Its candidate, where it has one."
    )
    lag_records: int = Field(0, ge=0, description="Records of readings that it has not yet scored.")
    state_bytes: int = Field(0, ge=0, description="Memory that its models take, over all pods.")
    threshold: float | None = Field(None, ge=0, description="Anomaly score that counts now; a budget moves it.")
    replicas: int = Field(0, ge=0, description="Detector pods that there are.")
    ready_replicas: int = Field(0, ge=0, description="Detector pods that are ready.")
    selector: str = Field("", description="Label selector of the detector pods, for the scale subresource.")


class ReceiverStatus(Model):
    """One receiver of a policy."""

    name: str = Field(description="Its name, or its kind where it has none.")
    kind: str = Field("", description="Its kind: log, webhook or alertmanager.")
    sent: int = Field(0, ge=0, description="Notifications that it took since the pod started.")
    failed: int = Field(0, ge=0, description="Attempts that failed since the pod started.")
    message: str = Field("", max_length=1_024, description="Its last failure, and what to do.")


class AlertPolicyStatus(Status):
    """Status of an AlertPolicy."""

    firing: int = Field(0, ge=0, description="Alerts that are firing.")
    pending: int = Field(0, ge=0, description="Alerts that wait before they fire.")
    resolved_last_day: int = Field(0, ge=0, description="Alerts that resolved within the last day.")
    suppressed: int = Field(0, ge=0, description="Alerts kept back by maintenance or budget.")
    lag_records: int = Field(0, ge=0, description="Records of anomalies that it has not yet read.")
    receivers: list[ReceiverStatus] = Field(
        default_factory=list, max_length=64, description="Each receiver, in the order of the spec."
    )


STATUSES: dict[str, type[Status]] = {
    "MetricStream": MetricStreamStatus,
    "MetricSimulation": MetricSimulationStatus,
    "AnomalyDetector": AnomalyDetectorStatus,
    "AlertPolicy": AlertPolicyStatus,
}
