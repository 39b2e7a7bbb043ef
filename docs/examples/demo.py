"""Runs the ETL example with embedded defaults in a folder of its own, and says where the result lies (`make demo`)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parent / "etl"
HOME = Path(os.environ.get("DEMO_HOME") or EXAMPLE.parents[2] / ".demo").resolve()


def run() -> subprocess.CompletedProcess[str]:
    """Runs the job: progress on stderr, the job as JSON on stdout."""
    params = ("-p", f"code={EXAMPLE}", "-p", f"python={sys.executable}")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
    return subprocess.run(
        [Path(sys.executable).parent / "formicary", "run", EXAMPLE / "etl.yaml", *params, "-o", "json"],
        env={**settings, "FORMICARY_HOME": str(HOME)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def report_of(job: dict[str, Any]) -> Path:
    """Returns where the run left the report."""
    task = next(task for task in job["tasks"] if task["task_type"] == "publish")
    name = next(artifact["name"] for artifact in task["artifacts"] if artifact["name"].endswith("report.md"))
    return HOME / "results" / job["id"] / "publish" / name


def main() -> int:
    """Runs the demo; its exit code is the job's."""
    shutil.rmtree(HOME, ignore_errors=True)
    print(f"$ formicary run docs/examples/etl/etl.yaml    (home folder: {HOME})", flush=True)
    ended = run()
    if ended.returncode != 0:
        print(f"The job did not complete (exit code {ended.returncode}); see the messages above.")
        return ended.returncode
    report = report_of(json.loads(ended.stdout))
    print(f"\n{report.read_text(encoding='utf-8')}\nThe report lies in {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
