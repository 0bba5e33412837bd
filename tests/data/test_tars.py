"""Webdataset tars, from front to back and at any place."""

import gzip
import io
import json
import pickle
import tarfile

import pytest
from job_inputs import items
from pair_files import captions, png, samples, write_tar

from siglip_jax.data import captions_of, open_items, open_pairs


def members(count=3, start=0):
    made = []
    for key, image, texts in samples(start + count)[start:]:
        made += [(f"{key}.png", image), (f"{key}.txt", "\n".join(texts).encode())]
    return made


@pytest.fixture
def shards(tmp_path):
    for shard in range(3):
        write_tar(tmp_path / f"s-{shard:04d}.tar", members(3, 3 * shard))
    return tmp_path


@pytest.mark.parametrize("spec", ["", "/s-{0000..0002}.tar", "/s-*.tar"])
def test_shards_by_folder_braces_and_pattern(shards, spec):
    source = open_items([f"{shards}{spec}"])
    assert [shard.name for shard in source.shards()] == [f"s-{n:04d}.tar" for n in range(3)]
    assert items(source) == [
        (f"s-{n // 3:04d}.tar/{key}", image, texts[0], None)
        for n, (key, image, texts) in enumerate(samples(9))
    ]
    copy = pickle.loads(pickle.dumps(source))
    assert list(copy.read(1)) == list(source.read(1))
    assert copy.identity() == source.identity()
    wanted = {"s-0001.tar/0004"}
    assert [item.key for item in source.read(1, keys=wanted)] == [*wanted]
    pairs = open_pairs(f"{shards}{spec}")
    expected = [
        (f"s-{n // 3:04d}.tar/{key}", image, texts)
        for n, (key, image, texts) in enumerate(samples(9))
    ]
    assert [pairs[n] for n in reversed(range(9))] == expected[::-1]
    copy = pickle.loads(pickle.dumps(pairs))
    assert copy[7] == expected[7]
    assert copy.identity() == pairs.identity()


def test_only_images_and_every_text(shards):
    images = items(open_items([str(shards)], only="images"))
    assert [item.text for item in images] == [None] * 9
    assert images[4].image == png(4)
    texts = items(open_items([str(shards)], only="texts"))
    assert [(item.key, item.text) for item in texts[:3]] == [
        ("s-0000.tar/0000", "dog 0"),
        ("s-0000.tar/0000/2", "cat 0"),
        ("s-0000.tar/0001", "dog 1"),
    ]
    assert len(texts) == 18
    assert all(item.image is None for item in texts)


@pytest.mark.parametrize("name", ["w.tar", "w.tar.gz"])
def test_what_webdataset_writes(tmp_path, name):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / name)) as writer:
        for key, image, texts in samples(3):
            writer.write({"__key__": f"in/{key}", "png": image, "json": {"caption": texts}})
        writer.write({"__key__": "last", "jpg": png(9), "txt": "a dog", "cls": 3})
    found = items(open_items([str(tmp_path / name)]))
    assert found[2] == (f"{name}/in/0002", png(2), captions(2)[0], None)
    assert found[3] == (f"{name}/last", png(9), "a dog", None)
    if name.endswith(".gz"):
        message = r"w\.tar\.gz: a compressed tar has no random access; decompress it \(images"
        with pytest.raises(ValueError, match=message):
            open_pairs(str(tmp_path / name))
    else:
        pairs = open_pairs(str(tmp_path / name))
        assert pairs[2] == (f"{name}/in/0002", png(2), captions(2))
        assert pairs[3] == (f"{name}/last", png(9), ("a dog",))


@pytest.mark.parametrize("compressed", ["gz", "bz2", "xz"])
def test_compressed(tmp_path, compressed):
    path = write_tar(tmp_path / "a.tar", members(5))
    with tarfile.open(tmp_path / f"b.tar.{compressed}", f"w:{compressed}") as tar:
        for name, data in members(5):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    plain, other = (items(open_items([str(p)])) for p in (path, tar.name))
    assert [item[1:] for item in other] == [item[1:] for item in plain]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 20])
