"""Tasks that are done elsewhere: by remote workers and by services on the broker."""

import pytest

from executors.specs import MessagingSpec, WebsocketSpec
from formicary.errors import InvalidInputError
from formicary.model.definition import TaskDefinition
from formicary.model.parse import parse_definition


def task_of(keys: str) -> TaskDefinition:
    return parse_definition(f"job_type: j\ntasks:\n  - {{task_type: t, {keys}}}\n").tasks[0]


def test_a_task_for_a_worker_names_it_and_sends_its_payload_or_the_tasks_variables() -> None:
    given = task_of("method: WEBSOCKET, worker: {method: cut, tags: [gpu]}, payload: ['{{ a }}', 1]")
    assert given.spec == WebsocketSpec(worker_method="cut", worker_tags=("gpu",), payload=["{{ a }}", 1])
    bare = task_of("method: WEBSOCKET, worker: {method: cut}, variables: {a: '{{ b }}'}")
    assert bare.spec == WebsocketSpec(worker_method="cut", payload={"a": "{{ a }}"})


def test_a_request_over_the_broker_sends_its_body_or_the_tasks_variables() -> None:
    keys = "topic: a.b, reply_topic: 'c-{{ d }}', key: '{{ k }}', headers: {n: 1}, body: {x: '{{ y }}'}"
    assert task_of(f"method: MESSAGING, {keys}").spec == MessagingSpec(
        topic="a.b", reply_topic="c-{{ d }}", key="{{ k }}", headers={"n": "1"}, body={"x": "{{ y }}"}
    )
    bare = task_of("method: MESSAGING, topic: a, variables: {n: 1}")
    assert bare.spec == MessagingSpec(topic="a", body={"n": 1})


@pytest.mark.parametrize("topic", ["formicary.results.1", "a/b", "''"])
def test_a_topic_that_no_task_may_use_is_a_mistake(topic: str) -> None:
    with pytest.raises(InvalidInputError, match="is no valid value; use letters, digits"):
        task_of(f"method: MESSAGING, topic: {topic}")


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ("payload: 1", 'the key "worker" is missing'),
        ("worker: {tags: [gpu]}", 'the key "method" is missing'),
        ("worker: {method: cut, tag: gpu}", 'unknown key "tag" in worker'),
        ("worker: {method: '{{ cut }}'}", "is no valid name"),
    ],
)
def test_a_task_for_no_clear_worker_is_a_mistake(keys: str, mistake: str) -> None:
    with pytest.raises(InvalidInputError, match=mistake):
        task_of(f"method: WEBSOCKET, {keys}")
