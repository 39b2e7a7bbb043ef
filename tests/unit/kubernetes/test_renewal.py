"""Credentials that end while they are used: what came anew in their place is used at once."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from executors.kubernetes.cluster import Cluster
from executors.kubernetes.errors import ApiUnreachableError
from executors.kubernetes.transfer import Transfer
from tests.certificates import make_certificate
from tests.unit.kubernetes.conftest import ApiServer, Kubeconfig, Serve

Json = Any  # a JSON value


@pytest.mark.parametrize("way", ["plain", "exec"])
async def test_a_token_that_was_renewed_is_read_at_the_first_refusal(
    server: ApiServer, connection: Cluster, kubeconfig: Kubeconfig, way: str
) -> None:
    server.valid = "Bearer new"
    kubeconfig.write({"server": f"http://127.0.0.1:{server.port}"}, {"token": "new"})

    if way == "plain":
        assert (await connection.request("GET", connection.pod_path("x")))["kind"] == "Pod"
    else:
        assert await Transfer(connection, "x").interrupt()

    assert server.came == [("Bearer old", way), ("Bearer new", way)]


async def test_a_kubeconfig_that_leads_elsewhere_meanwhile_is_not_followed(
    server: ApiServer, connection: Cluster, kubeconfig: Kubeconfig, serve: Serve
) -> None:
    """What is not there is no sign that a pod is gone where it was made."""
    other = await serve()
    server.valid = other.valid = "Bearer new"
    kubeconfig.write({"server": f"http://127.0.0.1:{other.port}"}, {"token": "new"})

    with pytest.raises(ApiUnreachableError, match="another API server"):
        await connection.request("GET", connection.pod_path("x"))

    assert other.came == []


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates and keys of ``server`` and of clients ``old`` and ``new``, each signed by itself."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "old", "new"):
        make_certificate(folder / name, folder / f"{name}.key")
    return folder


@pytest.fixture
async def secured(serve: Serve, certificates: Path) -> ApiServer:
    """A server that looks at certificates of clients, and leaves it to the answer whether they will do."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server", certificates / "server.key")
    for name in ("old", "new"):
        context.load_verify_locations(certificates / name)
    context.verify_mode = ssl.CERT_OPTIONAL
    server = await serve(context)
    server.valid = "old"
    return server


def place(server: ApiServer, authority: Path) -> Json:
    return {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": str(authority)}


def certified(certificates: Path, name: str) -> Json:
    return {"client-certificate": str(certificates / name), "client-key": str(certificates / f"{name}.key")}


async def test_a_client_certificate_that_was_renewed_is_used_while_what_runs_goes_on(
    secured: ApiServer, certificates: Path, kubeconfig: Kubeconfig
) -> None:
    where = place(secured, certificates / "server")
    kubeconfig.write(where, certified(certificates, "old"))
    cluster = Cluster(kubeconfig=str(kubeconfig.file))
    await cluster.open()
    async with cluster.stream(cluster.pod_path("x") + "/log", idle_s=10) as pieces:
        read = [await anext(pieces)]

        secured.valid = "new"
        kubeconfig.write(where, certified(certificates, "new"))
        assert (await cluster.request("GET", cluster.pod_path("x")))["kind"] == "Pod"
        assert await Transfer(cluster, "x").interrupt()

        secured.is_log_over.set()
        read += [piece async for piece in pieces]
    await cluster.close()

    assert read == [b"one", b"two"]
    assert secured.came[1:] == [("old", "plain"), ("new", "plain"), ("new", "exec")]


async def test_a_program_is_asked_once_for_all_that_were_refused_at_a_time(
    secured: ApiServer, certificates: Path, kubeconfig: Kubeconfig, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    command = ["-c", f"echo asked >>{tmp_path}/count; cat {given}"]
    version = "client.authentication.k8s.io/v1"
    program = {"apiVersion": version, "command": "sh", "args": command, "interactiveMode": "Never"}
    kubeconfig.write(place(secured, certificates / "server"), {"exec": program})

    def give(name: str) -> None:
        files = {"clientCertificateData": name, "clientKeyData": f"{name}.key"}
        status = {key: (certificates / file).read_text() for key, file in files.items()}
        given.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))

    give("old")
    cluster = Cluster(kubeconfig=str(kubeconfig.file))
    await cluster.open()
    secured.valid = "new"
    give("new")

    await asyncio.gather(*(cluster.request("GET", cluster.pod_path("x")) for _ in range(10)))

    await cluster.close()
    assert sorted(secured.came) == [("new", "plain")] * 10 + [("old", "plain")] * 10
    assert (tmp_path / "count").read_text() == "asked\n" * 2


async def test_a_new_authority_of_the_cluster_is_read_when_the_old_one_will_not_do(
    secured: ApiServer, certificates: Path, kubeconfig: Kubeconfig
) -> None:
    kubeconfig.write(place(secured, certificates / "new"), certified(certificates, "old"))
    cluster = Cluster(kubeconfig=str(kubeconfig.file))
    await cluster.open()
    with pytest.raises(ApiUnreachableError, match="certificate verify failed"):
        await cluster.request("GET", cluster.pod_path("x"))

    kubeconfig.write(place(secured, certificates / "server"), certified(certificates, "old"))
    assert (await cluster.request("GET", cluster.pod_path("x")))["kind"] == "Pod"
    await cluster.close()
