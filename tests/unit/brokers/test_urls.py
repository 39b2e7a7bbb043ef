"""URLs of brokers: every part, and what is wrong with a bad one, without its secrets."""

import builtins
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

import pytest

from brokers.errors import UnknownBrokerError
from brokers.registry import make_broker
from brokers.urls import parse_url


def test_a_url_is_taken_apart() -> None:
    url = parse_url(
        "kafkas://us%40er:p%3Aw%2F@a:1,[::1]:2,b/x%20y?ca=/tmp/ca&claim_after_s=2.5", 9092, ("ca", "claim_after_s")
    )
    assert (url.scheme, url.user, url.password) == ("kafkas", "us@er", "p:w/")
    assert url.hosts == ("a:1", "[::1]:2", "b:9092")
    assert (url.path, url.options["ca"], url.seconds("claim_after_s", 1.0)) == ("x y", "/tmp/ca", 2.5)
    assert url.seconds("retention_s", 7.0) == 7.0
    assert url.shown == "kafkas://a:1,[::1]:2,b:9092"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kafka://user:secret@host?mechanism=MAGIC", "mechanism must be one of PLAIN, SCRAM-SHA-256"),
        ("kafka://user:secret@host?replication=many", "replication must be a number"),
        ("kafka://user:secret@host:0", "'0' is no port"),
        ("kafka://user:secret@host?acks=1", "unknown option 'acks'; known are ca"),
        ("redis://user:secret@host?claim_after_s=-1", "claim_after_s must be a number of seconds above 0"),
        ("redis://user:secret@", "names no host"),
    ],
)
def test_a_bad_url_says_what_is_wrong_and_no_secret(url: str, message: str) -> None:
    with pytest.raises(UnknownBrokerError, match=message) as caught:
        make_broker(url)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_driver(
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if name.partition(".")[0] == "aiokafka":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, globals_, locals_, fromlist or (), level)

    real = builtins.__import__
    for module in [name for name in sys.modules if name.startswith("brokers.kafka")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without_driver)
    with pytest.raises(UnknownBrokerError, match=r"pip install 'formicary\[kafka\]'"):
        make_broker("kafka://host")
