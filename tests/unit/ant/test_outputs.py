"""Outputs: parsed with their JSON types, checked before they travel."""

import os
from pathlib import Path
from typing import Any

import pytest

from formicary.ant import outputs
from formicary.ant.masking import mask_text
from formicary.ant.values import OUTPUTS_LIMIT_BYTES, check_outputs
from formicary.errors import DataError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ('[1, {"a": null}]', [1, {"a": None}]),
        ("007", "007"),
        ("NaN", "NaN"),
        ("plain text", "plain text"),
        ("", ""),
        (" padded ", " padded "),
    ],
)
def test_a_json_value_keeps_its_type_and_anything_else_is_text(text: str, value: Any) -> None:
    assert outputs.parse_value("x", text) == value


def test_a_line_names_an_output() -> None:
    assert outputs.parse_line("::set-output name=rows::3") == ("rows", 3)
    assert outputs.parse_line("::set-output name=url::http://a::b") == ("url", "http://a::b")


@pytest.mark.parametrize("line", ["::set-output name=rows", "::set-output name=::3"])
def test_a_line_that_is_almost_one_is_an_error(line: str) -> None:
    with pytest.raises(DataError, match="::set-output name=K::V"):
        outputs.parse_line(line)


def test_the_last_line_of_the_file_wins() -> None:
    assert outputs.parse_file(b"a=1\n\nb= x=y \r\na=2", str) == {"a": 2, "b": " x=y "}


def test_a_bad_line_of_the_file_is_named() -> None:
    with pytest.raises(DataError, match="line 2"):
        outputs.parse_file(b"a=1\nnonsense\n", str)


@pytest.mark.parametrize("secret", ["ghp_S3cr3tS3cr3tS3cr3tS3cr3t", 'with "quotes" and \\'])
@pytest.mark.parametrize("before", [0, 70, 190])
def test_no_part_of_a_secret_is_in_the_error(secret: str, before: int) -> None:
    def told(text: str) -> str:
        return mask_text(text, [secret])

    with pytest.raises(DataError) as line:
        outputs.parse_file(f"{'x' * before}{secret}\n".encode(), told)
    with pytest.raises(DataError) as name:
        check_outputs({f"{'x' * before}{secret}\t{'x' * 200}": 1}, told)

    assert not [error.value for error in (line, name) if secret[:4] in str(error.value)]


def test_a_file_that_is_no_text_is_named() -> None:
    with pytest.raises(DataError, match="UTF-8"):
        outputs.parse_file(b"a=\xff", str)


def test_the_file_is_opened_without_following_links_or_waiting(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(DataError, match="FORMICARY_OUTPUT"):
            outputs.read_file(tmp_path / name, str)
    assert outputs.read_file(tmp_path / "missing", str) == {}


def deep() -> Any:
    value: Any = 1
    for _ in range(100):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\0b", "NUL"),
        (["ok", {"k": "\ud800"}], r"bad\[1\].k|is no JSON value"),
        (2**63, "64 bits"),
        ([-(2**63) - 1], "64 bits"),
        (float("nan"), "no JSON number"),
        ([float("inf")], "no JSON number"),
        ({1: 2}, "not a string"),
        (object(), "no JSON value"),
        ("x" * OUTPUTS_LIMIT_BYTES, "exceed the limit"),
        (deep(), "nested deeper"),
    ],
)
def test_a_value_that_no_store_takes_is_named(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check_outputs({"good": 1, "bad": value}, str)
    assert caught.value.key.startswith("outputs.bad")


def test_values_at_the_limits_pass() -> None:
    check_outputs({"low": -(2**63), "high": 2**63 - 1, "text": "ünï", "none": None, "flag": True, "half": 0.5}, str)


def test_many_small_outputs_that_are_too_large_together_name_the_largest() -> None:
    values = {f"k{number}": "x" * 1000 for number in range(300)} | {"largest": "x" * 2000}
    with pytest.raises(DataError) as caught:
        check_outputs(values, str)
    assert caught.value.key == "outputs.largest"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_a_name_that_nobody_can_use_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="printable"):
        check_outputs({name: 1}, str)
