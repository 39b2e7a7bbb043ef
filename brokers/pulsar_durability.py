"""What Pulsar's settings mean for messages that it has confirmed, as far as the admin interface tells a role."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from brokers.base import Durability

_COPIES: Final = 2
_DEFAULTS: Final = {
    "bookkeeperWriteQuorum": "managedLedgerDefaultWriteQuorum",
    "bookkeeperAckQuorum": "managedLedgerDefaultAckQuorum",
}


def durability(policies: Mapping[str, Any], configuration: Mapping[str, str]) -> Sequence[Durability]:
    """Returns what holds for the topics of a namespace.

    Args:
        policies: the namespace's persistence policies; what they leave out is the server's default.
        configuration: of the server; empty where the role is not told.
    """
    quorums = [
        _quorum("write quorum", policies, configuration, "bookkeeperWriteQuorum", "a bookie that is lost takes them"),
        _quorum(
            "ack quorum",
            policies,
            configuration,
            "bookkeeperAckQuorum",
            "a message is confirmed when one bookie has it",
        ),
    ]
    return [
        *quorums,
        _setting(configuration, "brokerDeleteInactiveTopicsEnabled", "false", "a topic that nobody uses is deleted"),
        _setting(configuration, "managedLedgerNewEntriesCheckDelayInMillis", "0", "every hop takes 10 ms longer"),
        Durability(
            "journalSyncData",
            configuration.get("journalSyncData"),
            "true (of each bookie, its default)",
            configuration.get("journalSyncData") != "false",
            "a loss of power takes what was confirmed last",
        ),
    ]


def _quorum(
    name: str, policies: Mapping[str, Any], configuration: Mapping[str, str], policy: str, risk: str
) -> Durability:
    value = policies.get(policy) or configuration.get(_DEFAULTS[policy])
    is_met = value is not None and int(value) >= _COPIES
    return Durability(name, None if value is None else str(value), f"{_COPIES} or more", is_met, risk)


def _setting(configuration: Mapping[str, str], name: str, wanted: str, risk: str) -> Durability:
    value = configuration.get(name)
    return Durability(name, value, wanted, value == wanted, risk)
