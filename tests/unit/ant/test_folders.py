"""Folders of attempts: fresh, lazy, gone afterwards."""

from pathlib import Path

from formicary.ant.folders import Folders


def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "work")
    folders.open()
    folder = folders.fresh()
    folder.remove()
    assert list((tmp_path / "work").iterdir()) == []
    assert folder.path().is_dir()
    assert folder.result_dir.is_dir()
    assert list(folder.path().iterdir()) == []


def test_two_attempts_never_share_a_folder(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    assert len({folders.fresh().root for _ in range(100)} | {Folders(tmp_path).fresh().root}) == 101


def test_a_removal_takes_what_was_made_unwritable_and_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = Folders(tmp_path / "work").fresh()
    work = folder.path()
    (work / "link").symlink_to(outside)
    (work / "locked").mkdir()
    (work / "locked/file").write_text("x")
    (work / "locked").chmod(0)
    folder.remove()
    folder.remove()
    assert not Path(folder.root).exists()
    assert (outside / "kept").exists()


def test_leftovers_of_a_dead_ant_are_removed_at_the_start(tmp_path: Path) -> None:
    Folders(tmp_path / "work").fresh().path()
    Folders(tmp_path / "work").open()
    assert list((tmp_path / "work").iterdir()) == []
