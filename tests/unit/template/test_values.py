from typing import Any

import pytest

from formicary.template.errors import TemplateError
from formicary.template.values import compile_value


@pytest.mark.parametrize("value", ["x", "", 1, None, True, [1, ["{"]], {"a": {"b": "}}"}}, ("x",)])
def test_a_value_without_templates_is_constant_and_returned_as_it_is(value: Any) -> None:
    compiled = compile_value(value, "v")
    assert compiled.is_constant
    assert compiled.render({}) is value


def test_templates_are_rendered_wherever_they_stand() -> None:
    value = {"a": ["{{ x }}", {"b": "-{{ x }}-"}], "c": 1, "t": ("{{ x }}",)}
    assert compile_value(value, "v").render({"x": 2}) == {"a": ["2", {"b": "-2-"}], "c": 1, "t": ("2",)}
    assert value["a"] == ["{{ x }}", {"b": "-{{ x }}-"}]


def test_an_error_names_the_path_within_the_value() -> None:
    with pytest.raises(TemplateError, match=r"^v\.a\[1\]\.b: "):
        compile_value({"a": [1, {"b": "{{ x }}"}]}, "v").render({})


def test_what_a_template_gives_is_not_rendered_again() -> None:
    assert compile_value("{{ x }}", "v").render({"x": "{{ y }}", "y": "secret"}) == "{{ y }}"
