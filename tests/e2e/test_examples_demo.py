"""What `make demo` runs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_ends_by_saying_where_its_report_lies(home: Path) -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / "demo.py"],
        env=os.environ | {"DEMO_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    words, _, report = ended.stdout.splitlines()[-1].rpartition(" ")
    assert words == "The report lies in"
    assert "99334 of 100000 orders" in Path(report).read_text(encoding="utf-8")


def test_make_demo_runs_it() -> None:
    ended = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.stdout.splitlines()[-1].endswith("python docs/examples/demo.py")
