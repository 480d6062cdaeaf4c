"""The steps that reconciling any of the four kinds consists of; the kinds themselves are tables of contents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from tidewarden.resources import AlertPolicy, AnomalyDetector, MetricSimulation, MetricStream
from tidewarden_operator import status
from tidewarden_operator.keys import Key, Manifest, Ref
from tidewarden_operator.plan.bundle import NamespaceBundle
from tidewarden_operator.plan.names import owner_reference
from tidewarden_operator.reconcile.children import NameTakenError, bring_about
from tidewarden_operator.reconcile.context import Context, Mistake, check
from tidewarden_operator.reconcile.report import write_status

R = TypeVar("R", MetricStream, MetricSimulation, AnomalyDetector, AlertPolicy)


@dataclass(frozen=True, slots=True)
class Subject(Generic[R]):
    """A resource that can be acted upon, and its neighbours."""

    key: Key
    body: Manifest
    resource: R
    bundle: NamespaceBundle


def look(context: Context, key: Key, model: type[R]) -> Subject[R] | None:
    """The resource of a key, understood and with references that lead somewhere; else its status says why not.

    What runs for a resource that became wrong goes on as it was; what runs for one whose stream is gone is removed:
    there is nothing left to read.
    """
    body = context.mirror.get(Ref(key.kind, key.namespace, key.name))
    if body is None:
        context.memory.forget(key)
        context.keeper.forget(key)
        return None
    if "deletionTimestamp" in body["metadata"]:
        return None
    parsed = context.parsed(body)
    bundle = context.bundle(key.namespace)
    mistake = parsed if isinstance(parsed, Mistake) else check(parsed, bundle)
    if mistake is not None:
        if mistake.reason == "StreamNotFound":
            bring_about(context, key, [], [])
        write_status(context, key, body, status.refused(mistake.reason, mistake.message))
        return None
    assert isinstance(parsed, model)
    return Subject(key, body, parsed, bundle)


def establish(context: Context, subject: Subject[R], desired: list[Manifest]) -> bool:
    """Bring the children about; says no, in the status, where a name is taken."""
    try:
        bring_about(context, subject.key, [owner_reference(subject.body)], desired)
    except NameTakenError as error:
        write_status(context, subject.key, subject.body, status.refused("NameTaken", str(error)))
        return False
    return True
