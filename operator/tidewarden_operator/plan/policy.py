"""What an AlertPolicy becomes: one alert workload."""

from __future__ import annotations

from tidewarden.resources import AlertPolicy, MetricStream
from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan import config, pods
from tidewarden_operator.plan.names import child_name
from tidewarden_operator.plan.pods import Workload
from tidewarden_operator.plan.site import Site


def children(policy: AlertPolicy, stream: MetricStream, site: Site) -> list[Manifest]:
    """All objects of the policy."""
    name = policy.metadata.name
    kafka, search = config.connections(stream, site.settings)
    secrets = config.secrets_of(kafka, search, "alert")
    for receiver in policy.spec.receivers:
        for kind in (receiver.webhook, receiver.alertmanager):
            if kind is not None and kind.secret_ref is not None:
                secrets.append(kind.secret_ref.name)
    workload = Workload(
        key=Key("AlertPolicy", policy.metadata.namespace, name),
        name=child_name(name, "alert"),
        role="alert",
        arguments=("--name", name),
        config=config.files("alert", policy.metadata.namespace, [stream, policy], kafka, search, site.settings),
        secrets=secrets,
    )
    return [pods.config_map(workload), pods.deployment(workload, site, 0 if policy.spec.paused else 1)]
