"""Variables that look like settings and are none."""

import pytest

from formicary.cli.unknown import unknown_settings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FORMICARY_BROKR_URL", "FORMICARY_BROKER_URL"),
        ("FORMICARY_DATABASE", "FORMICARY_DATABASE_URL"),
        ("FORMICARY_ARTIFACT_URL", "FORMICARY_ARTIFACTS_URL"),
        ("FORMICARY_ANT_LEASES", "FORMICARY_ANT_LEASE_S"),
    ],
)
def test_a_misspelt_setting_comes_with_the_one_that_was_meant(name: str, meant: str) -> None:
    assert unknown_settings({name: "a secret"}) == {name: f"{name} is no setting; did you mean {meant}?"}


def test_what_is_near_to_nothing_is_named_all_the_same() -> None:
    assert "formicary settings" in unknown_settings({"FORMICARY_QQQQQ": "1"})["FORMICARY_QQQQQ"]


@pytest.mark.parametrize(
    "name",
    [
        "FORMICARY_HOME",
        "FORMICARY_JOB_ID",
        "FORMICARY_ANT",
        "FORMICARY_TEST_REDIS_URL",
        "FORMICARY_SERVICE_HOST",
        "FORMICARY_PORT",
        "FORMICARY_QUEEN_SERVICE_PORT_HTTP",
        "FORMICARY_QUEEN_PORT_7777_TCP_ADDR",
        "BROKR_URL",
    ],
)
def test_settings_and_what_others_set_are_no_mistakes(name: str) -> None:
    assert unknown_settings({name: "1"}) == {}
