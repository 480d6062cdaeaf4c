"""Validation rules for the API server, in its Common Expression Language (CEL).

Every rule here says what a pydantic validator says in Python, of the same model; `tests/integration/test_crds.py`
holds both to the same table of wrong resources. Rules that compare with the old object (`oldSelf`) have no
counterpart in Python: a file has no past.

Lists that a rule walks through are bounded in the models, since the server refuses rules whose worst case
costs too much (10 million units each, 100 million in all).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import BaseModel

from tidewarden.resources import alertpolicy, anomalydetector, metricsimulation, metricstream, models
from tidewarden.resources.metricsimulation import BUILT_IN_METRICS
from tidewarden.resources.models import Member, ModelSpec
from tidewarden.resources.schema import literals

_UNITS = "{'ms': 1, 's': 1000, 'm': 60000, 'h': 3600000, 'd': 86400000, 'w': 604800000}"
_PERIODS = "{'hour': 24.0, 'day': 1.0, 'week': 0.142857142857}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule on a model or a field: what must hold, and what to say when it does not.

    ``message`` is a CEL expression that gives text; ``summary`` says the same without values, for the reference
    page and for servers that cannot evaluate the expression.
    """

    rule: str
    summary: str
    message: str = ""
    field: str = ""  # field of the model that the error is shown at

    def document(self) -> dict[str, str]:
        """As an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.rule, "message": self.summary}
        if self.message:
            entry["messageExpression"] = self.message
        if self.field:
            entry["fieldPath"] = f".{self.field}"
        return entry


def milliseconds(text: str) -> str:
    """CEL for the milliseconds of a duration; ``text`` is an expression that gives a valid one."""
    return f"{text}.findAll('[0-9]+[a-z]+').map(p, int(p.find('[0-9]+')) * {_UNITS}[p.find('[a-z]+')]).sum()"


def per_day(text: str) -> str:
    """CEL for the false alarms a day of a budget; ``text`` is an expression that gives a valid one."""
    return f"double({text}.split('/')[0]) * {_PERIODS}[{text}.split('/')[1]]"


def quoted(text: str) -> str:
    """``text`` as a string in CEL."""
    return json.dumps(text, ensure_ascii=False)


def told(*parts: str) -> str:
    """CEL that joins texts: parts that begin with ``=`` are expressions, others are said as they are.

    With `format`, since the server takes what ``+`` or ``string()`` makes of a number for endlessly long.
    """
    text = "".join("%s" if part.startswith("=") else part.replace("%", "%%") for part in parts)
    values = ", ".join(part[1:] for part in parts if part.startswith("="))
    return f"{quoted(text)}.format([{values}])"


def _exactly_one(kinds: tuple[str, ...], subject: str, *named: str) -> Rule:
    """Of blocks: one is given. ``named`` are further parts of the message's subject."""
    blocks = ", ".join(f"has(self.{kind}) ? '{kind}' : ''" for kind in kinds)
    given = f"[{blocks}].filter(k, k != '')"
    found = f"{given}.size() == 0 ? 'no kind' : {given}[0] + ({given}.size() == 1 ? '' : ' and ' + {given}[1])"
    one = f"exactly one of {', '.join(kinds)} (with {{}} where it needs no settings)"
    return Rule(
        rule=f"{given}.size() == 1",
        summary=f"{subject} has {one}",
        message=told(subject, *named, " has ", f"=({found})", f": give {one}"),
    )


def _ordered(low: str, high: str, *, strictly: bool = False) -> Rule:
    sign, between = ("<", "is not below") if strictly else ("<=", "is above")
    return Rule(
        rule=f"!has(self.{low}) || !has(self.{high}) || self.{low} {sign} self.{high}",
        summary=f"{low} must {'be below' if strictly else 'not be above'} {high}: swap them",
        message=told(f"{low} ", f"=self.{low}", f" {between} {high} ", f"=self.{high}", ": swap them"),
    )


def _unique(field: str, what: str) -> Rule:
    return Rule(
        rule=f"self.{field}.all(a, self.{field}.exists_one(b, b.name == a.name))",
        summary=f"names of {field} are unique: rename or remove the second {what} of the same name",
        message=told(
            f"{what} '",
            f"=self.{field}.filter(a, !self.{field}.exists_one(b, b.name == a.name))[0].name",
            "' is given twice: rename or remove one of them",
        ),
        field=field,
    )


