"""Which files a task leaves, and that none of them lies elsewhere."""

from pathlib import Path

import pytest

from formicary.ant.errors import TransferError
from formicary.ant.globs import check_name, compile_pattern, select_files


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a.csv", ["a.csv"], ["b/a.csv", "aXcsv"]),
        ("*.csv", ["a.csv", ".csv"], ["b/a.csv"]),
        ("**/*.csv", ["a.csv", "b/a.csv", "b/c/a.csv"], ["a.txt"]),
        ("out", ["out", "out/a", "out/b/c"], ["output", "x/out"]),
        ("./out/", ["out/a"], ["x/out/a"]),
        ("out/**", ["out/a", "out/b/c"], ["x/a"]),
        ("[ab]?.txt", ["ax.txt", "b1.txt"], ["cx.txt", "a/.txt"]),
        ("[!a].txt", ["b.txt"], ["a.txt"]),
        ("a[b", ["a[b"], ["ab"]),
        (".", ["a", "b/c"], []),
    ],
)
def test_a_pattern_selects(pattern: str, matching: list[str], others: list[str]) -> None:
    regex = compile_pattern(pattern)
    assert [name for name in matching + others if regex.fullmatch(name)] == matching


@pytest.mark.parametrize("pattern", ["", "/etc/passwd", "../up", "a/../../b", ".."])
def test_a_pattern_that_leaves_the_folder_is_refused(pattern: str) -> None:
    with pytest.raises(TransferError, match="inside the working directory"):
        compile_pattern(pattern)


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/..", "./a", "a\0b", "x" * 1025, "\udcff"])
def test_a_name_that_climbs_or_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(TransferError):
        check_name(name)


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_a_folder_means_all_files_under_it_but_the_excluded(tmp_path: Path) -> None:
    work = tree(tmp_path, "out/a", "out/b/c", "out/tmp/d", "other")
    files, unmatched = select_files(work, ["out", "missing/*"], ["out/tmp"])
    assert (list(files), unmatched) == (["out/a", "out/b/c"], ["missing/*"])


def test_a_symlink_inside_is_read_through(tmp_path: Path) -> None:
    work = tree(tmp_path / "w", "v1/a")
    (work / "latest").symlink_to("v1")
    (work / "one").symlink_to("v1/a")
    files, _ = select_files(work, ["latest", "one"], [])
    assert {name: path.read_text() for name, path in files.items()} == {"latest/a": "v1/a", "one": "v1/a"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "/etc", "v1/../../secret"])
def test_a_symlink_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    tree(tmp_path, "secret")
    work = tree(tmp_path / "w", "v1/a")
    (work / "link").symlink_to(target)
    with pytest.raises(TransferError, match="out of the working directory"):
        select_files(work, ["link"], [])


def test_a_symlink_that_no_pattern_selects_harms_nobody(tmp_path: Path) -> None:
    work = tree(tmp_path, "a")
    (work / "link").symlink_to("/etc/passwd")
    assert list(select_files(work, ["a"], [])[0]) == ["a"]


def test_symlinks_in_a_circle_end(tmp_path: Path) -> None:
    work = tree(tmp_path, "d/a")
    (work / "d/loop").symlink_to("..")
    files, _ = select_files(work, ["d/a"], [])
    assert list(files) == ["d/a"]


@pytest.mark.parametrize("target", ["link", "missing"])
def test_a_symlink_that_leads_nowhere_is_refused(tmp_path: Path, target: str) -> None:
    work = tree(tmp_path, "a")
    (work / "link").symlink_to(target)
    with pytest.raises(TransferError, match="leads nowhere"):
        select_files(work, ["link"], [])