def test_a_picture_after_members_of_any_size(tmp_path, size):
    large = [("a.cls", b"x" * size), ("b.png", b"x" * (size or 1)), *members(2), ("z.cls", b"y")]
    path = write_tar(tmp_path / "a.tar", large)
    for packed in (path, tmp_path / "a.tar.gz"):
        if packed != path:
            packed.write_bytes(gzip.compress(path.read_bytes()))
        found = items(open_items([str(packed)]))
        assert [item.error and item.key for item in found] == [
            f"{packed.name}/a",
            None,
            None,
            None,
            f"{packed.name}/z",
        ]
        assert [len(item.image) for item in found[1:4]] == [size or 1, len(png(0)), len(png(1))]


def test_long_names_folders_other_endings_and_repeats(tmp_path):
    path = tmp_path / "a.tar"
    key = "x" * 150 + "/" + "y" * 120
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("some.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in [
            (f"{key}.seg.png", png(5)),
            (f"{key}.PNG", png(1)),
            (f"{key}.json", b'{"alt": "ein Hund"}'),
            ("._hidden.png", b""),
            ("README", b""),
            ("again.png", png(2)),
            ("other.png", png(3)),
            ("again.png", png(4)),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = items(open_items([str(path)], text_column="alt"))
    names = [key, "README", "again", "other", "again#2"]
    assert [item.key for item in found] == [f"a.tar/{name}" for name in names]
    assert found[0][1:3] == (png(1), "ein Hund")
    assert found[4].image == png(4)
    assert found[1].error == (
        "a.tar/README: there is no image (.jpg, .jpeg, .png, .webp), but a name without ending"
    )
    assert items(open_items([str(path)], image_column="seg.png"))[0].image == png(5)
    with pytest.raises(ValueError, match=r"a\.tar: again\.png is in it twice$"):
        open_pairs(str(path), text_column="alt")


def test_a_sample_that_is_there_twice_in_a_row_is_two(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("0.png", png(0)), ("0.png", png(1)), ("0.txt", b"b")])
    assert items(open_items([str(path)])) == [
        ("a.tar/0", png(0), None, None),
        ("a.tar/0#2", png(1), "b", None),
    ]


def test_samples_that_lack_something(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("0.png", png(0)),
            ("1.txt", b"a dog"),
            ("2.png", b""),
            ("3.png", png(3)),
            ("3.json", b"{"),
            ("4.png", png(4)),
            ("4.json", b"[1]"),
        ],
    )
    found = items(open_items([str(path)]))
    assert found[0] == ("a.tar/0", png(0), None, None)
    assert found[1] == ("a.tar/1", None, "a dog", None)
    assert [item.error for item in found[2:]] == [
        "a.tar/2: there is no image (.jpg, .jpeg, .png, .webp), but .png",
        "a.tar/3: its text cannot be read: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)",
        "a.tar/4: its text cannot be read: the .json must hold an object, got list",
    ]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("keep", [600, *range(768, 5376, 256), 9728])
