"""siglip-jax convert with bad input: one line, exit code 2, nothing written, SRC as it was."""

import errno
import json
import pickle
import re
import shutil
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from command_line import everything

from siglip_jax.converters import FORMATS, big_vision, convert
from siglip_jax.converters.safetensors_file import SafetensorsWriter

# pytest looks for fixtures among the names of a module.
pytestmark = pytest.mark.usefixtures("surroundings")


# Each spoils the folder, and returns the source to give and what is said about it.


def misspelled(hf):
    return "hf/modle.safetensors", "modle.safetensors does not exist; did you mean hf/model.safe"


def not_the_name_of_a_checkpoint(hf):
    return "siglip_b16_225", "no released checkpoint is called 'siglip_b16_225'; did you mean "


def truncated(hf):
    data = (hf / "model.safetensors").read_bytes()
    (hf / "model.safetensors").write_bytes(data[:-1000])
    return hf, r"model\.safetensors is cut short: [\d,]+ bytes, not [\d,]+; fetch it again"


def missing_shard(hf):
    shard(hf)
    (hf / "b.safetensors").unlink()
    return hf, r"index\.json names shards that are not there: b\.safetensors"


def wrong_index(hf):
    where = shard(hf)
    moved = min(name for name, file in where.items() if file == "a.safetensors")
    write_index(hf, {**where, moved: "b.safetensors"})
    return hf, f"does not match its shards: 1 tensors are not where it says, {moved} "


def code_in_a_pickle(hf):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    (hf / "model.safetensors").unlink()
    with zipfile.ZipFile(hf / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": Evil()}))
    return hf, r"holds code, not only weights: its pickle asks for \S*print; refused"


def clip(hf):
    card = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps({**card, "model_type": "clip"}))
    return hf, r"config\.json is of model_type 'clip', not SigLIP"


def clip_weights(hf):
    return foreign(hf, "vision_model.embeddings.class_embedding", "a class token, as in CLIP")


def dino(hf):
    return foreign(hf, "embeddings.register_tokens", "register tokens, as in DINOv2")


def rotary(hf):
    name = "vision_model.encoder.layers.0.self_attn.rope.inv_freq"
    return foreign(hf, name, "rotary position embeddings")


def foreign(hf, name, what):
    file = hf / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({**tensors, name: np.zeros(3, np.float32)}, file)
    return hf, f"is no SigLIP model: {re.escape(name)} is {what}"


def shard(hf):
    """Two shards in place of the file; returns the map of its index."""
    tensors = safetensors.numpy.load_file(hf / "model.safetensors")
    (hf / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {}
    for file, inside in (("a.safetensors", names[:40]), ("b.safetensors", names[40:])):
        safetensors.numpy.save_file({name: tensors[name] for name in inside}, hf / file)
        where |= dict.fromkeys(inside, file)
    write_index(hf, where)
    return where


def write_index(hf, where):
    (hf / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


@pytest.mark.parametrize(
    "spoil",
    [
        misspelled,
        not_the_name_of_a_checkpoint,
        truncated,
        missing_shard,
        wrong_index,
        code_in_a_pickle,
        clip,
        clip_weights,
        dino,
        rotary,
    ],
)
def test_a_bad_source(cli, hf, tmp_path, spoil):
    source, message = spoil(hf)
    before = everything(tmp_path)
    code, out, err = cli("convert", source, "out", "--to", "open_clip")
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith("siglip-jax: error: ") and re.search(message, err[0]), err[0]
    assert everything(tmp_path) == before


def test_shards_in_order_are_read(cli, hf):
    shard(hf)
    assert cli("convert", hf, "x.npz", "--to", "npz")[0] == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("hf x --to transformer", "no format is called 'transformer'; did you mean transformers?"),
        ("hf x --to onnx", f"no format is called 'onnx'; there are {', '.join(FORMATS)}"),
        ("hf x", "the following arguments are required: --to"),
        ("hf x --to npz", "x: a file of format npz must be named .npz"),
        ("hf hf/x --to timm", "hf/x lies in hf, which is to be converted"),
        ("hf there --to timm", "there exists already; choose another name, or --force to replace"),
        ("hf hf --to timm --force", "hf is what is to be converted; choose another name"),
        ("hf no/x --to timm", "cannot write no/x: the folder no does not exist"),
        ("hf x --to timm --tower text", "timm has no format for the text tower alone"),
        ("hf x --to timm --scan", "timm stores each layer by itself; leave out --scan"),
        ("hf x --to timm --per-layer", "--per-layer is about --compare; give both"),
        ("hf x.npz --to npz --compare", "no other library reads the format npz; --compare is for"),
        ("hf x --to timm --towr image", "no option --towr; did you mean --tower?"),
        ("hf x --to transformers --vocabulary hf/config.json", "not a sentencepiece model"),
        (
            "x.npz x --to transformers",
            "pixels left over are cropped); give --res 32 (or up to 39)",
        ),
        ("x.npz x --to transformers --res 32", "does not say how its texts are padded; give --pad"),
        ("bare/w.safetensors x --to timm", "no config.json beside it; give --architecture of one"),
        ("hf x --to timm --architecture siglip_b16_22", "'siglip_b16_22'; did you mean"),
    ],
)
def test_bad_arguments(cli, hf, tmp_path, argv, message):
    convert(hf, tmp_path / "x.npz", to="npz")
    (tmp_path / "there").mkdir()
    (tmp_path / "bare").mkdir()
    shutil.copy(hf / "model.safetensors", tmp_path / "bare" / "w.safetensors")
    before = everything(tmp_path)
    code, out, err = cli("convert", *argv.split())
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]
    assert everything(tmp_path) == before


