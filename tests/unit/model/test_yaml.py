from collections.abc import Callable

import pytest

from formicary.errors import Problem
from formicary.model.parse import parse_definition
from formicary.model.parse_kinds import AnyJson
from formicary.model.parse_problems import Problems
from formicary.model.parse_yaml import locator, read_document
from tests.steps import steps_of

OnlyProblem = Callable[[str | bytes], Problem]


def value_of(text: str) -> object:
    root, mistakes = read_document(text, "x")
    assert not mistakes
    return AnyJson().convert(root, (), Problems(locator(root)))


def test_only_true_and_false_are_truth_values() -> None:
    assert value_of("[yes, no, on, off, y, n, true, False]") == ["yes", "no", "on", "off", "y", "n", True, False]


def test_plain_scalars_follow_the_core_schema() -> None:
    text = "[1, -2, 0o17, 0x1f, 1.5, .5, 1e3, 010, '1', ~, null, , 12:30, 1_000, 2001-01-01]"
    assert value_of(text.replace(", ,", ", '',")) == [
        1, -2, 15, 31, 1.5, 0.5, 1000.0, 10, "1", None, None, "", "12:30", "1_000", "2001-01-01"
    ]  # fmt: skip


def test_merge_keys_add_what_is_not_written() -> None:
    assert value_of("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}") == {"a": {"p": 1, "q": 2}, "b": {"q": 3, "p": 1}}


@pytest.mark.parametrize("start", [b"job_type: a\n", b"]: %\n", b"\xff\n"], ids=["sound", "no YAML", "no text"])
def test_a_ten_megabyte_document_is_refused_unread(start: bytes, only_problem: OnlyProblem) -> None:
    document = start + b"# x\n" * 2_600_000
    problem = only_problem(document)
    assert f"the document has {len(document):,} bytes" in problem.message


def test_billion_laughs_are_refused_before_they_are_expanded(problems: Callable[[str], list[Problem]]) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    found: list[Problem] = []
    steps_of(lambda: found.extend(problems("\n".join(lines))), most=100_000)
    assert ["aliases" in problem.message for problem in found] == [True]


def test_an_alias_within_its_own_anchor_is_refused(only_problem: OnlyProblem) -> None:
    assert "no anchor" in only_problem("a: &a [*a]").message


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{b: " * 500, "- " * 5000])
def test_deep_nesting_is_refused(text: str, only_problem: OnlyProblem) -> None:
    assert "nested deeper than 64" in only_problem(text).message


def test_a_key_given_twice_is_shown_at_the_second(only_problem: OnlyProblem) -> None:
    problem = only_problem("job_type: a\njob_type: b\ntasks: [{task_type: t, method: DUMMY}]")
    assert (problem.line, problem.column) == (2, 1)
    assert problem.message == 'the key "job_type" is given twice'
    assert problem.hint == "first in line 1"


def test_bytes_that_are_no_utf8_are_named_with_their_place(only_problem: OnlyProblem) -> None:
    problem = only_problem(b"job_type: a\ndescription: caf\xe9\n")
    assert "not UTF-8" in problem.message
    assert (problem.line, problem.column) == (2, 17)


def test_a_lone_surrogate_is_refused(only_problem: OnlyProblem) -> None:
    assert "surrogate" in only_problem("job_type: \ud800").message


def test_a_nul_is_refused(problems: Callable[[str], list[Problem]]) -> None:
    found = problems('job_type: a\ndescription: "\\0"\ntasks: [{task_type: t, method: DUMMY}]')
    assert "NUL" in found[0].message


def test_a_control_character_is_refused(only_problem: OnlyProblem) -> None:
    problem = only_problem("job_type: ä\nlabels: {ö: \x07}")
    assert "no valid YAML" in problem.message
    assert (problem.line, problem.column) == (2, 13)
    assert "U+0007" in problem.hint


def test_a_second_document_is_refused(only_problem: OnlyProblem) -> None:
    problem = only_problem("job_type: a\n---\njob_type: b\n")
    assert "second document" in problem.message
    assert problem.line == 2


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!binary", "!own", "!!set"])
def test_tags_are_refused(tag: str, problems: Callable[[str], list[Problem]]) -> None:
    found = problems(f"job_type: {tag} 'x'\ntasks: [{{task_type: t, method: DUMMY}}]")
    assert "is not allowed" in found[0].message


def test_an_empty_document_says_what_to_write(only_problem: OnlyProblem) -> None:
    assert only_problem("# nothing\n").hint == "begin with job_type: NAME"


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1,\nb: 2", 2), ("a: 'x", 1), ("a:\n\t- b", 2), ("a: b: c", 1), ("@a: 1", 1)]
)
def test_malformed_yaml_is_shown_at_its_line(text: str, line: int, only_problem: OnlyProblem) -> None:
    problem = only_problem(text)
    assert problem.message.startswith("no valid YAML")
    assert problem.line >= line


def test_a_template_without_quotes_says_that_it_needs_them(problems: Callable[[str], list[Problem]]) -> None:
    found = problems("job_type: a\ntasks:\n  - task_type: t\n    method: SHELL\n    script: {{ x }}\n")
    assert any("needs quotes" in problem.hint and problem.line == 5 for problem in found)


@pytest.mark.parametrize("text", ["[]", "just text", "42", "- job_type: a"])
def test_a_document_that_is_no_mapping_is_refused(text: str, only_problem: OnlyProblem) -> None:
    assert "expected a mapping (a job)" in only_problem(text).message


def test_bytes_with_a_byte_order_mark_are_read() -> None:
    document = b"\xef\xbb\xbfjob_type: a\ntasks: [{task_type: t, method: DUMMY}]"
    assert parse_definition(document).job_type == "a"
