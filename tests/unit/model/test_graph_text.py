from formicary.model.graph_text import GraphFormat, graph
from formicary.model.parse import parse_definition

TEXT = """job_type: etl
tasks:
  - {task_type: a, method: DUMMY, on_completed: b, on_exit_code: {3: FATAL}}
  - {task_type: b, method: DUMMY}
  - {task_type: c, method: DUMMY, dependencies: [b]}
  - {task_type: last, method: DUMMY, always_run: true}
"""
JOB = parse_definition(TEXT)


def test_text_lists_each_task_with_what_it_leads_to() -> None:
    assert graph(JOB) == (
        "etl\na (DUMMY)\n  3 -> FATAL\n  completed -> b\nb (DUMMY)\n  data -> c\nc (DUMMY)\nlast (DUMMY, always_run)\n"
    )


def test_mermaid_numbers_the_tasks_and_dots_the_data_edges() -> None:
    assert graph(JOB, GraphFormat.MERMAID) == (
        'flowchart TD\n  t0["a"]\n  t1["b"]\n  t2["c"]\n  t3(["last"])\n  t0 -->|"3"| s4{{"FATAL"}}\n'
        '  t0 -->|"completed"| t1\n  t1 -.-> t2\n'
    )


def test_dot_dashes_the_data_edges() -> None:
    lines = graph(JOB, "dot").splitlines()
    assert lines[0] == 'digraph "etl" {'
    assert '  "a" -> "b" [label="completed"];' in lines
    assert '  "b" -> "c" [style=dashed];' in lines
    assert lines[-1] == "}"