def _single(subject: str, kinds: tuple[str, ...]) -> tuple[Rule, ...]:
    """Of a model by itself, and of a member of an ensemble: one block, and the one that cannot be absent."""
    blocks = ", ".join(f"has(self.{kind}) ? '{kind}' : ''" for kind in kinds)
    strangers = f"[{blocks}].filter(k, k != '' && k != self.kind)"
    names = ", ".join(f"'{kind}'" for kind in kinds)
    built_in = f"is built in: write the block named like it instead of {subject}.parameters"
    stranger = (
        f"is not one of {', '.join(kinds)}: correct it, or if it is a plug-in's kind give {subject}.parameters, {{}} "
        "for its defaults"
    )
    return (
        Rule(
            rule=f"{strangers}.size() == 0",
            summary="only the block named like kind is given: remove the others, or change the kind",
            message=told(
                f"{subject}.",
                f"={strangers}[0]",
                " is set but kind is '",
                "=self.kind",
                "': remove it or change the kind",
            ),
        ),
        Rule(
            rule="self.kind != 'static' || has(self.static)",
            summary=f"kind static needs {subject}.static with lower, upper or both: add it",
        ),
        # Which plug-ins are installed the server cannot know. That theirs are the only kinds with parameters lets it
        # refuse a slip of the pen in a kind that is built in.
        Rule(
            rule=f"(self.kind in [{names}]) != has(self.parameters)",
            summary=f"{subject}.parameters is given for the kind of a plug-in, {{}} for its defaults, for no other; "
            f"kinds that are built in: {', '.join(kinds)}",
            message=told(
                "'",
                "=self.kind",
                "' ",
                f"=(has(self.parameters) ? {quoted(built_in)} : {quoted(stranger)})",
            ),
            field="kind",
        ),
    )


_METRICS = ", ".join(f"'{name}'" for name in BUILT_IN_METRICS)
_UNKNOWN_METRICS = f"self.metrics.filter(m, !(m in [{_METRICS}]) && !self.custom.exists(c, c.name == m))"
_KINDS = literals(metricsimulation.Kind)
_QUOTED_KINDS = ", ".join(f"'{kind}'" for kind in _KINDS)
_UNKNOWN_KINDS = f"self.mix.filter(k, !(k in [{_QUOTED_KINDS}]))"

