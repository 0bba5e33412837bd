"""Downloads from a server of this process: cut off, resumed, checked."""

import hashlib
import threading

import pytest
import storage_server

from siglip_jax.download import check_cached, download

DATA, storage = storage_server.DATA, storage_server.storage


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_checked(storage, tmp_path):
    seen = []
    digest = download(storage[1], tmp_path / "m", lambda *numbers: seen.append(numbers))
    assert (tmp_path / "m").read_bytes() == DATA and names(tmp_path) == ["m"]
    assert digest == f"md5:{hashlib.md5(DATA).hexdigest()}"
    assert seen[-1] == (len(DATA), len(DATA))


def test_what_is_cut_off_goes_on_at_once(storage, tmp_path):
    server, url = storage
    server.hang_up[:] = [1_500_000, 1_500_000]
    seen = []
    download(url, tmp_path / "m", lambda *numbers: seen.append(numbers))
    assert (tmp_path / "m").read_bytes() == DATA and names(tmp_path) == ["m"]
    first, second, third = server.ranges
    assert first == 0 < second < third < len(DATA)
    assert {total for _, total in seen} == {len(DATA)}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def interrupted(url, target):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(url, target, stop)
    assert not target.exists()


def test_what_is_interrupted_goes_on_another_time(storage, tmp_path):
    server, url = storage
    interrupted(url, tmp_path / "m")
    download(url, tmp_path / "m")
    assert server.ranges[0] == 0 < server.ranges[1]
    assert (tmp_path / "m").read_bytes() == DATA and names(tmp_path) == ["m"]


def test_another_version_is_begun_anew(storage, tmp_path):
    server, url = storage
    interrupted(url, tmp_path / "m")
    server.data, server.etag, server.md5 = DATA[::-1], '"2"', None
    assert download(url, tmp_path / "m") is None
    assert (tmp_path / "m").read_bytes() == DATA[::-1]


def test_more_than_there_is_is_begun_anew(storage, tmp_path):
    server, url = storage
    (tmp_path / ".m.part").write_bytes(DATA + b"more")
    (tmp_path / ".m.part.version").write_text(server.etag)
    download(url, tmp_path / "m")
    assert server.ranges == [len(DATA) + 4, 0]
    assert (tmp_path / "m").read_bytes() == DATA


def test_damage_is_noticed_and_nothing_is_kept(storage, tmp_path):
    server, url = storage
    server.data = b"x" + DATA[1:]
    with pytest.raises(OSError, match=r"its md5 is \w{32}, not \w{32} as the server states"):
        download(url, tmp_path / "m")
    assert names(tmp_path) == []
    # In what was there before, too.
    server.data = DATA
    interrupted(url, tmp_path / "m")
    part = tmp_path / ".m.part"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(OSError, match="its md5 is"):
        download(url, tmp_path / "m")
    assert names(tmp_path) == []


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_version_nothing_is_resumed(storage, tmp_path, etag):
    server, url = storage
    server.etag, server.hang_up[:] = etag, [1_500_000]
    with pytest.raises(OSError):
        download(url, tmp_path / "m")
    assert names(tmp_path) == [] and server.ranges == [0]


def test_two_at_a_time_are_one(storage, tmp_path):
    server, url = storage
    threads = [threading.Thread(target=download, args=(url, tmp_path / "m")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (tmp_path / "m").read_bytes() == DATA and names(tmp_path) == ["m"]
    assert len(server.ranges) == 1


def test_large_files_of_the_hubs_cache_are_called_by_their_digest(tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "01ab", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    digest = hashlib.sha256(DATA).hexdigest()
    (blobs / digest).write_bytes(DATA)
    (snapshot / "model.safetensors").symlink_to(blobs / digest)
    (blobs / ("1" * 40)).write_text("{}")
    (snapshot / "config.json").symlink_to(blobs / ("1" * 40))
    assert check_cached(snapshot / "config.json") is None
    assert check_cached(snapshot / "model.safetensors") == f"sha256:{digest}"
    (blobs / digest).write_bytes(DATA[1:])
    with pytest.raises(OSError, match=rf"its sha256 is \w+, not {digest} as the hub states"):
        check_cached(snapshot / "model.safetensors")
    assert not (snapshot / "model.safetensors").exists()  # so that it is fetched again
