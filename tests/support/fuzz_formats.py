"""What is fuzzed: for each format a folder of good files, the file that is damaged, and a reader.

A format is a function of an empty folder that fills it and gives `Case`s.
"""

import contextlib
import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from paths import FIXTURES


class Case(NamedTuple):
    """A file to damage, relative to the folder, and what reads the folder afterwards."""

    file: str
    read: Callable[[Path], object]
    kind: str = "bytes"  # or "json", "zip", "parquet": damaged inside, too


def _read_all(reader):
    with reader:
        return [reader.read(name) for name in reader.shapes]


def npz(folder):
    from siglip_jax.weights.npz import NpzReader, write_npz

    arrays = [(f"a/{i}", np.arange(6, dtype=np.float32).reshape(2, 3)) for i in range(3)]
    for compressed in (False, True):
        name = f"x{int(compressed)}.npz"
        write_npz(folder / name, arrays, compressed=compressed)
        yield Case(name, lambda at, name=name: _read_all(NpzReader(at / name)), "zip")


def torch(folder):
    from siglip_jax.converters.torch_file import TorchReader

    for name in ("state_dict.pt", "training.pt"):
        shutil.copy(FIXTURES / "torch_files" / name, folder)
        yield Case(name, lambda at, name=name: _read_all(TorchReader(at / name)), "zip")


def safetensors(folder):
    from siglip_jax.converters.files import open_file
    from siglip_jax.converters.safetensors_file import SafetensorsWriter
    from siglip_jax.weights.reader import Header

    arrays = {f"a.{i}": np.full((2, 3), i, np.float32) for i in range(4)}
    headers = {name: Header(array.shape, array.dtype) for name, array in arrays.items()}
    for name, limit in (("x.safetensors", 10**9), ("y.safetensors", 50)):
        with SafetensorsWriter(folder / name, headers, shard_bytes=limit) as writer:
            for key, array in arrays.items():
                writer.write(key, array)
    yield Case("x.safetensors", lambda at: _read_all(open_file(at / "x.safetensors")))
    index = "y.safetensors.index.json"
    yield Case(index, lambda at: _read_all(open_file(at / index)), "json")


def tensorstore(folder):
    from siglip_jax.weights.tensorstore_folder import FolderReader, write_folder

    step = write_folder(folder / "x.bv", [("t", np.ones((4, 5), np.float32))])

    def read(at):
        return _read_all(FolderReader(at / "x.bv"))

    member = f"{step.name}/params~t"
    yield Case(f"{member}/.zarray", read, "json")
    yield Case(f"{member}/0.0", read)
    yield Case("x.bv-LAST", read)


def _folders(form, *files):
    def make(folder):
        from towers import case

        from siglip_jax.converters import convert, open_checkpoint

        tiny = case("loop")
        vocabulary = FIXTURES / "tiny.model"
        convert(tiny.path, folder / "m", to=form, config=tiny.config, pad=1)
        del vocabulary

        def read(at):
            with open_checkpoint(at / "m") as opened:
                return _read_all(opened.reader), opened.profile_named()

        names = [f"m/{name}" for name in files if (folder / "m" / name).exists()]
        assert names
        for name in names:
            yield Case(name, read, "json" if name.endswith(".json") else "bytes")

    return make


def adapter(folder):
    from adapter_folders import adapter_folder
    from towers import case

    from siglip_jax.converters import adapters, convert, open_checkpoint

    tiny = case("loop")
    convert(tiny.path, folder / "m", to="transformers", config=tiny.config, pad=1)
    adapter_folder(folder / "a", ("vision_model.encoder.layers.1.mlp.fc1",))

    def read(at):
        with adapters.merge(open_checkpoint(at / "m"), at / "a") as merged:
            return _read_all(merged.reader)

    yield Case("a/adapter_config.json", read, "json")
    yield Case("a/adapter_model.safetensors", read)


def sentencepiece(folder):
    from siglip_jax.converters.sentencepiece_model import read_sentencepiece_model

    shutil.copy(FIXTURES / "tiny.model", folder / "x.model")
    yield Case("x.model", lambda at: read_sentencepiece_model(at / "x.model"))