RULES: dict[type[BaseModel], tuple[Rule, ...]] = {
    metricstream.MetricContract: (_ordered("min", "max"),),
    metricstream.Source: (_exactly_one(metricstream.SOURCE_KINDS, "source", " '", "=self.name", "'"),),
    metricstream.PrometheusSource: (
        Rule(
            rule="!has(self.tenant) || !has(self.labels.tenant)",
            summary="has tenant or labels.tenant, not both: keep one of them",
            message=told(
                "has both tenant (",
                "=self.tenant",
                ") and labels.tenant (",
                "=self.labels.tenant",
                "): keep one of them",
            ),
        ),
    ),
    metricstream.KafkaConnection: (
        Rule(
            rule="!self.securityProtocol.startsWith('SASL') || has(self.secretRef)",
            summary="a securityProtocol with SASL needs secretRef, a Secret with username and password",
            message=told(
                "securityProtocol ",
                "=self.securityProtocol",
                " needs secretRef, a Secret with username and password: add it, or use SSL or PLAINTEXT",
            ),
        ),
    ),
    metricstream.MetricStreamSpec: (
        _unique("sources", "source"),
        _unique("metrics", "metric"),
        *(
            Rule(
                rule=f"self.sources.all(s, !has(s.{kind}) || !has(s.{kind}.tenant) || s.{kind}.tenant in self.tenants)",
                summary=f"the tenant of a {kind} source is one of spec.tenants: add it there, or correct it",
                message=told(
                    "'",
                    f"=self.sources.filter(s, has(s.{kind}) && has(s.{kind}.tenant) "
                    f"&& !(s.{kind}.tenant in self.tenants))[0].{kind}.tenant",
                    f"', the tenant of a {kind} source, is not one of spec.tenants: add it there, or correct it",
                ),
                field="sources",
            )
            for kind in ("file", "prometheus")
        ),
        Rule(
            rule="self.tenants.size() == 1 || self.sources.all(s, !has(s.prometheus) || has(s.prometheus.tenant) "
            "|| has(s.prometheus.labels.tenant))",
            summary="where the stream has several tenants, a prometheus source says which by tenant or labels.tenant",
            message=told(
                "source '",
                "=self.sources.filter(s, has(s.prometheus) && !has(s.prometheus.tenant) "
                "&& !has(s.prometheus.labels.tenant))[0].name",
                "' has no tenant, but the stream has several: give prometheus.tenant or prometheus.labels.tenant",
            ),
            field="sources",
        ),
    ),
    metricsimulation.CustomMetric: (_ordered("min", "max"),),
    metricsimulation.Fleet: (
        Rule(
            rule=f"{_UNKNOWN_METRICS}.size() == 0",
            summary=f"each of metrics is built in ({', '.join(BUILT_IN_METRICS)}) or described under custom",
            message=told(
                "metric '",
                f"={_UNKNOWN_METRICS}[0]",
                f"' is not built in: describe it under custom, or use {', '.join(BUILT_IN_METRICS)}",
            ),
            field="metrics",
        ),
    ),
    metricsimulation.Replay: (
        Rule(
            rule="has(self.path) != has(self.dataset)",
            summary="replay needs exactly one of path and dataset: add one, or remove one of them",
        ),
    ),
    metricsimulation.Anomalies: (
        Rule(
            rule=f"{_UNKNOWN_KINDS}.size() == 0",
            summary=f"kinds of mix are {', '.join(_KINDS)}",
            message=told("'", f"={_UNKNOWN_KINDS}[0]", f"' is not a kind of anomaly: write {', '.join(_KINDS)}"),
            field="mix",
        ),
    ),
    metricsimulation.MetricSimulationSpec: (
        Rule(
            rule="has(self.fleet) != has(self.replay)",
            summary="exactly one of fleet and replay is given: add one, or remove one of them",
        ),
        Rule(
            rule="!has(self.anomalies) || !has(self.replay)",
            summary="anomalies are injected into a fleet; a replay brings its own labels: remove one of them",
            field="anomalies",
        ),
    ),
    models.StaticParams: (
        Rule(rule="has(self.lower) || has(self.upper)", summary="static needs lower, upper or both: add a limit"),
        _ordered("lower", "upper", strictly=True),
    ),
    models.QuantileParams: (
        Rule(
            rule=f"self.lower * double(self.window) <= {models.MOST_OUTSIDE}.0 && "
            f"(1.0 - self.upper) * double(self.window) <= {models.MOST_OUTSIDE}.0",
            summary=f"window times the share outside of a quantile is at most {models.MOST_OUTSIDE}: "
            "take a shorter window, or quantiles nearer to 0 and 1",
            message=told(
                "window ",
                "=self.window",
                f" has more than {models.MOST_OUTSIDE} readings outside of the quantiles ",
                "=self.lower",
                " to ",
                "=self.upper",
                ": take a shorter window, or quantiles nearer to 0 and 1",
            ),
        ),
    ),
    models.ModelSpec: (
        *_single("model", ModelSpec.built_in),
        Rule(
            rule="self.kind != 'ensemble' || has(self.ensemble)",
            summary="kind ensemble needs model.ensemble with members, two at least: add it",
        ),
    ),
    models.Member: (
        Rule(
            rule="self.kind != 'ensemble'",
            summary="an ensemble cannot be a member of an ensemble: name its members here instead",
            field="kind",
        ),
        *_single("member", Member.built_in),
    ),
    models.EnsembleParams: (
        Rule(
            rule="self.combine == 'weighted' || self.members.all(m, m.weight == 1.0)",
            summary="a weight is read only with combine weighted: remove the weight or combine weighted",
            message=told(
                "weight ",
                "=self.members.filter(m, m.weight != 1.0)[0].weight",
                " is read only with combine weighted, but combine is '",
                "=self.combine",
                "': remove the weight or combine weighted",
            ),
        ),
    ),
    anomalydetector.Alerting: (
        Rule(
            rule="!has(self.budget) || !has(self.threshold)",
            summary="has budget or threshold, not both: keep one, a budget sets the threshold by itself",
            message=told(
                "has both budget (",
                "=self.budget",
                ") and threshold (",
                "=self.threshold",
                "): keep one, a budget sets the threshold by itself",
            ),
        ),
    ),
    anomalydetector.Autoscaling: (_ordered("min", "max"),),
    anomalydetector.AnomalyDetectorSpec: (
        Rule(
            rule="self.seasonality.size() > 0 || (self.model.kind != 'seasonal' && "
            "(!has(self.model.ensemble) || self.model.ensemble.members.all(m, m.kind != 'seasonal')))",
            summary="model seasonal needs a season, but seasonality is empty: write [1d], or choose model ewma or mad",
            field="seasonality",
        ),
    ),
    alertpolicy.Receiver: (_exactly_one(alertpolicy.RECEIVER_KINDS, "a receiver"),),
    alertpolicy.Maintenance: (
        Rule(
            rule="!self.rrule.upperAscii().contains('SECONDLY')",
            summary="a window lasts a minute at least, so it cannot begin every few seconds: use MINUTELY",
            message=told(
                "'", "=self.rrule", "' begins every few seconds, but a window lasts a minute at least: use MINUTELY"
            ),
            field="rrule",
        ),
        Rule(
            rule="self.rrule.upperAscii().matches('FREQ=(YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY|MINUTELY|SECONDLY)')",
            summary="rrule is an RFC 5545 recurrence rule, e.g. FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0",
            message=told(
                "'",
                "=self.rrule",
                "' is not an RFC 5545 recurrence rule: write e.g. FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0",
            ),
            field="rrule",
        ),
        Rule(
            rule="!self.rrule.upperAscii().contains('COUNT') || self.rrule.upperAscii().contains('DTSTART')",
            summary="COUNT needs DTSTART: write DTSTART:20250101T020000, a new line and RRULE:…, or use UNTIL",
            field="rrule",
        ),
        Rule(
            rule="self.timezone.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')",
            summary="timezone is an IANA time zone, e.g. Europe/Berlin or UTC",
            message=told("'", "=self.timezone", "' is not an IANA time zone: write e.g. Europe/Berlin or UTC"),
            field="timezone",
        ),
    ),
}

