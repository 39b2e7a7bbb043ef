"""How long the harness waits for a colony whose servers take their time."""

import threading
from pathlib import Path

from tests.e2e.colony.chaos import Blow, Chaos
from tests.e2e.colony.processes import Colony, Patience
from tests.e2e.colony.servers import BrokerServer, PostgresServer


class SlowServer(BrokerServer):
    """Comes back when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__("slow", folder)
        self.is_starting = threading.Event()
        self.may_serve = threading.Event()

    def kill(self) -> None:
        """There is nothing to end."""

    def start(self) -> None:
        self.is_starting.set()
        self.may_serve.wait()


def test_patience_begins_when_there_is_no_excuse_any_more() -> None:
    excuses = iter([True, True, False])
    patience = Patience(0.0, lambda: next(excuses))
    assert [patience.is_over() for _ in range(3)] == [False, False, True]


def test_a_colony_may_stand_still_until_the_server_that_was_killed_serves_again(tmp_path: Path) -> None:
    colony = Colony(tmp_path, database_url="", broker_url="", queens=0, ants=0)
    server = SlowServer(tmp_path)
    with Chaos(colony, server, PostgresServer(tmp_path / "pg"), [Blow(0.0, "kill broker", "broker", 0.0)]):
        server.is_starting.wait()
        is_excused = colony.is_excused()
        polls = iter([*[False] * 3, True])
        colony.until(lambda: next(polls), "a queen that waits for the server is ready", timeout_s=0.0)
        server.may_serve.set()
    assert is_excused
    assert not colony.is_excused()