def tokenizer(folder):
    from pair_files import PROFILE

    from siglip_jax.converters import tokenizer_json
    from siglip_jax.preprocessing import Tokenizer

    shutil.copy(FIXTURES / "tiny.model", folder / "x.model")
    tokenizer_json.write(folder / "tokenizer.json", folder / "x.model", PROFILE.text)
    for name, kind in (("tokenizer.json", "json"), ("x.model", "bytes")):
        yield Case(name, lambda at, n=name: Tokenizer(at / n, PROFILE.text).encode(["a dog"]), kind)


def _images(*forms, **options):
    def make(folder):
        from pictures import scene
        from PIL import Image

        from siglip_jax.checkpoints import find
        from siglip_jax.preprocessing import decode_image, profile_for

        checkpoint = find("siglip_b16_224")
        profiles = [profile_for(checkpoint, s).image for s in ("big_vision", "transformers")]
        picture = Image.fromarray(scene(40, 30))
        for form in forms:
            name = f"x.{form.lower()}"
            with_alpha = picture.convert("RGBA") if form in ("PNG", "WEBP") else picture
            with_alpha.save(folder / name, form, **options)

            def read(at, name=name):
                shapes = {decode_image(at / name, profile).shape for profile in profiles}
                assert all(len(shape) == 3 and shape[2] == 3 for shape in shapes)

            yield Case(name, read)

    return make


def _items(spec):
    def read(at):
        from siglip_jax.data import open_items

        source = open_items([str(at / spec)])
        for shard in range(len(source.shards())):
            for item in source.read(shard):
                assert item.error is None or "\n" not in item.error
        return source.identity()

    return read


def tar(folder):
    from pair_files import captions, png, write_tar

    members = []
    for number in range(3):
        members.append((f"{number}.png", png(number)))
        members.append((f"{number}.json", json.dumps({"caption": captions(number)}).encode()))
    write_tar(folder / "x.tar", members)
    (folder / "y.tar.gz").write_bytes(gzip.compress((folder / "x.tar").read_bytes()))
    for name in ("x.tar", "y.tar.gz"):
        yield Case(name, _items(name))


def tar_pairs(folder):
    from siglip_jax.data import open_pairs

    next(tar(folder))

    def read(at):
        pairs = open_pairs(str(at / "x.tar"))
        return [pairs[index] for index in range(len(pairs))]

    yield Case("x.tar", read)


