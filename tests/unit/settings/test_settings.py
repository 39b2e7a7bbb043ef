"""Settings: variables, flags over them, errors that name the variable, secrets hidden."""

from pathlib import Path

import pytest

from formicary import settings
from formicary.errors import InvalidInputError


def test_defaults_are_the_documented_ones() -> None:
    loaded = settings.load({"XDG_DATA_HOME": "/data"})

    assert loaded.home == Path("/data/formicary")
    assert loaded.artifacts_url == "file:///data/formicary/artifacts"
    assert (loaded.database_url, loaded.broker_url, loaded.listen) == (None, "memory://", "127.0.0.1:7777")
    assert (loaded.lease_s, loaded.ant_lease_s, loaded.log_level, loaded.log_format) == (10, 60, "info", None)
    assert loaded.server == "http://127.0.0.1:7777"


def test_a_flag_wins_over_its_variable_and_an_absent_one_does_not() -> None:
    environ = {"FORMICARY_LISTEN": "127.0.0.1:1", "FORMICARY_LEASE_S": "4"}

    loaded = settings.load(environ, listen="127.0.0.1:2", lease_s=None)

    assert (loaded.listen, loaded.lease_s) == ("127.0.0.1:2", 4.0)


def test_an_empty_variable_counts_as_unset() -> None:
    assert settings.load({"FORMICARY_BROKER_URL": ""}).broker_url == "memory://"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FORMICARY_DATABASE_URL", "mysql://x"),
        ("FORMICARY_DATABASE_URL", "x"),
        ("FORMICARY_BROKER_URL", "amqp://x"),
        ("FORMICARY_ARTIFACTS_URL", "/folder"),
        ("FORMICARY_LISTEN", "7777"),
        ("FORMICARY_SERVER", "http://"),
        ("FORMICARY_SERVER", "http://x:y"),
        ("FORMICARY_TOKEN", "a\nb"),
        ("FORMICARY_LISTEN", "127.0.0.1:99999"),
        ("FORMICARY_LISTEN", "127.0.0.1:²"),
        ("FORMICARY_SERVER", "localhost:7777"),
        ("FORMICARY_LEASE_S", "ten"),
        ("FORMICARY_LEASE_S", "nan"),
        ("FORMICARY_ANT_LEASE_S", "-1"),
        ("FORMICARY_CACHE_LIMIT", "1x"),
        ("FORMICARY_CACHE_TOTAL_LIMIT", "much"),
        ("FORMICARY_LOG_LEVEL", "loud"),
        ("FORMICARY_LOG_FORMAT", "xml"),
        ("FORMICARY_HOME", "a\0b"),
        ("FORMICARY_WORKERS_LISTEN", "0.0.0.0:7788"),
        ("FORMICARY_WORKERS_LISTEN", "192.0.2.1:7788"),
        ("FORMICARY_WORKERS_ORIGINS", "example.org"),
        ("FORMICARY_WORKERS_ORIGINS", "http://example.org/"),
        ("FORMICARY_WORKERS_ORIGINS", "*"),
        ("FORMICARY_DOCKER_VOLUMES", "cache,/srv"),
        ("FORMICARY_DOCKER_NETWORKS", "container:db"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        settings.load({name: value})


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(InvalidInputError, match=r"FORMICARY_LISTEN.*FORMICARY_LEASE_S"):
        settings.load({"FORMICARY_LISTEN": "x", "FORMICARY_LEASE_S": "x"})


def test_workers_may_come_from_elsewhere_only_with_a_token_and_from_pages_that_are_listed() -> None:
    environ = {"FORMICARY_WORKERS_LISTEN": "0.0.0.0:7788", "FORMICARY_WORKERS_TOKEN": "x"}

    loaded = settings.load(environ, workers_origins="http://localhost:8000, https://a.example,null")

    assert loaded.workers_listen == "0.0.0.0:7788"
    assert loaded.workers_origins == ("http://localhost:8000", "https://a.example", "null")
    assert loaded.public()["FORMICARY_WORKERS_ORIGINS"] == "http://localhost:8000,https://a.example,null"
    assert settings.load({"FORMICARY_WORKERS_LISTEN": "[::1]:0"}).workers_listen == "[::1]:0"


def test_no_secret_is_ever_printed() -> None:
    loaded = settings.load(
        {
            "FORMICARY_DATABASE_URL": "postgresql://me:s3cret@host/db",
            "FORMICARY_BROKER_URL": "redis://:s3cret@host:6379/0",
            "FORMICARY_ARTIFACTS_URL": "s3://bucket?secret_key=s3cret&region=eu",
            "FORMICARY_TOKEN": "s3cret",
            "FORMICARY_WORKERS_TOKEN": "s3cret",
        }
    )

    assert "s3cret" not in repr(loaded)
    assert "s3cret" not in str(loaded.public())
    assert loaded.public()["FORMICARY_DATABASE_URL"] == "postgresql://me:***@host/db"
    assert loaded.public()["FORMICARY_ARTIFACTS_URL"] == "s3://bucket?secret_key=***&region=eu"


def test_a_wrong_url_is_quoted_without_its_password() -> None:
    with pytest.raises(InvalidInputError) as caught:
        settings.load({"FORMICARY_DATABASE_URL": "mysql://me:s3cret@host"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:80", ("::1", 80)), ("localhost:1", ("localhost", 1))]
)
def test_an_address_is_split_into_host_and_port(text: str, parts: tuple[str, int]) -> None:
    assert settings.split_listen(text) == parts