def test_a_tar_cut_off_anywhere(tmp_path, keep, compressed):
    """What is whole comes out, then one error, whichever byte is the last."""
    (tmp_path / "t").mkdir()
    whole = write_tar(tmp_path / "t" / "a.tar", [(f"{n}.png", png(n)) for n in range(4)])
    data = whole.read_bytes()
    expected = items(open_items([str(whole)]))
    end = 4 * (512 + -(-len(png(0)) // 512) * 512)  # of the last member; then come zeros
    if compressed:
        data = gzip.compress(data, 0)
    whole.write_bytes(data[:keep])
    write_tar(tmp_path / "t" / "b.tar", members(1))
    source = open_items([str(tmp_path / "t")])
    found = list(source.read(0))
    assert next(source.read(1)).image == png(0)
    good = [item for item in found if item.error is None]
    assert good == expected[: len(good)]
    if keep <= end:
        assert len(found) == len(good) + 1
        assert "cut off" in found[-1].error
        assert found[-1].error.startswith("a.tar: ")
        assert found[-1].image is None
        if len(good) < 4 and "is cut off" in found[-1].error:
            assert found[-1].key == f"a.tar/{len(good)}"
            assert f"{len(good)}.png is cut off" in found[-1].error
    else:
        assert len(good) == 4


def test_garbage_in_the_middle(tmp_path):
    path = write_tar(tmp_path / "a.tar", [(f"{n}.png", png(n)) for n in range(3)])
    data = bytearray(path.read_bytes())
    where = data.index(b"1.png")
    data[where : where + 512] = b"\xaa" * 512
    path.write_bytes(data)
    found = items(open_items([str(path)]))
    assert [item.key for item in found] == ["a.tar/0", "a.tar:end"]
    assert found[1].error == "a.tar: damaged after 0.png: no valid header follows"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, I am a text\n" * 100, "not a tar; expected a webdataset shard"),
        (b"", "the file is empty; expected a webdataset shard"),
        (b"\x1f\x8bnot gzip", "not a tar; expected a webdataset shard"),
    ],
)
def test_what_is_no_tar(tmp_path, content, message):
    (tmp_path / "a.tar").write_bytes(content)
    source = open_items([str(tmp_path / "a.tar")])
    with pytest.raises(ValueError, match=f"a.tar: {message}"):
        next(source.read(0))


def test_key_is_no_option_of_tars(shards):
    with pytest.raises(ValueError, match="tars have no column of keys; leave out key_column"):
        open_items([str(shards)], key_column="id")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_a_pair_after_members_of_any_size(tmp_path, size):
    first = ("a.cls", b"x" * size)
    write_tar(tmp_path / "a.tar", [first, *members(2), ("z.cls", b"y")])
    message = r"a\.tar: 2 of 4 samples are left out, .* nor text; the first is a\.cls$"
    with pytest.warns(UserWarning, match=message):
        assert open_pairs(str(tmp_path / "a.tar"))[1].image == png(1)


def test_members_of_a_pair_need_not_follow_each_other(tmp_path):
    made = members(3)
    path = write_tar(tmp_path / "a.tar", made[::2] + made[1::2])
    pairs = open_pairs(str(path))
    assert [pairs[n] for n in range(3)] == [
        (f"a.tar/{key}", image, texts) for key, image, texts in samples(3)
    ]


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
    assert captions_of(open_pairs(str(path), text_column=name)) == [expected]


def test_a_text_goes_before_json_unless_a_key_is_named(tmp_path):
    made = [("1.jpg", b"?"), ("1.json", b'{"caption": "json"}'), ("1.txt", b"text")]
    path = str(write_tar(tmp_path / "a.tar", made))
    assert open_pairs(path)[0].captions == ("text",)
    assert open_pairs(path, text_column="caption")[0].captions == ("json",)
    assert open_pairs(path).identity() != open_pairs(path, text_column="caption").identity()


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
            # Half of the end mark is enough to tell that nothing else came.
            assert length >= end + 512
            assert [pairs[n].image for n in range(3)] == [png(n) for n in range(3)]
    assert len(refused) > 10


def test_a_truncated_tar_names_shard_and_member(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(3))
    whole = path.read_bytes()
    place = whole.index(png(1))
    path.write_bytes(whole[: place + 20])
    with pytest.raises(
        ValueError, match=r"a\.tar: cut off or damaged after 0001\.png: unexpected end of data$"
    ):
        open_pairs(str(path))
    # tarfile itself takes this for the end of the archive.
    path.write_bytes(whole[: place - 512] + b"\xff" * 512 + whole[place:])
    with pytest.raises(
        ValueError, match=r"a\.tar: damaged after 0000\.txt: no valid header follows$"
    ):
        open_pairs(str(path))
    path.write_bytes(whole[: place - 100])
    with pytest.raises(ValueError, match=r"cut off after 0000\.txt: there is no end mark$"):
        open_pairs(str(path))
    path.write_bytes(b"no tar at all")
    with pytest.raises(ValueError, match=r"a\.tar: not a tar; expected a webdataset shard$"):
        open_pairs(str(path))


