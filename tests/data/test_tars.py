"""Pairs from webdataset tars."""

import io
import json
import pickle
import tarfile

import pytest
from pair_files import captions, png, samples, write_tar

from siglip_jax.data import captions_of, open_pairs


def members(count=3, start=0):
    made = []
    for key, image, texts in samples(start + count)[start:]:
        made += [(f"{key}.png", image), (f"{key}.txt", "\n".join(texts).encode())]
    return made


def test_shards_by_braces_pattern_and_folder(tmp_path):
    for shard in range(3):
        write_tar(tmp_path / f"s-{shard:04d}.tar", members(3, 3 * shard))
    for source in ("", "s-{0000..0002}.tar", "s-*.tar"):
        pairs = open_pairs(str(tmp_path / source))
        assert [pairs[n] for n in range(len(pairs))] == [*map(tuple, samples(9))]
    assert len(open_pairs(str(tmp_path / "s-{0001..0002}.tar"))) == 6
    copy = pickle.loads(pickle.dumps(pairs))
    assert copy[7] == pairs[7]
    assert copy.identity() == pairs.identity()


def test_what_webdataset_writes(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for key, image, texts in samples(3):
            # Its images are bytes already, its .json a dict.
            writer.write({"__key__": f"inside/{key}", "png": image, "json": {"caption": texts}})
        writer.write({"__key__": "last", "jpg": png(9), "txt": "a dog"})
    pairs = open_pairs(str(tmp_path / "w.tar"))
    assert pairs[2] == ("inside/0002", png(2), captions(2))
    assert pairs[3] == ("last", png(9), ("a dog",))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_a_pair_after_members_of_any_size(tmp_path, size):
    first = ("a.cls", b"x" * size)
    write_tar(tmp_path / "a.tar", [first, *members(2), ("z.cls", b"y")])
    assert open_pairs(str(tmp_path / "a.tar"))[1].image == png(1)


def test_long_names_folders_and_files_of_no_interest(tmp_path):
    key = "x" * 150 + "/" + "y" * 120
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("some.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    for name, data in [
        (f"{key}.seg.png", png(5)),
        (f"{key}.PNG", png(1)),
        (f"{key}.txt", b"ein Hund\n\n eine Katze \n"),
        ("._hidden.png", b""),
        ("README", b""),
    ]:
        with tarfile.open(path, "a") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    pairs = open_pairs(str(path))
    assert len(pairs) == 1
    assert pairs[0] == (key, png(1), ("ein Hund", "eine Katze"))
    assert open_pairs(str(path), image="seg.png")[0].image == png(5)


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        ({"caption": "a dog"}, None, ("a dog",)),
        ({"captions": ["a dog", "", "a cat"]}, None, ("a dog", "a cat")),
        ({"caption": "", "captions": ["a cat"]}, None, ("a cat",)),
        ({"caption": "a dog", "alt": ["x", "y"]}, "alt", ("x", "y")),
    ],
)
def test_captions_in_json(tmp_path, content, name, expected):
    path = write_tar(
        tmp_path / "a.tar", [("1.jpg", b"?"), ("1.json", json.dumps(content).encode())]
    )
    assert captions_of(open_pairs(str(path), caption=name)) == [expected]


def test_a_text_goes_before_json_unless_a_key_is_named(tmp_path):
    made = [("1.jpg", b"?"), ("1.json", b'{"caption": "json"}'), ("1.txt", b"text")]
    path = str(write_tar(tmp_path / "a.tar", made))
    assert open_pairs(path)[0].captions == ("text",)
    assert open_pairs(path, caption="caption")[0].captions == ("json",)
    assert open_pairs(path).identity() != open_pairs(path, caption="caption").identity()


def test_every_truncation_is_an_error_or_loses_nothing(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", members(3)).read_bytes()
    end = 512 * 12  # three pairs of two members, each a header and its padded content
    assert not any(whole[end:]) and any(whole[end - 512 : end])
    cut = tmp_path / "cut.tar"
    refused = []
    for length in [*range(100, end, 412), end, end + 512, len(whole)]:
        cut.write_bytes(whole[:length])
        try:
            pairs = open_pairs(str(cut))
        except ValueError as error:
            assert "\n" not in str(error)
            refused.append(length)
        else:
            # A tar without its last mark, cut between pairs, is whole as far as it goes.
            assert length >= end or length % 1024 == 0
            assert [pairs[n].image for n in range(len(pairs))] == [
                png(n) for n in range(len(pairs))
            ]
    assert len(refused) > 10


def test_a_truncated_tar_names_shard_and_member(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(3))
    whole = path.read_bytes()
    place = whole.index(png(1))
    path.write_bytes(whole[: place + 20])
    with pytest.raises(
        ValueError, match=r"a\.tar: truncated or damaged after 0001\.png: unexpected end of data$"
    ):
        open_pairs(str(path))
    # tarfile itself takes this for the end of the archive.
    path.write_bytes(whole[: place - 512] + b"\xff" * 512 + whole[place:])
    with pytest.raises(
        ValueError, match=r"a\.tar: truncated or damaged after 0000\.txt: no valid header$"
    ):
        open_pairs(str(path))
    path.write_bytes(whole[: place - 100])
    with pytest.raises(ValueError, match=r"after 0000\.txt: no valid header$"):
        open_pairs(str(path))
    path.write_bytes(b"no tar at all")
    with pytest.raises(ValueError, match=r"a\.tar: truncated or damaged after its beginning: "):
        open_pairs(str(path))


def test_a_tar_that_shrank_after_it_was_opened(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(3))
    pairs = open_pairs(str(path))
    path.write_bytes(path.read_bytes()[:1600])
    assert pairs[0].image == png(0)
    with pytest.raises(ValueError, match=r"a\.tar: 0002: the file has become shorter"):
        pairs[2]
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.tar: 0000: cannot be read: No such file"):
        pairs[0]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            [*members(2), ("a.png", b"?"), ("b.png", b"?"), ("b.txt", b" \n")],
            r"a\.tar: 2 of 4 pairs have no caption: a, b; add what is missing or leave these out$",
        ),
        (
            [*members(1), ("a.txt", b"a dog")],
            r"a\.tar: 1 of 2 pairs have no image \(\.jpg, \.jpeg, \.png, \.webp\): a; ",
        ),
        ([("a.cls", b"1")], r"a\.tar: there are no images \(\.jpg, \.jpeg, \.png, \.webp\) in it$"),
        ([*members(1), *members(1)], r"a\.tar: 0000\.png is in it twice$"),
        ([("1.jpg", b"?"), ("1.json", b"{")], r"a\.tar: 1: its caption cannot be read: "),
        ([("1.jpg", b"?"), ("1.json", b"[]")], r"1: its \.json must hold an object, got list$"),
        ([("1.jpg", b"?"), ("1.txt", b"\xff")], r"1: its caption cannot be read: 'utf-8' codec"),
    ],
)
def test_bad_members(tmp_path, made, message):
    path = write_tar(tmp_path / "a.tar", made)
    with pytest.raises(ValueError, match=message):
        open_pairs(str(path))
