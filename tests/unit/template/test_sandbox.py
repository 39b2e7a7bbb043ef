import time
from collections.abc import Mapping
from typing import Any

import pytest

from formicary.template.budget import Budget
from formicary.template.engine import ENGINE
from formicary.template.errors import TemplateError
from formicary.template.inspect import inspect

#: No template may hold up the loop it runs in for longer, on the slowest machine: a hundred times what the worst takes
#: where nothing else runs. What has no bound takes longer, or the whole memory.
MOST_S = 20.0


def render(text: str, scope: Mapping[str, Any] | None = None, *, keep_type: bool = False) -> Any:
    return ENGINE.compile(text, "key", keep_type=keep_type).render(scope or {}, Budget(), "key")


def refusal(text: str, scope: Mapping[str, Any] | None = None, *, keep_type: bool = False) -> str:
    began = time.process_time()
    with pytest.raises(TemplateError) as caught:
        render(text, scope, keep_type=keep_type)
    assert time.process_time() - began < MOST_S
    assert caught.value.code == "ERR_TEMPLATE"
    assert caught.value.path == "key"
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain", "plain"),
        ("{{ a }}-{{ b.c }}", "1-x"),
        ("{{ b['c'] }}{{ l[1] }}{{ l[0:2] }}", "x2[1,2]"),
        ("{{ l }} {{ b }} {{ none }} {{ true }} {{ 1.5 }}", '[1,2,3] {"c":"x","items":[4]} null true 1.5'),
        ("{{ b.items }}", "[4]"),
        ("{% for k, v in d.items() %}{{ k }}={{ v }} {% endfor %}{{ d.get('q', 3) }}", "p=1 3"),
        ("{{ missing | default('d') }}{{ missing is defined }}", "dfalse"),
        ("{% if a == 1 and 2 in l and b.c != 'y' %}yes{% else %}no{% endif %}", "yes"),
        ("{% for n in l %}{{ loop.index }}{{ 'ab'.upper() }}{{ ',' if not loop.last }}{% endfor %}", "1AB,2AB,3AB"),
        ("{% for n in range(3) if n %}{{ n * 2 }}{% endfor %}", "24"),
        ("{{ 'a' ~ 1 ~ true }}{{ 'n: %03d %s' % (7, l) }}", "a1truen: 007 [1,2,3]"),
        ("{{ l | join('-') }} {{ l | sum }} {{ l | map('string') | list | tojson }}", '1-2-3 6 ["1","2","3"]'),
        ("{{ '{\"a\": [1]}' | fromjson | tojson }}", '{"a":[1]}'),
        ("{{ 'a b; rm' | sh }} {{ ['x y', 1] | sh }}", "'a b; rm' 'x y' 1"),
        ("{{ 'x'.join(l) }}{{ 'aba'.replace('a', 'cc') }}{{ 'a,b'.split(',')[1] }}", "1x2x3ccbccb"),
        ("{% set x = a + 1 %}{{ x }}{% set y %}<{{ x }}>{% endset %}{{ y }}", "2<2>"),
        ("line\n", "line\n"),
    ],
)
def test_templates_give_text(text: str, rendered: str) -> None:
    assert render(text, {"a": 1, "b": {"c": "x", "items": [4]}, "l": [1, 2, 3], "d": {"p": 1}}) == rendered


@pytest.mark.parametrize("value", [1, 1.5, True, None, "x", [1, {"a": [None]}], {"a": {"b": []}}])
def test_a_lone_expression_keeps_its_type_where_asked(value: Any) -> None:
    kept = render("{{ value }}", {"value": value}, keep_type=True)
    assert kept == value
    assert type(kept) is type(value)


def test_text_around_an_expression_makes_text_also_where_types_are_kept() -> None:
    assert render(" {{ value }}", {"value": 1}, keep_type=True) == " 1"


def test_a_kept_value_is_a_copy() -> None:
    value = {"a": [1]}
    kept = render("{{ value }}", {"value": value}, keep_type=True)
    kept["a"].append(2)
    assert value == {"a": [1]}


