"""Texts of flags become values."""

import pytest

from formicary.cli.options import labels_of, params_of, words_of
from formicary.errors import InvalidInputError


def test_params_are_json_where_they_are_json_and_text_elsewhere() -> None:
    given = ["n=3", "x=1.5", "t=true", "s=eu", "l=[1,2]", 'o={"a": null}', "z=007", "e=", "q=a=b", "nan=NaN", 'j="3"']

    assert params_of(given) == {
        "n": 3,
        "x": 1.5,
        "t": True,
        "s": "eu",
        "l": [1, 2],
        "o": {"a": None},
        "z": "007",
        "e": "",
        "q": "a=b",
        "nan": "NaN",
        "j": "3",
    }


@pytest.mark.parametrize("text", ["novalue", "=x", ""])
def test_a_param_without_a_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="KEY=VALUE"):
        params_of([text])
    with pytest.raises(InvalidInputError, match="KEY=VALUE"):
        labels_of([text])


def test_bytes_that_are_no_text_are_refused_naming_the_flag() -> None:
    with pytest.raises(InvalidInputError, match=r"-p .* is not UTF-8"):
        params_of(["name=caf\udce9"])
    with pytest.raises(InvalidInputError, match=r"--label .* is not UTF-8"):
        labels_of(["name=caf\udce9"])


def test_words_are_split_and_trimmed() -> None:
    assert words_of(" a, b,,c ") == ("a", "b", "c")
    assert words_of(None) == ()
