"""skaffold.yaml takes the steps that the end-to-end suite takes: the same image, charts, Services and samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.helm import HERE, RELEASES
from tidewarden.settings import HTTP_PORT
from tidewarden_operator.plan.shared import API

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def skaffold() -> dict[str, Any]:
    """The file."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    return read


def test_the_built_image_is_what_the_chart_is_told_to_run(skaffold: dict[str, Any]) -> None:
    """The one artifact is named as the chart's image, and skaffold's variables are named after it."""
    [artifact] = skaffold["build"]["artifacts"]
    values = yaml.safe_load((ROOT / "charts" / "tidewarden" / "values.yaml").read_text())
    assert artifact["image"] == values["global"]["image"]["repository"]
    assert (ROOT / artifact["docker"]["dockerfile"]).is_file()
    named = artifact["image"].replace("/", "_").replace("-", "_")
    templates = skaffold["deploy"]["helm"]["releases"][-1]["setValueTemplates"]
    assert templates == {
        "global.image.repository": f"{{{{.IMAGE_REPO_{named}}}}}",
        "global.image.tag": f"{{{{.IMAGE_TAG_{named}}}}}",
    }


def test_the_releases_are_those_of_the_suite(skaffold: dict[str, Any]) -> None:
    """Same names, charts, order and namespace, and each waits until it is ready."""
    releases = skaffold["deploy"]["helm"]["releases"]
    assert [(release["name"], ROOT / release["chartPath"]) for release in releases] == list(RELEASES.items())
    for release in releases:
        assert (release["namespace"], release["createNamespace"], release["wait"]) == (HERE, True, True)


def test_the_forwarded_ports_are_those_of_services_that_there_will_be(skaffold: dict[str, Any]) -> None:
    """Prometheus and Alertmanager of the chart; the page only with the samples, since it needs a stream."""
    [samples] = skaffold["profiles"]
    ports = {forward["resourceName"]: forward["port"] for forward in skaffold["portForward"]}
    assert ports == {f"{HERE}-prometheus": 9090, f"{HERE}-alertmanager": 9093}
    [patch] = samples["patches"]
    page = patch["value"]
    assert (page["resourceName"], page["port"]) == (API, HTTP_PORT)
    assert page["namespace"] == samples["deploy"]["kubectl"]["defaultNamespace"]
    [pattern] = samples["manifests"]["rawYaml"]
    assert len(list(ROOT.glob(pattern))) == 2