def test_bare_weights_of_an_architecture_that_is_told(cli, hf, tmp_path):
    (tmp_path / "bare").mkdir()
    shutil.copy(hf / "model.safetensors", tmp_path / "bare" / "w.safetensors")
    code, out, err = cli(
        *("convert", "bare/w.safetensors", "bare/x.npz", "--to", "npz", "--architecture", hf)
    )
    assert (code, err) == (0, []) and "every bit as in the source" in out


def test_a_library_that_is_not_installed(cli, hf, monkeypatch, tmp_path):
    monkeypatch.setattr("siglip_jax.verify.live_library.importlib.util.find_spec", _none)
    before = everything(tmp_path)
    assert cli("convert", hf, "x", "--to", "open_clip", "--compare") == (
        2,
        "",
        [
            "siglip-jax: error: --compare needs torch and open_clip_torch, not installed here: "
            "pip install torch open_clip_torch"
        ],
    )
    assert everything(tmp_path) == before


def _none(name):
    return None


@pytest.mark.parametrize(
    ("stop", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), 2, "the disk is full; nothing was written to out"),
        (OSError(errno.EIO, "Input/output error", "x"), 2, "Input/output error: 'x'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=["full", "io", "interrupt"],
)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("to", ["transformers", "siglip_jax"])
def test_what_stops_half_way_leaves_nothing(
    cli, model, monkeypatch, tmp_path, stop, code, message, force, to
):
    written = []
    write = SafetensorsWriter.write

    def half(self, name, array):
        if len(written) == 20:
            raise stop
        written.append(name)
        write(self, name, array)

    shutil.copytree(model, tmp_path / "source")
    if force:
        convert(model, tmp_path / "out", to="timm")
    before = everything(tmp_path)
    monkeypatch.setattr(SafetensorsWriter, "write", half)
    flags = ["--force"] if force else []
    got, out, err = cli("convert", "source", "out", "--to", to, *flags)
    assert (got, out, len(err)) == (code, "", 1) and err[0].endswith(message)
    assert len(written) == 20
    assert everything(tmp_path) == before


@pytest.mark.parametrize(("to", "target"), [("npz", "x.npz"), ("tensorstore", "x.bv")])
def test_a_full_disk_with_the_formats_of_big_vision(cli, model, monkeypatch, tmp_path, to, target):
    def full(path, items):
        next(items)
        (path.parent / "partial").write_bytes(b"half")
        # What tensorstore raises, whose files are written by itself.
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write [os_error_code='28']")

    monkeypatch.setattr(big_vision, "write_npz", full)
    monkeypatch.setattr(big_vision, "write_folder", full)
    before = everything(tmp_path)
    code, out, err = cli("convert", model, target, "--to", to)
    assert (code, out) == (2, "")
    assert err == [f"siglip-jax: error: the disk is full; nothing was written to {target}"]
    assert everything(tmp_path) == before


def test_a_disk_that_is_too_small_is_seen_at_once(cli, model, monkeypatch, tmp_path):
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    code, _, err = cli("convert", model, "x", "--to", "timm")
    # 20,244 parameters in the image tower.
    assert (code, err) == (
        2,
        ["siglip-jax: error: 80,976 bytes do not fit on the disk, 1,000 are free"],
    )


def test_an_output_that_is_read_back_otherwise_does_not_appear(cli, model, monkeypatch, tmp_path):
    write = SafetensorsWriter.write

    def wrong(self, name, array):
        write(self, name, array + 1 if name == "logit_bias" else array)

    monkeypatch.setattr(SafetensorsWriter, "write", wrong)
    before = everything(tmp_path)
    with pytest.raises(RuntimeError, match=r"is read back with other numbers in b$"):
        cli("convert", model, "x", "--to", "transformers")
    assert everything(tmp_path) == before
