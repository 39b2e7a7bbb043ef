"""Where an engine or a cluster is said to be, and what is said of an address that is none."""

from pathlib import Path

import pytest

from executors.docker.address import fault_of
from executors.errors import ExecutorError
from executors.kubernetes.kubeconfig import check_kubeconfig


@pytest.mark.parametrize("url", ["unix:///run/docker.sock", "tcp://host:2375", "tcp://[::1]:2375", "http://host:1"])
def test_addresses_of_engines(url: str) -> None:
    assert fault_of(url) == ""


@pytest.mark.parametrize("url", ["garbage", "tcp://", "tcp://x:y", "unix://x", "ssh://a@b", "npipe:////./pipe/docker"])
def test_other_addresses_are_told_from_them(url: str) -> None:
    assert fault_of(url).startswith(f"DOCKER_HOST: {url!r} is no address")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no file"),
        ("", "names no clusters"),
        ("a: [", "is no YAML"),
        ("hello", "is no kubeconfig"),
        ("clusters: here", "is no kubeconfig"),
    ],
)
def test_a_kubeconfig_that_is_none_is_named_with_its_variable(
    content: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(ExecutorError) as caught:
        check_kubeconfig("")
    assert "KUBECONFIG: " in str(caught.value)
    assert str(file) in str(caught.value)
    assert reason in str(caught.value)


def test_a_kubeconfig_of_several_files_may_lack_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users").write_text("users: []")
    (tmp_path / "rest").write_text("clusters: [{name: one}]")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/users:{tmp_path}/absent:{tmp_path}/rest")
    check_kubeconfig("")
