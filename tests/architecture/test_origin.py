"""A foreign package under one of our names is told at the start, not by a puzzling ImportError."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from formicary._origin import COMPANIONS, check_packages

FORMICARY = Path(sys.executable).parent / "formicary"


def test_our_own_packages_are_accepted() -> None:
    check_packages()


@pytest.mark.parametrize("name", COMPANIONS)
def test_a_foreign_package_found_first_is_named(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / name
    foreign.mkdir()
    (foreign / "__init__.py").write_text("", encoding="utf-8")
    ended = subprocess.run(
        [FORMICARY, "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 2
    assert f"another package named {name} is found first: {foreign}" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