def test_a_tar_that_shrank_after_it_was_opened(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(3))
    pairs = open_pairs(str(path))
    path.write_bytes(path.read_bytes()[:1600])
    assert pairs[0].image == png(0)
    with pytest.raises(ValueError, match=r"^a\.tar/0002: .*a\.tar: the file has become shorter"):
        pairs[2]
    path.unlink()
    with pytest.raises(ValueError, match=r"^a\.tar/0000: .*a\.tar: no such file or folder$"):
        pairs[0]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            [*members(2), ("a.png", b"?"), ("b.png", b"?"), ("b.txt", b" \n")],
            r"a\.tar: 2 of 4 pairs have no caption: a\.tar/a, a\.tar/b; add what is missing or "
            r"leave these out$",
        ),
        (
            [*members(1), ("a.txt", b"a dog")],
            r"a\.tar: 1 of 2 pairs have no image \(\.jpg, \.jpeg, \.png, \.webp\): a\.tar/a; ",
        ),
        ([("a.cls", b"1")], r"a\.tar: there are no images \(\.jpg, \.jpeg, \.png, \.webp\) in it$"),
        ([*members(1), *members(1)], r"a\.tar: 0000\.png is in it twice$"),
        ([("1.jpg", b"?"), ("1.json", b"{")], r"^a\.tar/1: its text cannot be read: "),
        (
            [("1.jpg", b"?"), ("1.json", b"[]")],
            r"^a\.tar/1: its text cannot be read: the \.json must hold an object, got list$",
        ),
        (
            [("1.jpg", b"?"), ("1.txt", b"\xff")],
            r"^a\.tar/1: its text cannot be read: 'utf-8' codec",
        ),
    ],
)
def test_bad_members(tmp_path, made, message):
    path = write_tar(tmp_path / "a.tar", made)
    with pytest.raises(ValueError, match=message):
        open_pairs(str(path))


def keyed(path, **options):
    found = items(open_items([str(path)], **options))
    return [(item.key, item.error or item.image or item.text) for item in found]


def test_names_with_several_dots(tmp_path):
    """webdataset ends the key at the first dot, which leaves such images without an ending."""
    made = [(f"frame_0.{n:03d}.jpg", png(n)) for n in range(300)]
    path = write_tar(tmp_path / "a.tar", made)
    assert keyed(path) == [(f"a.tar/frame_0.{n:03d}", png(n)) for n in range(300)]
    made = [
        ("IMG.2021.06.01.jpg", png(1)),
        ("IMG.2021.06.01.txt", b"a dog"),
        ("IMG.2021.06.02.jpg", png(2)),
        ("IMG.2021.06.02.txt", b"a cat"),
        ("a.left.png", png(3)),
        ("a.right.png", png(4)),
        ("a.txt", b"two eyes"),
        ("b.jpg", png(5)),
        ("b.mask.png", png(6)),
        ("b.txt", b"a car"),
    ]
    write_tar(path, made)
    expected = [
        ("a.tar/IMG.2021.06.01", png(1), "a dog"),
        ("a.tar/IMG.2021.06.02", png(2), "a cat"),
        ("a.tar/a.left", png(3), "two eyes"),
        ("a.tar/a.right", png(4), "two eyes"),
        ("a.tar/b", png(5), "a car"),
    ]
    assert [item[:3] for item in items(open_items([str(path)]))] == expected
    pairs = open_pairs(str(path))
    assert [(*pairs[n][:2], *pairs[n].captions) for n in range(5)] == expected
    texts = [text for _, text in keyed(path, only="texts")]
    assert texts == ["a dog", "a cat", "two eyes", "a car"]
    assert keyed(path, image_column="left.png")[1] == ("a.tar/a", png(3))


