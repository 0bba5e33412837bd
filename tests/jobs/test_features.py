"""Patches of images as a job stores them, and as they are read back."""

import dataclasses
import json
import pickle

import jax
import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
from job_inputs import contents, picture, pictures, table
from saved_model import VOCABULARY, saved

import siglip_jax
from siglip_jax.data.item import Item
from siglip_jax.jobs import embed, ledger, open_features, patches, read_manifest
from siglip_jax.preprocessing.naflex import target_size
from siglip_jax.search import open_embeddings

pytestmark = pytest.mark.usefixtures("compiled_once")
BATCH = 4  # of jobs and scorers alike: sums are in one order


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    return siglip_jax.load(saved(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(scope="module")
def naflex(tmp_path_factory):
    folder = saved(tmp_path_factory.mktemp("model") / "m", "naflex")
    return siglip_jax.load(folder, vocabulary=VOCABULARY)


def several():
    """Nine images of several shapes, in shards of four, and one that is none."""
    source = pictures(9)
    sizes = [
        (20, 16),
        (70, 16),
        (16, 70),
        (30, 30),
        (16, 200),
        (40, 16),
        (9, 9),
        (25, 60),
        (60, 25),
    ]
    source.items = [
        Item(f"{i}.png", picture(i, width, height)) for i, (width, height) in enumerate(sizes)
    ]
    source.items.insert(5, Item("bad.png", b"hello"))
    return source


def good(source):
    return [item for item in source.items if item.key != "bad.png"]


def stored_as(values, store):
    """float32 numbers as they are to be stored, by integers where numpy knows no type."""
    if store != "bfloat16":
        return values.astype(store)
    bits = values.view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # ties to even
    return nearest.astype(np.uint16).view(ml_dtypes.bfloat16)


def wanted(model, items, layer):
    """What the scorer makes of each image, in the batches of a job; of NaFlex without padding."""
    scorer = model.scorer(tokenizer=False, batch_size=BATCH)
    values = scorer.features([item.image for item in items], layer)
    if not model.config.naflex:
        return list(values)
    counts = [int(scorer.preprocess(item.image).type.sum()) for item in items]
    return [one[:count] for one, count in zip(values, counts, strict=True)]


@pytest.mark.parametrize("store", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("format", ["parquet", "npy"])
@pytest.mark.parametrize("kind", ["fixed", "naflex"])
def test_equals_the_scorer(request, tmp_path, kind, format, store):
    model, source, layer = request.getfixturevalue(kind), several(), -2
    if store == "float16":
        layer = "encoded"
    options = {"model": model, "batch_size": BATCH, "max_error_share": 1}
    out = tmp_path / "out"
    assert embed(source, out, layer=layer, format=format, store=store, **options).errors == 1
    features = open_features(out)
    assert features.keys == [item.key for item in good(source)] and len(features) == 9
    assert (features.form.layer, features.form.store) == (layer, store)
    for index, values in enumerate(wanted(model, good(source), layer)):
        got = features[index]
        assert got.dtype == features.form.dtype and not got.flags.writeable
        np.testing.assert_array_equal(got, stored_as(values, store))
        assert np.prod(features.grid(index)) == len(got)
    np.testing.assert_array_equal(features[-1], features[8])
    assert [len(one) for one in features[6:8]] == [len(features[6]), len(features[7])]
    with pytest.raises(IndexError, match="there is no image 9; there are 9"):
        features[9]


def test_files_say_what_is_in_them(fixed, tmp_path):
    options = {"model": fixed, "layer": -2, "store": "bfloat16"}
    embed(pictures(5), tmp_path / "parquet", **options)
    rows = table(tmp_path / "parquet")
    vision = fixed.config.vision
    about = json.loads(rows.schema.metadata[b"siglip_jax"])["features"]
    assert about == {
        "layer": "blocks=-2",
        "store": "bfloat16",
        "width": vision.size.width,
        "patch": vision.patch,
        "grid": [vision.grid, vision.grid],
    }
    inner = f"fixed_size_list<element: uint16>[{vision.size.width}]"
    assert str(rows.schema.field("features").type) == (
        f"fixed_size_list<element: {inner}>[{vision.grid**2}]"
    )
    assert "grid_rows" not in rows.column_names and "embedding" not in rows.column_names
    embed(pictures(5), tmp_path / "npy", format="npy", **options)
    stored = np.load(tmp_path / "npy/features/features_0000.npy")
    assert stored.dtype == np.uint16
    assert stored.shape == (4, vision.grid**2, vision.size.width)
    metadata = pq.read_schema(tmp_path / "npy/metadata/metadata_0000.parquet").metadata
    assert json.loads(metadata[b"siglip_jax"])["features"] == about
    bits = np.array(rows.column("features").to_pylist(), np.uint16)
    np.testing.assert_array_equal(stored, bits[:4])


def test_images_of_a_naflex_model_have_grids_of_their_own(naflex, tmp_path):
    source, vision = several(), naflex.config.vision
    options = {"model": naflex, "layer": "encoded", "max_error_share": 1}
    embed(source, tmp_path / "out", **options)
    rows = table(tmp_path / "out").to_pydict()
    most = naflex.profile.image.max_patches or vision.posemb_grid**2
    for index, key in enumerate(rows["key"]):
        grid = rows["grid_rows"][index], rows["grid_columns"][index]
        if key == "bad.png":
            assert grid == (None, None) and rows["features"][index] is None
            continue
        size = rows["height"][index], rows["width"][index]
        sides = target_size(*size, patch=vision.patch, max_patches=most)
        assert grid == tuple(side // vision.patch for side in sides)
        assert len(rows["features"][index]) == grid[0] * grid[1]
    about = json.loads(table(tmp_path / "out").schema.metadata[b"siglip_jax"])["features"]
    assert about["grid"] is None and about["patch"] == vision.patch
    embed(source, tmp_path / "npy", format="npy", **options)
    first = np.load(tmp_path / "npy/features/features_0000.npy", mmap_mode="r")
    assert first.shape == (sum(len(x) for x in rows["features"][:4]), vision.size.width)


def test_one_image_is_read_without_the_others(fixed, tmp_path, monkeypatch):
    source = several()
    options = {"model": fixed, "batch_size": BATCH, "max_error_share": 1, "layer": 1}
    embed(source, tmp_path / "whole", **options)
    row = table(tmp_path / "whole").nbytes / 10
    monkeypatch.setattr(patches, "_ROW_GROUP", int(2.5 * row))
    source.size = 10
    embed(source, tmp_path / "out", **options)
    path = tmp_path / "out/data/00000.parquet"
    assert pq.ParquetFile(path).metadata.num_row_groups == 5
    features, whole = open_features(tmp_path / "out"), open_features(tmp_path / "whole")
    for index in (8, 0, 5, 4, 6, 5):
        np.testing.assert_allclose(features[index], whole[index], rtol=0, atol=1e-5)
        held = features._held
        assert len(held.rows) == 2 and len(held.patches) <= 2 * fixed.config.vision.grid**2
    copy = pickle.loads(pickle.dumps(features))  # as data loaders have one a process
    assert copy._held is None
    np.testing.assert_array_equal(copy[5], features[5])


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_interrupted_it_goes_on_and_writes_the_same(naflex, tmp_path, monkeypatch, format):
    options = {"model": naflex, "layer": -2, "store": "bfloat16", "max_error_share": 1}
    options |= {"format": format, "batch_size": BATCH}
    embed(several(), tmp_path / "whole", **options)
    write, written = ledger.Ledger.write, []

    def dying(self, shard, *rest):
        if written:  # its files are there, and nothing says so
            raise RuntimeError("killed")
        written.append(shard)
        return write(self, shard, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "write", dying)
        with pytest.raises(RuntimeError, match="killed"):
            embed(several(), tmp_path / "out", **options)
    with pytest.raises(ValueError, match=r"1 of 3 shards are done; run the job to its end, or"):
        open_features(tmp_path / "out")
    assert len(open_features(tmp_path / "out", unfinished=True)) == 4
    result = embed(several(), tmp_path / "out", **options)
    assert result.finished and result.run["items"] == 6
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:.*what is no image is left out")
@pytest.mark.parametrize("format", ["parquet", "npy"])
@pytest.mark.parametrize("kind", ["fixed", "naflex"])
def test_updated_it_is_as_anew(request, tmp_path, kind, format):
    model, photos = request.getfixturevalue(kind), tmp_path / "photos"
    photos.mkdir()
    for seed in range(7):
        (photos / f"{seed}.png").write_bytes(picture(seed, 20 + 9 * seed, 16))
    options = {"model": model, "layer": -2, "format": format, "store": "float16"}
    options |= {"shard_size": 4, "batch_size": BATCH, "update": True}
    embed(str(photos), tmp_path / "out", **options)
    (photos / "1.png").unlink()
    (photos / "5.png").write_bytes(picture(50, 16, 90))
    (photos / "new.png").write_bytes(picture(51, 30, 30))
    assert embed(str(photos), tmp_path / "out", **options).removed == 2
    embed(str(photos), tmp_path / "anew", **options)
    ours, fresh = open_features(tmp_path / "out"), open_features(tmp_path / "anew")
    assert sorted(ours.keys) == sorted(fresh.keys) and len(ours) == 7
    for index, key in enumerate(ours.keys):
        there = fresh.keys.index(key)
        assert ours.grid(index) == fresh.grid(there)
        # In batches of other images sums may run in another order, before they are rounded.
        got, want = (np.float32(x) for x in (ours[index], fresh[there]))
        np.testing.assert_allclose(got, want, rtol=2**-10, atol=1e-5)
    assert embed(str(photos), tmp_path / "out", **options).already


def test_a_number_too_large_for_float16_is_no_infinity(fixed, tmp_path):
    params = jax.tree.map(lambda leaf: leaf, fixed.params)
    stem = params["img"]["embedding"]
    params["img"]["embedding"] = stem | {"bias": stem["bias"] + 70_000}
    model = dataclasses.replace(fixed, params=params, name="large")
    options = {"model": model, "layer": 0}
    with pytest.raises(ValueError, match=r"^features reach 70,0\d\d, and float16 ends at 65,504; "):
        embed(pictures(2), tmp_path / "out", store="float16", **options)
    assert list((tmp_path / "out/data").iterdir()) == []
    embed(pictures(2), tmp_path / "wide", store="bfloat16", **options)
    assert np.float32(open_features(tmp_path / "wide")[0]).max() == 70144  # 70,000, rounded


def test_what_is_refused(fixed, tmp_path):
    def refused(said, **options):
        with pytest.raises(ValueError, match=said):
            embed(pictures(2), tmp_path / "out", model=fixed, **options)

    refused(r"^bfloat16 is for patches; .*; leave out store='bfloat16'$", store="bfloat16")
    refused(r"^a layer is a number of blocks, or 'encoded', got 'last'$", layer="last")
    refused(r"got 'final', which is called 'encoded' now$", layer="final")
    refused(r"^blocks=9: the image tower has \d blocks, so that it must lie in -\d\.\.\d$", layer=9)
    refused(r"^only images have patches; ", layer=1, what="texts")
    embed(pictures(2), tmp_path / "z", model=fixed)
    with pytest.raises(ValueError, match=r"z holds embeddings, not patches; run siglip-jax embed"):
        open_features(tmp_path / "z")
    embed(pictures(2), tmp_path / "patches", model=fixed, layer="encoded")
    with pytest.raises(ValueError, match=r"holds patches \(encoded\), not embeddings; run"):
        open_embeddings(tmp_path / "patches")
    path = tmp_path / "patches/manifest.json"
    path.write_text(path.read_text().replace('"encoded"', '"final"'))
    assert read_manifest(path.parent).job["layer"] == "encoded"
    assert embed(pictures(2), path.parent, model=fixed, layer="encoded").already
