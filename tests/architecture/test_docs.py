"""What the documents say exists, exists; what exists is said."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from formicary.errors import InvalidInputError
from formicary.model.parse import parse_definition
from formicary.settings import VARIABLES

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*/*.yaml"))
SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for package in ("formicary", "brokers", "executors")
    for path in sorted((ROOT / package).rglob("*.py"))
)
VARIABLE = re.compile(r"\bFORMICARY_[A-Z0-9_]*[A-Z0-9]\b")
NOT_YET = "not supported yet"


class Block(NamedTuple):
    """A fenced block: where it begins and what it holds."""

    place: str
    language: str
    text: str


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks() -> Iterator[Block]:
    fence = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for match in fence.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(f"{name(path)}:{line}", match[1], match[2])


BLOCKS = list(blocks())
JOBS = [block for block in BLOCKS if block.language == "yaml" and block.text.startswith(("job_type:", "#"))]


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_metric_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    defined = set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(formicary_\w+)"', SOURCE))
    documented = {name.removesuffix("_total") for name in re.findall(r"`(formicary_\w+?)(?:\{\w+\})?`", text)}

    assert len(defined) > 10
    assert documented == defined


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [variable.name for variable in VARIABLES if f"`{variable.name}`" not in text] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_variable_named_exists(path: Path) -> None:
    named = {
        variable
        for line in path.read_text(encoding="utf-8").splitlines()
        if NOT_YET not in line.lower()
        for variable in VARIABLE.findall(line)
    }
    assert sorted(variable for variable in named if variable not in SOURCE) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (path.parent / file).resolve() if file else path
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            dead.append(target)
    assert dead == []


def test_every_page_is_linked_from_the_readme_or_from_another_page() -> None:
    linked = {
        (path.parent / target.partition("#")[0]).resolve()
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^):\s]+\.md[^)\s]*)\)", path.read_text(encoding="utf-8"))
    }
    pages = {path for path in DOCUMENTS if path.parent != ROOT}
    assert sorted(name(path) for path in pages - linked) == []


def test_there_are_jobs_to_check() -> None:
    assert len(JOBS) >= 2
    assert len(EXAMPLES) > 5


@pytest.mark.parametrize("block", JOBS, ids=lambda block: block.place)
def test_every_job_in_a_document_parses(block: Block) -> None:
    parse_definition(block.text, file=block.place)


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_every_example_parses_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    parse_definition(text, file=name(path))
    assert text.startswith("# ")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml" and b not in JOBS], ids=lambda b: b.place)
def test_every_fragment_of_a_job_parses_inside_one(block: Block) -> None:
    body = "".join(f"  {line}\n" if line else "\n" for line in block.text.splitlines())
    try:
        parse_definition(f"job_type: fragment\ntasks:\n{body}", file=block.place)
    except InvalidInputError as error:
        mistakes = [problem.message for problem in error.problems if "no task" not in problem.message]
        assert mistakes == []


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    pattern = re.compile(r"(?:`|^\$ |^)make ([a-z]+)", re.MULTILINE)
    named = {target for path in DOCUMENTS for target in pattern.findall(path.read_text(encoding="utf-8"))}
    assert {"demo", "test"} <= named
    assert sorted(named - targets) == []