def tables(folder):
    (folder / "a.png").write_bytes(b"")
    (folder / "x.csv").write_text('image,caption\na.png,a dog\nb.png,"a, b"\n')
    (folder / "x.tsv").write_text("image\tcaption\na.png\ta dog\n")
    rows = [{"image": f"{i}.png", "caption": "a dog"} for i in range(3)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("x.csv", "x.tsv", "x.jsonl"):
        yield Case(name, _items(name))


def parquet(folder):
    import pyarrow.parquet
    from pair_files import write_parquet

    write_parquet(folder / "x.parquet")
    write_parquet(folder / "y.parquet")
    table = pyarrow.parquet.read_table(folder / "y.parquet")
    image = pyarrow.array([{"bytes": i.as_py(), "path": "a"} for i in table.column("image")])
    table = table.set_column(0, "image", image).append_column("id", pyarrow.array(range(7)))
    pyarrow.parquet.write_table(
        table,
        folder / "y.parquet",
        row_group_size=4,
        compression="zstd",
        data_page_version="2.0",
        use_dictionary=["captions.list.element"],
        column_encoding={"image.bytes": "DELTA_LENGTH_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED"},
        write_page_index=True,
        write_page_checksum=True,
    )
    for name in ("x.parquet", "y.parquet"):
        yield Case(name, _items(name), "parquet")


def parquet_pairs(folder):
    from siglip_jax.data import open_pairs

    def read(at, name):
        pairs = open_pairs(str(at / name))
        for index in range(len(pairs)):
            with contextlib.suppress(ValueError):
                pairs[index]

    for case in parquet(folder):
        yield case._replace(read=lambda at, name=case.file: read(at, name))


def arrow(folder):
    import pyarrow
    import pyarrow.parquet
    from pair_files import write_parquet

    table = pyarrow.parquet.read_table(write_parquet(folder / "x.parquet"))
    image = pyarrow.array([{"bytes": i.as_py(), "path": "a"} for i in table.column("image")])
    table = table.set_column(0, "image", image).append_column("key", pyarrow.array(list("abcdefg")))
    for name, writer in (("x.arrow", pyarrow.ipc.new_stream), ("y.arrow", pyarrow.ipc.new_file)):
        with writer(str(folder / name), table.schema) as file:
            file.write_table(table, max_chunksize=3)
        yield Case(name, _items(name))


def text_lists(folder):
    from siglip_jax.data.text_list import read_text_list

    (folder / "x.txt").write_text("a dog\na cat\n")
    (folder / "x.json").write_text('{"id2label": {"0": "a dog", "1": "a cat"}}')
    (folder / "x.yaml").write_text("names:\n  0: a dog\n  1: a cat\n")
    (folder / "x.csv").write_text("name,other\na dog,1\na cat,2\n")
    for name in ("x.txt", "x.json", "x.yaml", "x.csv"):
        yield Case(name, lambda at, name=name: read_text_list(str(at / name)))


def recipe(folder):
    from siglip_jax.training.recipe_file import read_recipe

    shutil.copy(Path(__file__).parents[2] / "recipes" / "emoji.toml", folder / "x.toml")
    yield Case("x.toml", lambda at: read_recipe(at / "x.toml"))


def other_embeddings(folder):
    from siglip_jax.doctor.embeddings_file import read_embeddings
    from siglip_jax.verify import inputs

    rows = len(inputs.TEXTS)
    np.savez_compressed(folder / "x.npz", ztxt=np.ones((rows, 8), np.float32))
    yield Case("x.npz", lambda at: read_embeddings([at / "x.npz"], 8), "zip")


def executable(folder):
    from siglip_jax.programs import executable_file as files

    body = (2).to_bytes(8, "little") + b"{}" + bytes(1000)
    (folder / "x").write_bytes(files.MAGIC + files._digest("x", body) + body)
    files._Loaded = lambda *parts: None  # what comes after the digest
    yield Case("x", lambda at: files.from_bytes("x", (at / "x").read_bytes(), None))


def saved_program(folder):
    import jax
    from towers import case

    from siglip_jax.models import SiglipModel
    from siglip_jax.programs import Program, make_mesh
    from siglip_jax.programs.exported import load_program, save_program

    tiny = case("loop")
    program = Program(SiglipModel(tiny.config, tiny.execution), make_mesh(jax.devices()[:1]))
    save_program(folder / "x.zip", program, {"texts": 2}, platform="cpu")
    yield Case("x.zip", lambda at: load_program(at / "x.zip"), "zip")


FORMATS = {
    "npz": npz,
    "torch": torch,
    "safetensors": safetensors,
    "tensorstore": tensorstore,
    "siglip_jax": _folders("siglip_jax", "siglip_jax.json", "weights.safetensors"),
    "transformers": _folders("transformers", "config.json", "preprocessor_config.json",
                             "tokenizer_config.json", "model.safetensors"),
    "open_clip": _folders("open_clip", "open_clip_config.json"),
    "timm": _folders("timm", "config.json"),
    "adapter": adapter,
    "sentencepiece": sentencepiece,
    "tokenizer": tokenizer,
    "jpeg": _images("JPEG", quality=60),
    "progressive": _images("JPEG", progressive=True),
    "png": _images("PNG"),
    "webp": _images("WEBP"),
    "bmp": _images("BMP"),
    "process_images": _images("GIF", "TIFF", "PPM", "ICO", "AVIF"),
    "tiff_lzw": _images("TIFF", compression="tiff_lzw"),
    "tar": tar,
    "tar_pairs": tar_pairs,
    "tables": tables,
    "parquet": parquet,
    "parquet_pairs": parquet_pairs,
    "arrow": arrow,
    "text_lists": text_lists,
    "recipe": recipe,
    "other_embeddings": other_embeddings,
    "executable": executable,
    "saved_program": saved_program,
}  # fmt: skip


def rewritten(data, change):
    """A zip with one member changed, its checksums right."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = [(info, source.read(info)) for info in source.infolist()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for number, (info, content) in enumerate(members):
            target.writestr(info.filename, change(number, content), info.compress_type)
    return out.getvalue()
