"""How the tests are spread over several processes: ``pytest -n 3``, as ``make test`` does it.

The tests of one folder share servers that are started once a process, so a folder goes to one process as a whole. Of
some folders only the files do: they share next to nothing. What takes longest goes first, so that the processes end
together; most of it waits more than it computes.
"""

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

#: Folders whose files go to whichever process is free.
APART = ("tests/e2e", "tests/e2e/colony", "tests/simulation")
#: What takes longest, in this order; everything else follows.
FIRST = (
    "tests/e2e/colony/test_chaos.py",
    "tests/integration/docker",
    "tests/integration/kubernetes",
    "tests/conformance/brokers",
    "tests/integration/servers",
    "tests/e2e/colony",
    "tests/simulation/test_simulation.py",
    "tests/faults",
    "tests/conformance",
    "tests/e2e",
    "tests/integration",
)

# In the background of a shell an interrupt is ignored, also by whatever is started: some tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Kafka and Pulsar live for minutes here: compiling them well would cost more than it saves.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
# An example that takes long says something of the machine, nothing of the property.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


def lane(nodeid: str) -> str:
    """Returns the folder or file whose tests all run in one process."""
    file = nodeid.partition("::")[0]
    folder = file.rpartition("/")[0]
    return file if folder in APART else folder


def rank(nodeid: str) -> int:
    """Returns the place of a test in the order of those that take longest."""
    return next((place for place, path in enumerate(FIRST) if nodeid.startswith(path)), len(FIRST))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Brings the tests of a process of several into the order in which they are handed out."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> "LoadScopeScheduling":
    """Hands out folders and files instead of single tests."""
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # xdist brings no types
        def _split_scope(self, nodeid: str) -> str:
            return lane(nodeid)

    config.option.loadscopereorder = False
    return Lanes(config, log)
