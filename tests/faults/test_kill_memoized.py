"""``kill -9`` of a colony whose tasks take results of earlier runs."""

from pathlib import Path
from typing import Any

JOB = """
job_type: remembered
tasks:
  - task_type: extract
    method: SHELL
    memoize: {{key: always}}
    script: ["echo run >> {ledger}", "echo rows > rows.txt"]
    artifacts: {{paths: [rows.txt]}}
  - task_type: load
    method: SHELL
    dependencies: [extract]
    script: ["echo load >> {ledger}", "while [ ! -e {gate} ]; do sleep 0.02; done", "cat rows.txt"]
"""


def test_results_and_what_took_them_survive_a_kill(up: Any, tmp_path: Path) -> None:
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    source = JOB.format(ledger=ledger, gate=gate)
    gate.touch()
    up.start()
    first = up.job(up.submit(source), wait_s=60)
    assert first["state"] == "COMPLETED"
    up.kill()

    gate.unlink()
    up.start()
    job_id = up.submit(source)
    up.until(lambda: ledger.read_text().count("load") == 2, "the second job goes on with what it took")
    up.kill()
    gate.touch()
    up.start()

    second = up.job(job_id, wait_s=60)
    assert second["state"] == "COMPLETED"
    assert second["tasks"][0]["reused_from"] == {"job_id": first["id"], "task_type": "extract", "attempt": 1}
    assert ledger.read_text().count("run") == 1
