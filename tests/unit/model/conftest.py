"""Shared by the tests of the job language."""

from collections.abc import Callable

import pytest

from formicary.errors import DefinitionError, Problem
from formicary.model.parse import parse_definition


def _problems(text: str | bytes, file: str = "job.yaml") -> list[Problem]:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(text, file)
    return list(caught.value.problems)


@pytest.fixture
def problems() -> Callable[[str | bytes], list[Problem]]:
    """Returns a function that gives the problems of a bad document."""
    return _problems


@pytest.fixture
def only_problem() -> Callable[[str | bytes], Problem]:
    """Returns a function that gives the one problem of a document with one mistake."""

    def only(text: str | bytes) -> Problem:
        found = _problems(text)
        assert len(found) == 1, [problem.text("job.yaml") for problem in found]
        return found[0]

    return only