def test_an_undefined_name_lists_what_is_defined() -> None:
    assert refusal("{{ regin }}", {"region": 1, "day": 2}) == (
        '"regin" is not defined; did you mean "region"?; defined are day, region'
    )


def test_an_undefined_key_lists_the_keys_beside_it() -> None:
    message = refusal("{{ tasks.a.outputs.row }}", {"tasks": {"a": {"outputs": {"rows": 1, "size": 2}}}})
    assert message == 'there is no "row" here; did you mean "rows"?; there are rows, size'


@pytest.mark.parametrize(
    "text",
    [
        "{{ x.y.z }}",
        "{{ x.y }}",
        "{{ y }}",
        "{% for i in y %}{% endfor %}",
        "{{ y == 1 }}",
        "{{ y + 1 }}",
        "{{ y | upper }}",
        "{{ y | sh }}",
        "{% if y %}{% endif %}",
        "{{ y() }}",
        "{{ [y] }}",
        "{{ y ~ 'a' }}",
        "{{ 'a'.replace(y, '') }}",
    ],
)
def test_whatever_uses_something_undefined_is_an_error(text: str) -> None:
    assert "no " in refusal(text, {"x": {}}) or "not defined" in refusal(text, {"x": {}})


@pytest.mark.parametrize(
    "text",
    [
        "{{ x.__class__ }}",
        "{{ x['__class__'] }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ x | attr('__class__') }}",
        "{{ [x] | map(attribute='__class__') | list }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ '{0.__class__}' | format(x) | int(base='__class__') }}",
        "{{ range.__globals__ }}",
        "{{ loop.__class__ }}",
        "{% for i in [1] %}{{ loop._iterator }}{% endfor %}",
        "{% for i in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
        "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ lipsum() }}",
        "{{ namespace() }}",
        "{{ joiner() }}",
        "{{ dict() }}",
        "{{ x.append(1) }}",
        "{{ x.pop() }}",
        "{{ x.clear() }}",
        "{{ d.update(a=1) }}",
        "{{ d.pop('a') }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block b %}{% endblock %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% call x() %}{% endcall %}",
        "{% for i in x recursive %}{{ loop(x) }}{% endfor %}",
        "{{ x() }}",
        "{{ 'a'() }}",
    ],
)
def test_what_a_template_must_not_reach_is_refused(text: str) -> None:
    scope = {"x": [1, 2], "d": {"a": 1}}
    refusal(text, scope)
    assert scope == {"x": [1, 2], "d": {"a": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "{{ 2 ** 10 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * 'a' }}",
        "{{ [1] * 1000000000 }}",
        "{{ ('a' * 400000) * 2 }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{{ i ~ j }}{% endfor %}{% endfor %}",
        "{{ range(1000000000) | list }}",
        "{{ range(1000000000) | sum }}",
        "{{ range(1000000000) | join }}",
        "{{ range(1000000000) }}",
        "{{ range(100000000000000000000000) | length }}",
        "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
        "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
        "{% set a = [1] %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a == a | list }}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a | tojson }}",
        "{% set a = 99999999 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
        "{{ big | replace('a', big) }}",
        "{{ big.replace('a', big) }}",
        "{{ big.join(big) }}",
        "{{ big | join(big) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a' | indent(1000000000) }}",
        "{{ [1] | slice(1000000000) | list }}",
        "{{ [1] | batch(1000000000, 0) | list }}",
        "{{ 1.5 | round(1000000000) }}",
        "{% for i in range(20000) %}{{ big }}{% endfor %}",
        "{% set x %}{% for i in range(20000) %}{{ big }}{% endfor %}{% endset %}",
        "{% for i in range(20000) %}{{ big | upper | length }}{% endfor %}",
        "{% for i in range(20000) %}{{ big.upper() | length }}{% endfor %}",
        "{% for i in range(20000) %}{{ 'b' in big }}{% endfor %}",
        "{% for i in range(20000) %}{{ big[1:] == 'x' }}{% endfor %}",
        "{% for i in range(20000) %}{{ -1 in long }}{% endfor %}",
        "{% for i in range(20000) %}{{ long | select('in', long) | list | length }}{% endfor %}",
        "{% for i in range(20000) %}{{ long | sort | length }}{% endfor %}",
        "{% for i in range(20000) %}{{ long.count(1) }}{% endfor %}",
        "{% for i in range(20000) %}{{ '%s' % long }}{% endfor %}",
        "{% for i in range(20000) %}{{ (long | string) | length }}{% endfor %}",
        "{{ [long] * 1000 | sum(start=[]) }}",
    ],
)
def test_what_would_run_or_grow_without_bound_ends_soon(text: str) -> None:
    refusal(text, {"big": "a" * 100_000, "long": list(range(20_000))})
    refusal(text, {"big": "a" * 100_000, "long": list(range(20_000))}, keep_type=True)


