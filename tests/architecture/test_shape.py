"""Rules on source files that no linter has."""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("formicary", "brokers", "executors")
MAX_LINES = 400

SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tokens(path: Path, *kinds: int) -> Iterator[str]:
    """Yields the tokens of a file that are of these kinds."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in kinds:
                yield token.string


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_a_file_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_nothing_is_left_to_do(path: Path) -> None:
    banned = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
    assert [token for token in tokens(path, tokenize.NAME, tokenize.COMMENT) if banned.search(token)] == []


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_tests_use_the_real_thing_and_hide_nothing(path: Path) -> None:
    code = "".join(f" {token}" if token.isidentifier() else token for token in tokens(path, tokenize.NAME, tokenize.OP))
    # A skip with a condition (skipif) says what it depends on; one inside a test may hide a missing server.
    banned = re.compile(r"\b(?:mock|Mock|MagicMock|AsyncMock|xfail|importorskip)\b|pytest\. skip\(|mark\. skip\b")
    assert banned.findall(code) == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_module_says_what_it_is(path: Path) -> None:
    first = path.read_text(encoding="utf-8").lstrip().splitlines()[:1]
    assert first
    assert first[0].startswith(('"""', 'r"""'))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
