"""siglip-jax convert: what it writes and says, and what it leaves alone when it refuses."""

import json
import re

import pytest
from command_line import everything, on_a_terminal, shell
from saved_model import VOCABULARY

from siglip_jax.checkpoints import VOCABULARIES, find
from siglip_jax.converters import FORMATS, convert, open_checkpoint

# pytest looks for fixtures among the names of a module.
pytestmark = pytest.mark.usefixtures("surroundings")


def test_help(cli):
    code, out, err = cli("convert", "--help")
    assert (code, err) == (0, [])
    assert max(map(len, out.splitlines())) <= 90
    assert out.startswith("usage: siglip-jax convert SRC DST --to FORMAT")
    assert all(re.search(rf"^  {name} ", out, re.M) for name in FORMATS)
    assert not re.findall(r"^  --\S+( [A-Z.\[\] ]+)?$\n(?! {20})", out, re.M), out


@pytest.mark.parametrize(
    ("to", "target", "files"),
    [
        ("npz", "x.npz", 1),
        ("tensorstore", "x.bv", 0),
        ("transformers", "x", 6),
        ("open_clip", "x", 6),
        ("timm", "x", 2),
        ("siglip_jax", "x", 3),
    ],
)
def test_every_format(cli, model, monkeypatch, tmp_path, to, target, files):
    # What a stock configuration would change has a test of its own, and needs jax.
    monkeypatch.setattr("siglip_jax.cli.commands.convert._TINY", 0)
    before = everything(tmp_path)
    code, out, err = cli("convert", model, target, "--to", to)
    said = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines())
    assert (code, err) == (0, [])
    assert everything(tmp_path) != before
    assert said["written"].startswith(f"{target} ({to}, ")
    assert files == 0 or said["written"].endswith(f", {files} file{'s' * (files > 1)})")
    assert said["round trip"] == "read back: every bit as in the source"
    certificate = json.loads((tmp_path / said["certificate"]).read_text())
    assert certificate["target"]["path"] == target and certificate["target"]["format"] == to
    counts = certificate["counts"]
    assert said["tensors"].startswith(f"{counts['used']} of {counts['stored']} used, ")
    with open_checkpoint(tmp_path / target, res=32 if to in ("npz", "tensorstore") else None) as x:
        assert x.format == to


def test_json_is_the_certificate(cli, model, tmp_path):
    code, out, err = cli("convert", model, "x.npz", "--to", "npz", "--json", "--dtype", "float16")
    assert (code, err) == (0, [])
    assert json.loads(out) == json.loads((tmp_path / "x.npz.conversion.json").read_text())
    assert json.loads(out)["round_trip"]["dtype_kept"] is False


def test_options(cli, hf, tmp_path):
    code, out, _ = cli("convert", hf, "s.npz", "--to", "npz", "--scan", "--dtype", "bfloat16")
    assert code == 0 and "the source's numbers as bfloat16" in out
    with open_checkpoint(tmp_path / "s.npz", res=32) as source:
        assert "img/Transformer/encoderblock/LayerNorm_0/bias" in source.reader.shapes
        assert {h.dtype.name for h in source.reader.shapes.values()} == {"bfloat16"}
        assert source.config.text.length == 8
    code, out, _ = cli("convert", "s.npz", "l.npz", "--to", "npz", "--loop", "--res", "36")
    with open_checkpoint(tmp_path / "l.npz", res=36) as source:
        assert "img/Transformer/encoderblock_0/LayerNorm_0/bias" in source.reader.shapes
    for tower in ("image", "text"):
        code, out, _ = cli("convert", hf, tower, "--to", "siglip_jax", "--tower", tower)
        assert code == 0
        with open_checkpoint(tmp_path / tower) as source:
            assert source.tower == tower
    code, out, _ = cli("convert", hf, "n.npz", "--to", "npz", "--no-verify")
    assert code == 0 and "round trip   not read back\n" in out
    kw = ("--res", "32", "--pad", "1")
    code, out, _ = cli("convert", "l.npz", "hf2", "--to", "transformers", *kw)
    assert code == 0 and "no vocabulary was found, so that no tokenizer files" in out
    code, out, _ = cli(
        *("convert", "l.npz", "hf2", "--to", "transformers", "--force", *kw),
        *("--vocabulary", VOCABULARY),
    )
    assert code == 0 and "note" not in out
    assert (tmp_path / "hf2" / "spiece.model").read_bytes() == VOCABULARY.read_bytes()


def test_the_released_vocabulary_travels_too(cli, model, monkeypatch, tmp_path):
    # As if tiny.model were one of them.
    convert(model, tmp_path / "x.npz", to="npz")
    known, asked, made = VOCABULARIES["c4_en"], [], tmp_path / "hf"
    monkeypatch.setattr(
        "siglip_jax.converters.checkpoint.released_vocabulary", lambda config: known
    )

    def locate(vocabulary):
        asked.append(vocabulary)
        return VOCABULARY

    monkeypatch.setattr("siglip_jax.fetch.fetch_vocabulary", locate)
    code, _, err = cli("convert", "x.npz", made, "--to", "transformers", "--res", 32, "--pad", 1)
    assert (code, err) == (0, []) and asked == [known]
    assert (made / "spiece.model").read_bytes() == VOCABULARY.read_bytes()


