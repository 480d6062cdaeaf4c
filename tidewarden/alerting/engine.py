"""Anomalies in, alerts out: a state machine in event time, the same however its input is cut into batches.

Each tenant has its own time, so that nothing one tenant does changes another's alerts, and so that
tenants can be dealt with in different processes. Before a revision of an anomaly is taken in, the
tenant's time moves to the reading that made it, and what falls due on the way (alerts that fire, leave
maintenance, resolve) happens first, in the order of event time. After a batch, time moves on to its
watermarks. So a batch of an hour and sixty batches of a minute give the same alerts.

Flap control: a group whose alert fires again within ``repeatAfter`` of the last one's resolving gets a
new alert with ``flapping`` set; from the fourth on within that time an alert needs twice the calm time
to resolve, which joins what would otherwise be a series of short ones.

Budget: so many alerts of a tenant are sent on one (event-time, UTC) day; what fires on top is published
with ``suppressed_by="budget"`` for the store, and receivers leave it out.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec

from tidewarden.alerting.grouping import GroupKey, group_key, rank
from tidewarden.alerting.lifecycle import NEVER, Life, begin
from tidewarden.alerting.maintenance import DAY_MS, Calendar
from tidewarden.events import Alert, Anomaly, AnomalyBatch
from tidewarden.resources import AlertPolicy

SNAPSHOT_VERSION = 1
FLAPS_TO_SLOW_DOWN = 3  # alerts within repeatAfter, after which the next needs twice the calm time
UNTIMED = ""  # whose time it is where a batch brings no watermarks, and so no promise that nothing older follows
_BUDGET_DAYS = 4  # days of which the count is kept: today, and what comes late


class Group(msgspec.Struct):
    """What is remembered of a group: its alert, and when earlier ones resolved."""

    life: Life
    resolved: list[int] = msgspec.field(default_factory=list)  # ms, of alerts that fired; newest last


class Tenant(msgspec.Struct):
    """The state of one tenant."""

    times: dict[str, int] = msgspec.field(default_factory=dict)  # detector → how far it has come, ms
    groups: dict[GroupKey, Group] = msgspec.field(default_factory=dict)
    sent: dict[int, int] = msgspec.field(default_factory=dict)  # day → alerts sent
    next_due: int = NEVER


class Retired(msgspec.Struct):
    """An alert of a grouping that the policy no longer has; it is ended as soon as time goes on."""

    life: Life
    group_by: list[str]


class State(msgspec.Struct):
    """A snapshot."""

    version: int
    stream: str
    policy: str
    group_by: list[str]
    tenants: dict[str, Tenant]
    retired: list[Retired] = msgspec.field(default_factory=list)


class AlertEngine:
    """The alerts of one policy on one stream."""

    def __init__(self, policy: AlertPolicy, stream: str) -> None:
        self._name = policy.metadata.name
        self._spec = policy.spec
        self._stream = stream
        self._calendar = Calendar(policy.spec.maintenance)
        self._group_by: list[str] = list(policy.spec.group_by)
        self._tenants: dict[str, Tenant] = {}
        self._retired: list[Retired] = []

    def observe(self, batch: AnomalyBatch) -> list[Alert]:
        """Take a batch in; returns the new revisions of alerts, in the order in which they came to be."""
        return list(self._observe(batch))

    def active(self) -> int:
        """Alerts that are pending or firing."""
        return sum(1 for _ in self.states())

    def states(self) -> Iterator[tuple[str, str]]:
        """Id and state of every alert that is pending or firing."""
        for tenant in self._tenants.values():
            for group in tenant.groups.values():
                if group.life.resolved_at is None:
                    yield group.life.id, group.life.state

    def snapshot(self) -> bytes:
        """All state, MessagePack with a version."""
        state = State(SNAPSHOT_VERSION, self._stream, self._name, self._group_by, self._tenants, self._retired)
        return msgspec.msgpack.encode(state)

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit.

        Where the policy's groupBy has changed since, alerts of the old groups end with the next batch, and
        what is still unusual makes new ones.
        """
        try:
            found = msgspec.msgpack.decode(state, type=State)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ValueError(f"not a snapshot of alerts: {error}") from error
        expected = (SNAPSHOT_VERSION, self._stream, self._name)
        given = (found.version, found.stream, found.policy)
        for what, want, have in zip(("version", "stream", "policy"), expected, given, strict=True):
            if want != have:
                raise ValueError(f"the snapshot's {what} is {have!r}, this engine's is {want!r}: begin without it")
        self._tenants, self._retired = found.tenants, found.retired
        if found.group_by != self._group_by:
            for tenant in self._tenants.values():
                lives = [group.life for group in tenant.groups.values() if group.life.resolved_at is None]
                self._retired += [Retired(life, found.group_by) for life in lives]
                tenant.groups, tenant.next_due = {}, NEVER

    def _observe(self, batch: AnomalyBatch) -> Iterator[Alert]:
        for retired in self._retired:
            life = retired.life
            life.resolved_at = life.updated_at = max(life.updated_at, life.last_end)
            yield life.publish(self._stream, self._name, retired.group_by)
        self._retired = []
        detector = batch.detector if batch.watermarks else UNTIMED
        for anomaly in batch.anomalies:
            tenant = self._tenants.setdefault(anomaly.tenant, Tenant())
            at = max(anomaly.updated_at, anomaly.end)
            yield from self._advance(tenant, detector, at)
            yield from self._take(tenant, anomaly, at)
        for name, watermark in sorted(batch.watermarks.items()):
            yield from self._advance(self._tenants.setdefault(name, Tenant()), detector, watermark)

    # --- an anomaly comes in --------------------------------------------------------------------

    def _take(self, tenant: Tenant, anomaly: Anomaly, at: int) -> Iterator[Alert]:
        key = group_key(self._spec.group_by, anomaly)
        group = tenant.groups.get(key)
        if group is not None and group.life.knows(anomaly):
            return
        known = group is not None and anomaly.id in group.life.members
        if anomaly.suppressed:
            if group is None or not known or not group.life.members[anomaly.id].open:
                return
            # To the alert that it is part of it is over, and has lasted for nothing.
            anomaly = msgspec.structs.replace(anomaly, state="closed", end=anomaly.onset)
        if not known and rank(anomaly.severity) < rank(self._spec.min_severity):
            return
        if group is None or (not known and self._is_over(group.life, anomaly)):
            yield from self._resolve_early(group)
            group = self._begin(tenant, key, anomaly, group)
        life = group.life
        before = (life.severity, life.anomaly_count)
        reopened = self._reopen(group)
        lasted_at = life.join(anomaly, at, self._spec.wait)
        yield from self._react(tenant, life, before, at, lasted_at, reopened=reopened)
        self._plan(tenant, life)

    def _is_over(self, life: Life, anomaly: Anomaly) -> bool:
        """Whether ``anomaly`` began after the alert resolved, or would have if time had been known to pass."""
        quiet_at = life.resolved_at if life.resolved_at is not None else life.resolves_at
        return anomaly.onset > quiet_at

    def _resolve_early(self, group: Group | None) -> Iterator[Alert]:
        """Another detector's time may lag behind; the next alert of the group proves that this one is over."""
        if group is not None and group.life.resolved_at is None:
            yield from self._resolve(group, group.life.resolves_at)

    def _reopen(self, group: Group) -> bool:
        """Take a resolution back: an anomaly shows that the alert was not over."""
        life = group.life
        if life.resolved_at is None:
            return False
        if group.resolved and group.resolved[-1] == life.resolved_at:
            group.resolved.pop()
        life.resolved_at = None
        return True

    def _begin(self, tenant: Tenant, key: GroupKey, anomaly: Anomaly, old: Group | None) -> Group:
        since = anomaly.onset - self._spec.repeat_after
        resolved = [at for at in old.resolved if at >= since] if old is not None else []
        factor = 2 if len(resolved) >= FLAPS_TO_SLOW_DOWN else 1
        calm_ms = self._spec.resolve_after * factor
        life = begin(self._stream, self._name, key, anomaly, calm_ms, flapping=bool(resolved))
        group = Group(life, resolved)
        tenant.groups[key] = group
        return group

    def _react(
        self,
        tenant: Tenant,
        life: Life,
        before: tuple[str, int],
        at: int,
        lasted_at: int | None,
        *,
        reopened: bool,
    ) -> Iterator[Alert]:
        severity, count = before
        if life.fired_at is None and (life.fires_at <= at or lasted_at is not None):
            self._fire(tenant, life, min(life.fires_at, NEVER if lasted_at is None else lasted_at))
            yield self._publish(life)
            return
        lifted = life.suppressed_until != NEVER and count != life.anomaly_count and self._lift(tenant, life, at)
        # A group that grows says so at 2, 4, 8 … anomalies: ten revisions for a thousand of them.
        grown = life.anomaly_count > count and life.anomaly_count >= 2 * life.announced_count
        if life.revision == 0 or reopened or lifted or grown or severity != life.severity:
            yield self._publish(life)

    # --- time goes on ---------------------------------------------------------------------------

    def _advance(self, tenant: Tenant, detector: str, at: int) -> Iterator[Alert]:
        """Move a detector's time to ``at`` and let everything happen that is due by then."""
        if at > tenant.times.get(detector, -NEVER):
            tenant.times[detector] = at
        if tenant.next_due > max(tenant.times.values()):
            return
        due = [
            (when, key)
            for key, group in tenant.groups.items()
            if (when := self._due(group)) <= self._time(tenant, group.life)
        ]
        heapq.heapify(due)
        while due:  # one by one, because what happens to one group may leave less budget for the next
            when, key = heapq.heappop(due)
            yield from self._happen(tenant, key, when)
            group = tenant.groups.get(key)
            if group is not None and (again := self._due(group)) <= self._time(tenant, group.life):
                heapq.heappush(due, (again, key))
        tenant.next_due = min((self._due(group) for group in tenant.groups.values()), default=NEVER)

    def _happen(self, tenant: Tenant, key: GroupKey, when: int) -> Iterator[Alert]:
        group = tenant.groups[key]
        life = group.life
        if life.fires_at == when:
            self._fire(tenant, life, when)
            life.updated_at = max(life.updated_at, when)
            yield self._publish(life)
        elif life.resolves_at == when:
            yield from self._resolve(group, when)
        elif life.lifts_at == when:
            if self._lift(tenant, life, when):
                life.updated_at = max(life.updated_at, when)
                yield self._publish(life)
        else:
            del tenant.groups[key]

    def _due(self, group: Group) -> int:
        """When something happens to the group by itself."""
        life = group.life
        if life.resolved_at is not None:
            return life.resolved_at + self._spec.repeat_after + 1
        return min(life.fires_at, life.lifts_at, life.resolves_at)

    def _time(self, tenant: Tenant, life: Life) -> int:
        """Time of an alert: that of the slowest detector which takes part in it.

        Findings of other systems bring no watermarks; where there is nothing else, the tenant's time counts.
        """
        own = [tenant.times[detector] for detector in life.detectors if detector in tenant.times]
        return min(own) if own else max(tenant.times.values())

    def _plan(self, tenant: Tenant, life: Life) -> None:
        tenant.next_due = min(tenant.next_due, self._due(tenant.groups[life.key]))

    # --- what happens to an alert ---------------------------------------------------------------

    def _fire(self, tenant: Tenant, life: Life, at: int) -> None:
        life.fired_at = at
        self._admit(tenant, life, at)

    def _admit(self, tenant: Tenant, life: Life, at: int) -> None:
        """Decide whether the alert is sent: not in maintenance, and within the budget of its day."""
        life.suppressed_by, life.suppressed_until = None, NEVER
        window = self._calendar.cover(life.series(), at)
        if window is not None:
            life.suppressed_by, life.suppressed_until = window.label, window.end
            return
        if self._spec.budget is None:
            return
        day = at // DAY_MS
        sent = tenant.sent.get(day, 0)
        if sent >= self._spec.budget:
            life.suppressed_by = "budget"
            return
        tenant.sent[day] = sent + 1
        while len(tenant.sent) > _BUDGET_DAYS:
            del tenant.sent[min(tenant.sent)]

    def _lift(self, tenant: Tenant, life: Life, at: int) -> bool:
        """Look again at an alert in maintenance; true where what is said of it has changed."""
        before = life.suppressed_by
        self._admit(tenant, life, at)
        return life.suppressed_by != before

    def _resolve(self, group: Group, at: int) -> Iterator[Alert]:
        life = group.life
        life.resolved_at = at
        life.updated_at = max(life.updated_at, at)
        if life.fired_at is not None:
            group.resolved = [*group.resolved, at][-FLAPS_TO_SLOW_DOWN:]
        yield self._publish(life)

    def _publish(self, life: Life) -> Alert:
        return life.publish(self._stream, self._name, self._group_by)
