"""Credentials that end while they are used: what came anew in their place is used at once."""

import pytest

from executors.kubernetes.cluster import Cluster
from executors.kubernetes.transfer import Transfer
from tests.unit.kubernetes.conftest import ApiServer, Kubeconfig


@pytest.mark.parametrize("way", ["plain", "exec"])
async def test_a_token_that_was_renewed_is_read_at_the_first_refusal(
    server: ApiServer, connection: Cluster, kubeconfig: Kubeconfig, way: str
) -> None:
    server.valid = "Bearer new"
    kubeconfig.write({"server": f"http://127.0.0.1:{server.port}"}, {"token": "new"})

    if way == "plain":
        assert await connection.request("GET", connection.pod_path("x")) == {"kind": "Pod"}
    else:
        assert await Transfer(connection, "x").interrupt()

    assert server.came == [("Bearer old", way), ("Bearer new", way)]