def test_the_content_decides_where_the_name_does_not(tmp_path):
    made = [("a.img", png(1)), ("b", png(2)), ("c.dat", b"no image"), ("d.txt", b"a dog")]
    path = write_tar(tmp_path / "a.tar", made)
    found = keyed(path, only="images")
    assert found[:2] == [("a.tar/a", png(1)), ("a.tar/b", png(2))]
    expected = "there is no image (.jpg, .jpeg, .png, .webp), but"
    assert found[2:] == [
        ("a.tar/c", f"a.tar/c: {expected} .dat"),
        ("a.tar/d", f"a.tar/d: {expected} .txt"),
    ]
    found = keyed(path, only="texts")
    assert [key for key, _ in found] == ["a.tar/a", "a.tar/b", "a.tar/c", "a.tar/d"]
    assert found[0][1] == "a.tar/a: there is no text (.txt, .json), but .img"
    assert found[3][1] == "a dog"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_named(tmp_path, kind):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.png"):
            member = tarfile.TarInfo(name)
            if name == "b.png":
                member.type, member.linkname = kind, "a.png"
            else:
                member.size = len(png(1))
            tar.addfile(member, io.BytesIO(png(1)))
    found = keyed(path)
    assert found[0] == ("a.tar/a", png(1))
    assert found[1][1].startswith("a.tar/b: b.png is a link, which")
    with pytest.raises(ValueError, match=r"1 of 2 pairs have no image"):
        open_pairs(str(path))


def test_a_text_that_is_a_link_is_named(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.png")
        member.size = len(png(1))
        tar.addfile(member, io.BytesIO(png(1)))
        member = tarfile.TarInfo("a.txt")
        member.type, member.linkname = tarfile.SYMTYPE, "b.txt"
        tar.addfile(member)
    with pytest.raises(ValueError, match=r"^a\.tar/a: a\.txt is a link; write the text itself"):
        open_pairs(str(path))
    assert "a.txt is a link" in keyed(path)[0][1]


def member(name):
    info = tarfile.TarInfo(name)
    data = png(0)
    info.size = len(data)
    return info.tobuf() + data + bytes(-len(data) % 512)


def header(kind, size):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_larger_than_any_name(tmp_path, kind):
    """Of a few megabytes compressed, tarfile would hold gigabytes."""
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header(kind, 200 << 20))
        for _ in range(200):
            file.write(bytes(1 << 20))
    with pytest.raises(ValueError, match=r"a\.tar\.gz: not a tar"):
        list(open_items([str(path)]).read(0))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_headers_of_headers(tmp_path, kind):
    one = header(kind, 20) + b"20 comment=abcdefghi\n".ljust(512, b"\0")
    whole = b"".join([member("a.png"), one * 20_000, member("b.png"), bytes(1024)])
    (tmp_path / "a.tar").write_bytes(whole)
    items = list(open_items([str(tmp_path / "a.tar")]).read(0))
    assert items[0].error is None
    assert "damaged after a.png" in items[-1].error


def test_numbers_of_a_sparse_member_that_are_none(tmp_path):
    record = b"GNU.sparse.map=1,x\n"
    record = str(len(record) + 3).encode() + b" " + record
    pax = header(b"x", len(record)) + record.ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(member("a.png") + pax + member("b.png") + bytes(1024))
    items = list(open_items([str(tmp_path / "a.tar")]).read(0))
    assert items[-1].error is None or "damaged after a.png" in items[-1].error


def test_a_tar_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("siglip_jax.data.tar_stream.LARGEST", 1 << 20)
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(member("a.png") + header(b"0", 300 << 20))
        for _ in range(300):
            file.write(bytes(1 << 20))
    items = list(open_items([str(path)]).read(0))
    assert "unpacks to more than 200 times its size" in items[-1].error
