"""Methods and their executors."""

import subprocess
import sys
from pathlib import Path

import pytest

from executors.errors import UnknownMethodError
from executors.registry import DEFAULT_METHODS, KNOWN_METHODS, ExecutorOptions, make_executors
from executors.specs import HTTP_METHODS


def test_an_ant_that_is_not_told_offers_all_that_does_real_work() -> None:
    executors = make_executors(None)

    assert tuple(executors) == DEFAULT_METHODS
    assert "DUMMY" not in executors


def test_remote_workers_are_offered_where_they_can_connect() -> None:
    executors = make_executors(None, ExecutorOptions(workers_listen=("127.0.0.1", 0)))

    assert tuple(executors) == (*DEFAULT_METHODS, "WEBSOCKET")


def test_pods_are_offered_where_a_cluster_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "KUBERNETES" not in make_executors(None)

    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    assert "KUBERNETES" in make_executors(None)


def test_each_executor_names_the_methods_it_serves() -> None:
    for method, executor in make_executors(KNOWN_METHODS).items():
        assert method in executor.methods


def test_the_http_methods_share_one_executor() -> None:
    executors = make_executors(HTTP_METHODS)

    assert len({id(executor) for executor in executors.values()}) == 1


def test_an_unknown_method_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnknownMethodError, match=r"SHEL;.*SHELL.*PYTHON"):
        make_executors(["SHEL"])


def test_only_the_modules_of_the_chosen_methods_are_imported() -> None:
    code = (
        "import sys; from executors.registry import make_executors; make_executors(['DUMMY']); "
        "print(sorted({'aiohttp', 'uvloop', 'executors.shell', 'executors.python'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout == "[]\n"
