"""Items that cannot be read: named at the end, the same the second time, tried again if asked."""

import tarfile

import pytest
from job_inputs import Told, picture, pictures, table
from pair_files import png, write_tar
from saved_model import saved

import siglip_jax
from siglip_jax.data.item import Item
from siglip_jax.jobs import embed
from siglip_jax.search.embeddings import Row, open_embeddings
from siglip_jax.search.pictures import pictures_of

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


def test_the_end_names_the_first_and_the_second_time_is_as_the_first(model, tmp_path):
    source = pictures(9)
    source.items[1] = Item("bad.png", b"no image")
    source.items[5] = Item("gone.png", str(tmp_path / "gone.png"))
    first = embed(source, tmp_path / "out", model=model)
    reasons = (
        "2 of which could not be read (bad.png: not an image in a known format; "
        f"{tmp_path}/gone.png: cannot be read: No such file or directory)"
    )
    assert first.finished and first.code == 2 and reasons in first.sentence()
    again = embed(source, tmp_path / "out", model=model)
    assert again.already and again.code == 2 and reasons in again.sentence()
    allowed = embed(source, tmp_path / "out", model=model, max_error_share=0.5)
    assert allowed.already and allowed.code == 0


def test_retry_does_the_shards_with_errors_again(model, tmp_path):
    path = tmp_path / "later.png"
    source = pictures(9)
    source.items[5] = Item("later.png", str(path))
    embed(source, tmp_path / "out", model=model, max_error_share=0.5)
    path.write_bytes(picture(5))
    assert embed(source, tmp_path / "out", model=model, max_error_share=0.5).already
    mended = embed(source, tmp_path / "out", model=model, retry="all")
    assert (mended.errors, mended.code, mended.run["items"]) == (0, 0, 4)
    assert table(tmp_path / "out").column("error").to_pylist() == [None] * 9
    with pytest.raises(ValueError, match="retry is for one process"):
        embed(source, tmp_path / "out", model=model, retry=True, shared=True)


def test_nothing_done_is_no_success(model, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    for _ in range(2):
        result = embed(str(tmp_path / "a.tar"), tmp_path / "out", model=model)
        assert result.finished and result.code == 2
        assert "0 items in 1 shard: there is none in the source" in result.sentence()


def test_names_that_are_not_unicode(model, tmp_path):
    """They ended a job for good, after their whole shard was computed."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "caf\udce9.png").write_bytes(png(1))
    (photos / "a.png").write_bytes(png(2))
    result = embed(str(photos), tmp_path / "out", model=model)
    assert (result.code, result.errors) == (0, 0)
    rows = table(tmp_path / "out")
    assert rows.column("key").to_pylist() == ["a.png", r"caf\xe9.png"]
    assert embed(str(photos), tmp_path / "out", model=model).already
    embeddings = open_embeddings([tmp_path / "out"])
    (row,) = [Row(r"caf\xe9.png", None, 0, 0)]
    assert [*pictures_of(embeddings, [row])] == [row]

    write_tar(tmp_path / "t.tar", [("caf\udce9.png", png(1)), ("b.png", b"?")])
    result = embed(str(tmp_path / "t.tar"), tmp_path / "tar", model=model, max_error_share=1)
    assert table(tmp_path / "tar").column("key").to_pylist() == [r"t.tar/caf\xe9", "t.tar/b"]
    source = Told([Item(f"\udce9{n}", str(tmp_path / f"\udce9{n}")) for n in range(2)])
    result = embed(source, tmp_path / "errors", model=model, max_error_share=1)
    assert result.errors == 2 and result.reasons[0]["key"] == "\udce90"
    assert embed(source, tmp_path / "errors", model=model, max_error_share=1).already
    source = Told([Item("0", text="a dog"), Item("1", text="half a \ud83d")])
    result = embed(source, tmp_path / "texts", model=model, what="texts", max_error_share=1)
    assert table(tmp_path / "texts").column("error").to_pylist()[0] is None
    assert "not valid Unicode" in table(tmp_path / "texts").column("error").to_pylist()[1]


def test_images_are_found_again_from_any_working_folder(model, tmp_path, monkeypatch):
    """Other files of the same names were shown, without a word."""
    for folder, seed in (("here", 1), ("there", 2)):
        (tmp_path / folder / "pics").mkdir(parents=True)
        (tmp_path / folder / "pics" / "a.png").write_bytes(picture(seed, 20 + seed))
    monkeypatch.chdir(tmp_path / "here")
    embed("pics", tmp_path / "out", model=model)
    embed(["pics/a.png", "pics"], tmp_path / "several", model=model)
    monkeypatch.chdir(tmp_path / "there")
    right = str(tmp_path / "here/pics/a.png")
    row = Row("a.png", None, 0, 0)
    assert pictures_of(open_embeddings(tmp_path / "out"), [row]) == {row: right}
    row = Row("pics/a.png", None, 0, 0)
    assert pictures_of(open_embeddings(tmp_path / "several"), [row]) == {row: right}
    with pytest.warns(UserWarning, match="pics: not what the job read: files have changed"):
        found = pictures_of(open_embeddings(tmp_path / "out"), [row], ["pics"])
    assert found == {}
