"""The API server that other tests rely on: it keeps its data, and says no when it is gone."""

from __future__ import annotations

import json
import threading

import pytest

from servers.apiserver import ApiServer

pytestmark = pytest.mark.apiserver


def test_it_keeps_its_data_and_its_address_when_it_is_killed(own_api_server: ApiServer) -> None:
    """What was written before a kill is there after the next start, at the same address."""
    assert own_api_server.kubectl("create", "namespace", "kept")[0] == 0
    own_api_server.kill()
    with pytest.raises(OSError, match="refused"):
        own_api_server.get("/readyz")
    own_api_server.start()
    assert own_api_server.kubectl("get", "namespace", "kept", "-o", "name")[1].strip() == "namespace/kept"


def test_a_frozen_server_answers_nobody_until_it_is_thawed(own_api_server: ApiServer) -> None:
    """A stalled API server keeps connections open and answers nothing."""
    own_api_server.freeze()
    answers: list[bytes] = []
    asking = threading.Thread(target=lambda: answers.append(own_api_server.get("/readyz", timeout_s=60)))
    asking.start()
    with pytest.raises(OSError, match="timed out"):
        own_api_server.get("/readyz", timeout_s=1)
    assert not answers
    own_api_server.thaw()
    asking.join(60)
    assert answers == [b"ok"]


def test_with_controllers_namespaces_go_and_orphans_are_collected(api_server_with_controllers: ApiServer) -> None:
    """A namespace ends with all that is in it, and what belongs to a deleted object is deleted."""
    server = api_server_with_controllers
    assert server.kubectl("create", "namespace", "leaving")[0] == 0
    assert server.kubectl("-n", "leaving", "create", "configmap", "owner")[0] == 0
    uid = server.kubectl("-n", "leaving", "get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")[1]
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "owned",
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}],
        },
    }
    assert server.kubectl("-n", "leaving", "create", "-f", "-", given=json.dumps(owned))[0] == 0
    assert server.kubectl("-n", "leaving", "delete", "configmap", "owner")[0] == 0
    server.kubectl("-n", "leaving", "wait", "--for=delete", "--timeout=50s", "configmap/owned")
    assert not server.kubectl("-n", "leaving", "get", "configmap", "owned", "-o", "name")[1]
    code, out, errors = server.kubectl("delete", "namespace", "leaving", "--timeout=50s")
    assert code == 0, out + errors
