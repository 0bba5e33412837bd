"""Outputs appear whole or not at all, in place of what was there or not."""

import os
from pathlib import Path

import pytest

from siglip_jax.weights import staging
from siglip_jax.weights.staging import exchange, move_new, staged


def test_a_file_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), staged(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with staged(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    folder = tmp_path / "model"
    for number in range(2):
        with staged(folder) as temporary:
            temporary.mkdir()
            (temporary / f"{number}.txt").touch()
    assert [path.name for path in folder.iterdir()] == ["1.txt"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_must_not_be_replaced(tmp_path):
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(ValueError, match=r"model exists already; choose another name or remove it"),
        staged(tmp_path / "model", replace=False),
    ):
        pytest.fail("the block must not run")
    with (
        pytest.raises(ValueError, match=r"the folder .*nowhere does not exist"),
        staged(tmp_path / "nowhere" / "model"),
    ):
        pytest.fail("the block must not run")


def test_durable_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.txt", []

    def fsync(handle):
        seen.append((Path(f"/proc/self/fd/{handle}").readlink().name, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with staged(path) as temporary:
        temporary.touch()
    assert seen == []
    path.unlink()
    with staged(path, durable=True) as temporary:
        temporary.touch()
    assert seen == [(temporary.name, False), (tmp_path.name, True)]


@pytest.mark.parametrize("system", [True, False], ids=["one step", "several"])
def test_names_change_hands(tmp_path, monkeypatch, system):
    """Where the system has no renameat2, too."""
    if not system:
        monkeypatch.setattr(staging, "_renamed", lambda *_: False)
    file, folder, free = tmp_path / "file", tmp_path / "folder", tmp_path / "free"
    file.write_text("a")
    folder.mkdir()
    exchange(file, folder)
    assert file.is_dir() and folder.read_text() == "a"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    with pytest.raises(FileExistsError):
        move_new(folder, file)
    assert file.is_dir() and folder.read_text() == "a"
    move_new(folder, free)
    assert free.read_text() == "a" and not folder.exists()


def test_a_name_that_is_taken_meanwhile(tmp_path):
    path = tmp_path / "model"
    with (
        pytest.raises(ValueError, match="model has appeared meanwhile"),
        staged(path, replace=False) as temporary,
    ):
        temporary.mkdir()
        path.write_text("mine")
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]
