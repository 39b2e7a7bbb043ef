"""What every executor promises, of pods on a real cluster, with the least rights that do."""

import pytest

from tests.conformance.executors.test_contract import *  # noqa: F403 - the one suite of all executors

pytestmark = pytest.mark.asyncio(loop_scope="module")
