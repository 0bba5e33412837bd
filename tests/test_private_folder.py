"""What is run is read from folders that only their user can have written."""

import os

import pytest

from siglip_jax.private_folder import make_private, opened, why_shared


def mode(path):
    return path.stat().st_mode & 0o777


def test_a_new_folder_is_closed_whatever_the_umask_and_those_above_are_not(tmp_path):
    before = os.umask(0o002)
    try:
        assert make_private(tmp_path / "home" / "compiled") is None
    finally:
        os.umask(before)
    assert mode(tmp_path / "home" / "compiled") == 0o700
    assert mode(tmp_path / "home") == 0o775


def test_one_that_others_could_only_read_is_closed(tmp_path):
    tmp_path.chmod(0o755)
    assert make_private(tmp_path) is None
    assert mode(tmp_path) == 0o700


@pytest.mark.parametrize("rights", [0o770, 0o775, 0o777, 0o702])
def test_one_that_others_could_write_is_named(tmp_path, rights):
    tmp_path.chmod(rights)
    assert make_private(tmp_path) == (
        f"{tmp_path} can be written by other users (mode {rights:o}); chmod 700 it, or remove it"
    )
    assert mode(tmp_path) == rights  # what it holds may be theirs: closing it would hide that


@pytest.mark.parametrize("what", ["folder", "file"])
def test_another_users(monkeypatch, tmp_path, what):
    path = tmp_path / what
    path.mkdir() if what == "folder" else path.touch(0o600)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with opened(path) as handle:
        assert why_shared(path, handle) == f"{path} belongs to another user (uid {uid}); remove it"


def test_files(tmp_path):
    path = tmp_path / "file"
    path.touch(0o644)
    with opened(path) as handle:
        assert why_shared(path, handle) is None
    path.chmod(0o664)
    with opened(path) as handle:
        assert "can be written by other users (mode 664); chmod 600 it" in why_shared(path, handle)
    path.unlink()
    os.mkfifo(path)
    with opened(path) as handle:  # returns at once
        assert why_shared(path, handle) == f"{path} is no regular file; remove it"