_STREAM = Rule(
    rule="self == oldSelf",
    summary="stream cannot be changed: create a new resource and delete this one",
    message=told("stream is '", "=oldSelf", "' and cannot become '", "=self", "': create a new resource instead"),
)

FIELD_RULES: dict[tuple[type[BaseModel], str], tuple[Rule, ...]] = {
    (metricstream.MetricStreamSpec, "tenants"): (
        Rule(
            rule="oldSelf.all(t, t in self)",
            summary="tenants may be added, never removed or renamed: create a new MetricStream instead",
            message=told(
                "tenant '",
                "=oldSelf.filter(t, !(t in self))[0]",
                "' is missing: tenants may be added, never removed or renamed; create a new MetricStream instead",
            ),
        ),
    ),
    (metricstream.MetricStreamSpec, "partitions"): (
        Rule(
            rule="self >= oldSelf",
            summary="partitions may grow, never shrink: Kafka cannot take any away",
            message=told(
                "partitions cannot shrink from ",
                "=oldSelf",
                " to ",
                "=self",
                ": Kafka cannot take any away; keep them or create a new MetricStream",
            ),
        ),
    ),
    (metricstream.MetricStreamSpec, "interval"): (
        Rule(
            rule=f"{milliseconds('self')} == {milliseconds('oldSelf')}",
            summary="interval cannot be changed, since models have learned at it: create a new MetricStream instead",
            message=told(
                "interval is '",
                "=oldSelf",
                "' and cannot become '",
                "=self",
                "', since models have learned at it: create a new MetricStream instead",
            ),
        ),
    ),
    (metricsimulation.MetricSimulationSpec, "stream"): (_STREAM,),
    (anomalydetector.AnomalyDetectorSpec, "stream"): (_STREAM,),
    (alertpolicy.AlertPolicySpec, "stream"): (_STREAM,),
}

NAME = Rule(
    rule="self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
    summary="metadata.name is lower-case letters, digits and hyphens, at most 63 in all: choose another name",
    message=told(
        "metadata.name '",
        "=self.metadata.name",
        "' is not a name: write lower-case letters, digits and hyphens, at most 63",
    ),
)
