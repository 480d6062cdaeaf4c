"""The page of the operator. Not ``operator.py``: that is a module of the standard library."""

from __future__ import annotations

from tidewarden_cli.reference.markdown import NOTE, table
from tidewarden_cli.reference.metrics import metric_table
from tidewarden_cli.reference.resources import field_table
from tidewarden_operator.metrics import OperatorMetrics


def operator_page() -> str:
    """The operator's settings, pages and metrics."""
    from tidewarden_operator.settings import DEFAULT_RESOURCES, OperatorSettings

    roles = [
        (role, ", ".join(f"{k} {v}" for k, v in r.requests.items()), ", ".join(f"{k} {v}" for k, v in r.limits.items()))
        for role, r in DEFAULT_RESOURCES.items()
    ]
    return "\n".join(
        [
            NOTE,
            "# Operator\n",
            "## Settings\n",
            "`tidewarden operator --settings operator.yaml`. The chart writes this file.\n",
            *field_table(OperatorSettings),
            "## Resources of the pods, unless set\n",
            *table(("Role", "Requests", "Limits"), roles),
            "## Pages\n",
            "`/healthz` fails with what is dead, `/readyz` with what is waited for, `/metrics` is below. See "
            "[decision 8](../decisions/0008-one-operator-that-only-looks-and-applies.md).\n",
            "## Metrics\n",
            *metric_table(OperatorMetrics()),
        ]
    )