@pytest.mark.parametrize(
    "text",
    [
        "{{ x",
        "{% for %}",
        "{% if x %}",
        "{% nothing %}",
        "{{ x | nofilter }}",
        "{{ x is notest }}",
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{" + "[" * 500 + "1" + "]" * 500 + "}}",
        "{{ " + "-" * 3000 + "1 }}",
        "{{ a }}" * 2001,
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_valid_template_is_refused_when_compiled(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        ENGINE.compile(text, "key")
    assert caught.value.path == "key"


@pytest.mark.parametrize(
    "text",
    [
        "{{ 1 / 0 }}",
        "{{ 1 % 0 }}",
        "{{ 'a' + 1 }}",
        "{{ 'x' | fromjson }}",
        "{{ 'a'.index('b') }}",
        "{{ range() }}",
        "{{ range('a') }}",
        "{{ 'a' | round }}",
        "{{ [1, 'a'] | sort }}",
        "{{ '%d' % 'a' }}",
        "{{ 'a'.split('') }}",
        "{{ 'a'.upper(1) }}",
        "{{ range }}",
        "{{ 'a'.upper }}",
    ],
)
def test_a_failing_expression_is_a_template_error(text: str) -> None:
    assert refusal(text)


@pytest.mark.parametrize(
    ("opening", "middle", "closing"),
    [
        ("{{ x", " | upper", " }}"),
        ("{{ x", ".a", " }}"),
        ("{{ x", " + 1", " }}"),
        ("{{ x", " ~ (1 ~ 2)", " }}"),
        ("{{ x", " == (1", ")"),
        ("{{ ", "[", "]"),
        ("{{ ", "(not ", ")"),
        ("{{ ", "range(", ")"),
        ("", "{% for i in x %}", "{% endfor %}"),
        ("", "{% if x %}", "{% endif %}"),
        ("", "{% if x %}{% for i in x | list %}", "{% endfor %}{% endif %}"),
        ("", "{% if x %}a{% else %}", "{% endif %}"),
    ],
)
@pytest.mark.parametrize("keep_type", [False, True])
def test_what_inspection_passes_compiles(opening: str, middle: str, closing: str, keep_type: bool) -> None:
    accepted = 0
    for depth in range(1, 80):
        tail = closing if closing == " }}" else closing * depth if "{%" in middle else f"1{closing * depth} }}}}"
        text = opening + middle * depth + tail
        if inspect(text).mistake is None:
            ENGINE.compile(text, "key", keep_type=keep_type)
            accepted = depth
    assert accepted >= 5


def test_a_large_value_can_be_put_out_as_json() -> None:
    assert len(render("{{ x | tojson }}", {"x": {"a": "b" * 400_000}})) == 400_008


def test_a_text_that_is_too_long_to_be_kept_is_rendered_all_the_same() -> None:
    assert render("a" * 10_000 + "{{ x }}", {"x": 1}) == "a" * 10_000 + "1"
