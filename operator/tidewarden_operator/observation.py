"""What is seen of a resource's workloads: which pods there are, which are well, what they say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidewarden.status import Board, merge_boards
from tidewarden_operator.keys import Manifest
from tidewarden_operator.plan.names import ROLE_LABEL

# Reasons of a waiting container that no patience heals.
_STUCK = {
    "CrashLoopBackOff": "read its log: kubectl logs {pod} --previous",
    "ImagePullBackOff": "check image and imagePullSecrets in the operator's settings",
    "ErrImagePull": "check image and imagePullSecrets in the operator's settings",
    "InvalidImageName": "check image in the operator's settings",
    "CreateContainerConfigError": "see kubectl describe pod {pod}",
    "CreateContainerError": "see kubectl describe pod {pod}",
    "RunContainerError": "see kubectl describe pod {pod}",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """Workloads, pods and their words.

    Args:
        workloads: Deployments, StatefulSets and Jobs of the resource.
        pods: its pods.
        said: what pods say, by pod name.
    """

    workloads: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()
    said: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, children: Sequence[Manifest], said: Mapping[str, Mapping[str, Any]]) -> Observation:
        """The part of a resource's children that runs."""
        workloads = [child for child in children if child["kind"] in {"Deployment", "StatefulSet", "Job"}]
        pods = [child for child in children if child["kind"] == "Pod" and not _is_gone(child)]
        return cls(workloads, pods, said)

    def board(self) -> Board:
        """What all pods say together."""
        return merge_boards(status["board"] for status in self.said.values() if isinstance(status.get("board"), dict))

    def pods_of(self, role: str) -> list[Manifest]:
        """Pods of a role."""
        return [pod for pod in self.pods if pod["metadata"]["labels"].get(ROLE_LABEL) == role]

    def said_by(self, role: str) -> list[Mapping[str, Any]]:
        """What the pods of a role say."""
        return [
            self.said[pod["metadata"]["name"]] for pod in self.pods_of(role) if pod["metadata"]["name"] in self.said
        ]

    def waiting(self) -> list[str]:
        """Workloads with fewer ready pods than wanted, each with how far it is."""
        found = []
        for workload in self.workloads:
            if workload["kind"] == "Job":
                if _is_waiting(workload) and not self.ended_well():
                    found.append(f"{workload['metadata']['name']} (0 of 1 ready)")
                continue
            wanted = workload["spec"].get("replicas", 1)
            status = workload.get("status") or {}
            current = status.get("observedGeneration", 0) >= workload["metadata"].get("generation", 0)
            ready = status.get("readyReplicas", 0)
            updated = status.get("updatedReplicas", 0)
            if not current or ready < wanted or updated < wanted:
                found.append(
                    f"{workload['metadata']['name']} ({min(ready, updated) if current else 0} of {wanted} ready)"
                )
        return found

    def ended_well(self) -> bool:
        """Whether a pod has done all it was to do; its Job says so about a second later."""
        return any((pod.get("status") or {}).get("phase") == "Succeeded" for pod in self.pods)

    def stuck(self) -> list[str]:
        """Pods that will not become ready by themselves, each with what to do."""
        return [text for text in (_stuck(pod) for pod in self.pods) if text]

    def reasons(self) -> list[str]:
        """Why pods are not ready, in the words of the pods and of Kubernetes."""
        found = []
        for pod in self.pods:
            name = pod["metadata"]["name"]
            status = self.said.get(name)
            if status is not None and status.get("waiting_for"):
                found.append(f"{name} waits for {', '.join(map(str, status['waiting_for']))}")
                continue
            found += [
                f"{name} is not scheduled: {condition.get('message', '')}"
                for condition in _pod_conditions(pod)
                if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
            ]
        return found


def ready_pods(pods: Sequence[Manifest]) -> int:
    """How many of the pods are ready."""
    return sum(
        any(c.get("type") == "Ready" and c.get("status") == "True" for c in _pod_conditions(pod)) for pod in pods
    )


def _pod_conditions(pod: Manifest) -> list[Manifest]:
    return (pod.get("status") or {}).get("conditions") or []


def _is_waiting(job: Manifest) -> bool:
    status = job.get("status") or {}
    held = {c.get("type") for c in status.get("conditions") or [] if c.get("status") == "True"}
    return not (held & {"Complete", "Failed"} or job["spec"].get("suspend") or status.get("ready"))


def _is_gone(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _stuck(pod: Manifest) -> str:
    name = pod["metadata"]["name"]
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _STUCK:
            last = ((container.get("lastState") or {}).get("terminated") or {}).get("message", "").strip()
            said = f": {last.splitlines()[-1][:200]}" if last else ""
            return f"pod {name} is in {reason}{said}; {_STUCK[reason].format(pod=name)}"
    return ""
