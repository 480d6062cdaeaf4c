"""Recorded metrics with known incidents that ship with Tidewarden.

nab: a part of the Numenta Anomaly Benchmark (https://github.com/numenta/NAB), `realAWSCloudwatch` and
`realKnownCause` with their labelled windows, unchanged but compressed; licence beside the data.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

NAB = Path(__file__).parent / "nab"

# What each file measured, as node and metric; the files' names say it in as many ways as there are files.
NAB_SERIES: dict[str, tuple[str, str]] = {
    "ec2_cpu_utilization_24ae8d": ("ec2-24ae8d", "cpu_utilization"),
    "ec2_cpu_utilization_53ea38": ("ec2-53ea38", "cpu_utilization"),
    "ec2_cpu_utilization_5f5533": ("ec2-5f5533", "cpu_utilization"),
    "ec2_cpu_utilization_77c1ca": ("ec2-77c1ca", "cpu_utilization"),
    "ec2_cpu_utilization_825cc2": ("ec2-825cc2", "cpu_utilization"),
    "ec2_cpu_utilization_ac20cd": ("ec2-ac20cd", "cpu_utilization"),
    "ec2_cpu_utilization_c6585a": ("ec2-c6585a", "cpu_utilization"),
    "ec2_cpu_utilization_fe7f93": ("ec2-fe7f93", "cpu_utilization"),
    "ec2_disk_write_bytes_1ef3de": ("ec2-1ef3de", "disk_write_bytes"),
    "ec2_disk_write_bytes_c0d644": ("ec2-c0d644", "disk_write_bytes"),
    "ec2_network_in_257a54": ("ec2-257a54", "network_in"),
    "ec2_network_in_5abac7": ("ec2-5abac7", "network_in"),
    "elb_request_count_8c0756": ("elb-8c0756", "request_count"),
    "grok_asg_anomaly": ("asg-grok", "asg_metric"),
    "iio_us-east-1_i-a2eb1cd9_NetworkIn": ("ec2-a2eb1cd9", "network_in"),
    "rds_cpu_utilization_cc0c53": ("rds-cc0c53", "cpu_utilization"),
    "rds_cpu_utilization_e47b3b": ("rds-e47b3b", "cpu_utilization"),
    "ambient_temperature_system_failure": ("office", "temperature"),
    "cpu_utilization_asg_misconfiguration": ("asg", "cpu_utilization"),
    "ec2_request_latency_system_failure": ("ec2-requests", "latency"),
    "machine_temperature_system_failure": ("machine", "temperature"),
    "nyc_taxi": ("nyc-taxi", "passengers"),
    "rogue_agent_key_hold": ("rogue-agent", "key_hold"),
    "rogue_agent_key_updown": ("rogue-agent", "key_updown"),
}

NAB_CLUSTERS = {"realAWSCloudwatch": "aws", "realKnownCause": "known-cause"}


def nab_windows() -> dict[str, list[tuple[int, int]]]:
    """Windows of known incidents by file stem: first and last instant, ms since the epoch, UTC."""
    raw = json.loads((NAB / "combined_windows.json").read_text())
    return {
        Path(name).stem: [(_instant_ms(begin), _instant_ms(end)) for begin, end in windows]
        for name, windows in raw.items()
    }


def _instant_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