def test_a_released_name(cli, monkeypatch, tmp_path):
    """Any name of it is its file on this machine, which is read as what the table says."""
    paths = []

    def stop(path, **kw):
        paths.append(path)
        raise ValueError("as far as this test goes")

    monkeypatch.setattr("siglip_jax.model_files.open_checkpoint", stop)
    file = tmp_path / "home" / find("siglip_b16_224").file
    file.parent.mkdir()
    file.touch()
    code, _, err = cli("convert", "ViT-B-16-SigLIP", "x", "--to", "open_clip")
    assert (code, err) == (2, ["siglip-jax: error: as far as this test goes"])
    assert paths == [file]


def test_a_repository_of_the_hub(cli, hf, monkeypatch):
    asked = []

    def locate(name, needed, revision):
        asked.append(name)
        return hf

    monkeypatch.setattr("siglip_jax.fetch.fetch_repository", locate)
    code, out, err = cli("convert", "somebody/fine-tune", "x.npz", "--to", "npz")
    assert (code, err, asked) == (0, [], ["somebody/fine-tune"])
    assert "every bit as in the source" in out
    assert cli("diff", "somebody/fine-tune", "x.npz")[0] == 0


def test_the_plan(cli, hf, tmp_path):
    before = everything(tmp_path)
    code, out, err = cli("convert", hf, "x", "--to", "timm", "--dry-run")
    head, *rows = out.splitlines()
    assert (code, err) == (0, [])
    assert head.split() == ["SOURCE", "SHAPE", "OPERATION", "TARGET", "SHAPE", "DTYPE"]
    layer = "vision_model.encoder.layers.1.self_attn"
    (row,) = [row for row in rows if "blocks.1.attn.qkv.weight" in row]
    assert re.split(r"\s{2,}", row) == [
        f"{layer}.q_proj.weight + {layer}.k_proj.weight + {layer}.v_proj.weight",
        "(24, 24) + (24, 24) + (24, 24)",
        "join 3",
        "blocks.1.attn.qkv.weight",
        "(72, 24)",
        "float32",
    ]
    assert "dropped: text_model.final_layer_norm.bias (not in the tower)" in rows
    code, out, err = cli("convert", hf, "x", "--to", "timm", "--dry-run", "--json")
    plain = json.loads(out)
    assert len(plain["plan"]) + len(plain["dropped"]) == len(rows)
    assert plain["plan"][0]["target"] == "patch_embed.proj.weight"
    assert everything(tmp_path) == before


def test_the_plan_for_a_person_folds_layers(monkeypatch, model):
    code, shown = on_a_terminal(
        monkeypatch, "convert", model, "x.npz", "--to", "npz", "--scan", "--dry-run"
    )
    assert code == 0
    assert (
        "img/Transformer/encoderblock_{i}/LayerNorm_0/bias (24,)\n"
        "  -> img/Transformer/encoderblock/LayerNorm_0/bias (2, 24) float32: stack 2 layers\n"
    ) in shown
    code, shown = on_a_terminal(
        monkeypatch, "convert", model, "x", "--to", "transformers", "--dry-run"
    )
    assert (
        "txt/Encoder_0/encoderblock_{i}/MlpBlock_0/Dense_0/kernel (16, 36)\n"
        "  -> text_model.encoder.layers.{i}.mlp.fc1.weight (36, 16) float32: i o -> o i  x2\n"
    ) in shown
    assert not re.search(r"encoderblock_\d", shown)


def test_jax_is_not_needed(model, tmp_path):
    code = (
        "import sys\n"
        "import siglip_jax.cli.commands.convert as c\n"
        "from siglip_jax.cli.main import main\n"
        "c._TINY = 0\n"  # as for a model of real size
        "source, *targets = sys.argv[1:]\n"
        "for to, target in zip(targets[::2], targets[1::2]):\n"
        "    assert main(['convert', source, target, '--to', to]) == 0\n"
        "assert main(['convert', source, 'y', '--to', 'timm', '--dry-run']) == 0\n"
        "found = {'jax', 'flax', 'torch', 'tensorflow'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    targets = [(to, tmp_path / (f"{to}.npz" if to == "npz" else to)) for to in FORMATS]
    shell("-c", code, model, *(str(part) for pair in targets for part in pair))


def test_what_a_stock_configuration_would_change(cli, model, tmp_path):
    code, out, err = cli("convert", model, "oc", "--to", "open_clip", "--exact", "--json")
    made = json.loads(out)
    assert (code, err) == (0, [])
    assert made["stock_gelu"]["exact_in"] == ["image", "text"]
    effect = made["stock_gelu"]["largest_difference"]
    # Both towers move by what the two forms of GELU are apart, and not by rounding.
    assert 1e-6 < effect["image"] < 1e-3 and 1e-6 < effect["text"] < 1e-3
    assert effect["logits"] > effect["image"]
    note = made["notes"][-1]
    assert f"image embeddings {effect['image']:.1e}, text embeddings {effect['text']:.1e}" in note
    assert json.loads((tmp_path / "oc" / "conversion.json").read_text()) == made


@pytest.mark.parametrize(
    ("name", "to", "exact"),
    [
        ("siglip_b16_224", "open_clip", "image text"),
        ("siglip_b16_224", "timm", "image"),
        ("siglip2_b16_224", "open_clip", "image"),
        ("siglip2_b32_256", "open_clip", ""),
        ("siglip2_b16_naflex", "timm", ""),
        ("siglip_b16_224", "transformers", ""),
    ],
)
def test_which_stock_configurations_are_exact(name, to, exact):
    row = find(name)
    assert " ".join(FORMATS[to].exact_gelu(row.config, row.vocabulary.pad)) == exact
