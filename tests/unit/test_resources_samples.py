"""Every sample resource file loads, and the demo's holds what its page promises."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from tidewarden.resources.loader import load

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_sample_loads_and_is_complete(sample: Path) -> None:
    """A stream, somewhere for its readings to come from, a detector and a policy; files it names exist."""
    bundle = load([sample])
    assert len(bundle.streams) == len(bundle.detectors) == len(bundle.policies) == 1
    [stream] = bundle.streams
    assert stream.spec.sources or bundle.simulations
    for source in stream.spec.sources:
        if source.file is not None:
            assert (bundle.base_dir_of(stream) / source.file.path).is_file()


def test_the_samples_can_be_loaded_together() -> None:
    """Their names do not collide, so that ``tidewarden up -f manifests/samples`` works."""
    assert len(load([ROOT / "manifests" / "samples"]).streams) == len(SAMPLES)


def test_every_sample_says_in_a_comment_what_it_is_for() -> None:
    assert all(sample.read_text().startswith("# ") for sample in SAMPLES)


def test_the_demo_has_real_incidents_beside_a_fleet_of_160_series() -> None:
    with resources.as_file(resources.files("tidewarden_cli") / "samples" / "demo.yaml") as sample:
        bundle = load([sample])
    by_name = {simulation.metadata.name: simulation.spec for simulation in bundle.simulations}
    fleet, nab = by_name["fleet"], by_name["nab"]
    assert fleet.fleet is not None
    assert fleet.fleet.clusters * fleet.fleet.nodes * len(fleet.fleet.tenants) * len(fleet.fleet.metrics) == 160
    assert fleet.points is not None
    assert 60 <= fleet.points * fleet.interval / fleet.speed / 1000 <= 120, "it plays for about 90 s"
    assert nab.replay is not None
    assert nab.replay.dataset == "nab-cloud"
    watched = {detector.metadata.name: detector.spec.stream for detector in bundle.detectors}
    assert {name for spec in (fleet, nab) for name in spec.evaluate} == set(watched)
    assert {policy.spec.stream for policy in bundle.policies} == set(watched.values())
    assert all(receiver.log is not None for policy in bundle.policies for receiver in policy.spec.receivers)


def test_the_demos_first_real_incident_comes_within_a_minute() -> None:
    """Of the recordings played, most have their first labelled incident within 20 s of playing."""
    from tidewarden_simulator.source import truth

    with resources.as_file(resources.files("tidewarden_cli") / "samples" / "demo.yaml") as sample:
        bundle = load([sample])
    [nab] = [simulation for simulation in bundle.simulations if simulation.spec.replay is not None]
    onsets = sorted(event.onset for event in truth(nab, 0))
    within_20_s = [onset for onset in onsets if onset / nab.spec.speed / 1000 < 20]
    assert len(within_20_s) >= 10
