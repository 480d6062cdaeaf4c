"""The page of what a process serves about itself."""

from __future__ import annotations

from tidewarden.status import SECTIONS, STATUS_FIELDS
from tidewarden_cli.reference.markdown import NOTE, table

_MERGES = {
    "first": "the most urgent one's", "sum": "their sum", "sums": "their sums", "most": "the largest",
    "union": "all of them", "worst": "the most urgent",
}  # fmt: skip


def status_page() -> str:
    """The document that every pod serves at ``/status``."""
    lines = [
        NOTE,
        "# Status of a process\n",
        "Every process that `tidewarden run` starts serves four paths on the `metricsPort` of its settings (9464):\n",
        "- `/metrics`: [metrics](metrics.md) in Prometheus' text format.",
        "- `/healthz`: 200, or 503 and the name of a thread that has failed or has been at its own work for too long. "
        "A Kafka or an Elasticsearch that is away is no reason.",
        "- `/readyz`: 200, or 503 and what is waited for: Kafka, Elasticsearch, a detector's state, the HTTP port.",
        "- `/status`: the JSON document below. The operator and the API read it.\n",
        *table(("Field", "Type", "What it is"), ((f"`{n}`", kind, text) for n, (kind, text) in STATUS_FIELDS.items())),
        "## The board\n",
        "`board` maps section → name → facts. Where several processes speak of one name, readers add up or "
        "choose as the third column says.\n",
    ]
    for section, (text, facts) in SECTIONS.items():
        rows = [(f"`{name}`", fact.type, _MERGES[fact.merge], fact.text) for name, fact in facts.items()]
        lines += [f"### {section}\n", f"{text}\n", *table(("Field", "Type", "Of several", "What it is"), rows)]
    return "\n".join(lines)
