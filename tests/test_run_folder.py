"""A folder belongs to one run or job, and is made for it or refused in one line."""

import pytest

from siglip_jax.run_folder import claim_record, differences, locked, make_run_folder


def test_a_folder_is_made_refused_or_known(tmp_path):
    folder = tmp_path / "a" / "b"
    assert not make_run_folder(folder, "record.json", "run")
    (folder / ".lock").touch()  # no reason to refuse
    assert not make_run_folder(folder, "record.json", "run")
    (folder / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"b is not empty and holds no run; choose another folder"):
        make_run_folder(folder, "record.json", "run")
    (folder / "record.json").touch()
    assert make_run_folder(folder, "record.json", "run")
    with pytest.raises(ValueError, match=r"notes.txt is a file; choose a folder$"):
        make_run_folder(folder / "notes.txt", "record.json", "run")
    with pytest.raises(ValueError, match=r"notes.txt/below cannot be made: Not a directory$"):
        make_run_folder(folder / "notes.txt" / "below", "record.json", "run")


def test_a_record_is_written_once(tmp_path):
    path = tmp_path / "record.json"
    assert not claim_record(path, lambda: path.write_text("first"))
    assert claim_record(path, lambda: path.write_text("second"))
    assert path.read_text() == "first"


def test_differences_are_of_json(tmp_path):
    # A tuple is a list once it is read again.
    assert differences({"a": [1, 2]}, {"a": (1, 2)}) == []
    (one,) = differences({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}, free=("c",))
    assert str(one) == "a.b is 1 there and 2 here"


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_refused_before_it_wrote_leaves_nothing(tmp_path, shared):
    folder = tmp_path / "a" / "b"
    make_run_folder(folder, "record.json", "job")
    with pytest.raises(ValueError, match="no such model"), locked(folder, shared=shared):
        raise ValueError("no such model")
    assert list(tmp_path.iterdir()) == []
    # A folder that was there stays, and so does what is in use or has been written.
    folder.mkdir(parents=True)
    make_run_folder(folder, "record.json", "job")
    with pytest.raises(ValueError), locked(folder, shared=True):
        if shared:
            with pytest.raises(ValueError), locked(folder, shared=True):
                raise ValueError
            assert (folder / ".lock").exists()
        raise ValueError
    assert list(folder.iterdir()) == []
    with pytest.raises(ValueError), locked(folder, shared=shared):
        (folder / "record.json").touch()
        raise ValueError
    assert {entry.name for entry in folder.iterdir()} == {".lock", "record.json"}
