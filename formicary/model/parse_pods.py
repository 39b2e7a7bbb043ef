"""The keys of KUBERNETES that are the pod's own: where it runs, as whom, and what its manifest says beside."""

from formicary.model.parse_containers import KUBERNETES_KEYS as CONTAINER_KEYS
from formicary.model.parse_containers import OneOf
from formicary.model.parse_kinds import (
    Choice,
    Duration,
    Flag,
    JsonMap,
    Key,
    ListOf,
    Number,
    Record,
    Text,
    TextMap,
)

_MAX_ID = 2**31 - 1
_ID = Number(0, _MAX_ID)
_RESOURCE_NAME = Text(
    pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
    pattern_hint="use the name of an object of the cluster: small letters, digits, - and .",
)
_TOLERATION = Record(
    name="a toleration",
    keys={
        "key": Key(Text(), "The taint's key; without it every taint is put up with."),
        "value": Key(Text(is_loose=True), "Its value; without it any value."),
        "effect": Key(
            Choice(("NoSchedule", "PreferNoSchedule", "NoExecute")), "The taint's effect; without it all of them."
        ),
        "for": Key(Duration(), "How long a pod stays on a node that gets the taint; goes with NoExecute."),
    },
)
_SOURCE = OneOf(
    Record(
        name="a source",
        keys={
            "config_map": Key(_RESOURCE_NAME, "A config map, each key of which becomes a variable."),
            "secret": Key(_RESOURCE_NAME, "A secret of the cluster, each key of which becomes a variable."),
            "prefix": Key(Text(), "What the variables' names begin with."),
            "optional": Key(Flag(), "It may be missing.", default=False),
        },
    ),
    ("config_map", "secret"),
)
_CAPABILITIES = ListOf(Text(), takes_one=True, is_unique=True)
_SECURITY = Record(
    name="security_context",
    keys={
        "run_as_user": Key(_ID, "The user's number."),
        "run_as_group": Key(_ID, "The group's number."),
        "run_as_non_root": Key(Flag(), "It does not start as root.", default=False),
        "fs_group": Key(_ID, "The group that owns the volumes."),
        "supplemental_groups": Key(ListOf(_ID, is_unique=True), "More groups, by number."),
        "read_only_root_filesystem": Key(Flag(), "Only volumes can be written to.", default=False),
        "allow_privilege_escalation": Key(Flag(), "Programs like sudo work.", default=False),
        "add_capabilities": Key(_CAPABILITIES, "Capabilities it gets, where the ant allows it."),
        "drop_capabilities": Key(_CAPABILITIES, "Capabilities it loses, beside NET_RAW."),
    },
)
_POD_KEYS = {
    "env_from": Key(ListOf(_SOURCE), "Config maps and secrets that become variables of the container."),
    "node_selector": Key(TextMap(), "Labels that the node must have."),
    "tolerations": Key(ListOf(_TOLERATION), "Taints of nodes that the pod puts up with."),
    "affinity": Key(JsonMap(), "Which nodes and neighbours it wants, written as in the cluster's own manifests."),
    "pod_labels": Key(TextMap(), "Labels of the pod."),
    "pod_annotations": Key(TextMap(), "Annotations of the pod."),
    "service_account": Key(_RESOURCE_NAME, "The account whose token the pod gets; without it the pod gets none."),
    "image_pull_secrets": Key(ListOf(_RESOURCE_NAME, takes_one=True), "Secrets with logins of registries."),
    "host_network": Key(Flag(), "It uses the node's network, where the ant allows it.", default=False),
    "priority_class": Key(_RESOURCE_NAME, "The pod's priority class."),
    "security_context": Key(_SECURITY, "As whom its processes run, and what they may do."),
    "schedule_timeout": Key(
        Duration(is_positive=True), "How long it may wait for a node; without it as long as the ant's setting says."
    ),
}

KUBERNETES_KEYS = {**CONTAINER_KEYS, **_POD_KEYS}
