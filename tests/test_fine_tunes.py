"""The table of fine-tunes: exact sizes, found by any name, never taken for released ones."""

import json
import math

import pytest
from tiny_checkpoint import CONFIG, tensors

from siglip_jax import checkpoints, fetch
from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.cli.main import main
from siglip_jax.converters import convert, open_checkpoint
from siglip_jax.fine_tunes import FINE_TUNES, find_fine_tune
from siglip_jax.model_files import open_model
from siglip_jax.weights.layout import parameter_shapes
from siglip_jax.weights.npz import write_npz


def test_they_are_rows_of_another_kind():
    assert not {t.name for t in FINE_TUNES} & {c.name for c in CHECKPOINTS}
    assert len(CHECKPOINTS) == 27
    for tune in FINE_TUNES:
        assert checkpoints.find(tune.base) and tune.licence
        with pytest.raises(ValueError, match="no released checkpoint"):
            checkpoints.find(tune.hf)


@pytest.mark.parametrize("tune", FINE_TUNES, ids=lambda tune: tune.name)
def test_sizes_are_those_of_the_architecture(tune):
    shapes = parameter_shapes(tune.config)
    assert sum(map(math.prod, shapes.values())) == tune.params
    assert tune.config.text.vocab_size == checkpoints.VOCABULARIES[tune.tokenizer].rows


def test_found_by_any_name():
    for name in ("google/medsiglip-448", "MedSigLIP", "hf-hub:google/medsiglip-448"):
        assert find_fine_tune(name).config.vision.grid == 32
    assert find_fine_tune("marqo-fashionsiglip").profile == "open_clip"
    names = [n.lower() for t in FINE_TUNES for n in {t.name, t.hf, *t.aliases}]
    assert len(names) == len(set(names))


def test_files_come_from_its_repository(monkeypatch, tmp_path):
    write_npz(tmp_path / "t.npz", tensors().items())
    convert(tmp_path / "t.npz", tmp_path / "hf", to="transformers", config=CONFIG, pad=1)
    asked = []

    def repository(name, needed, revision=None):
        asked.append(name)
        return tmp_path / "hf"

    monkeypatch.setattr(fetch, "fetch_repository", repository)
    for name in ("medsiglip_448", "google/medsiglip-448"):
        with open_model(name) as opened:
            assert opened.name == "medsiglip_448" and opened.checkpoint is None
    assert asked == ["google/medsiglip-448"] * 2


def test_a_gated_repository_says_what_to_do(monkeypatch):
    def repository(name, needed, revision=None):
        raise ValueError(f"the hub repository {name} could not be downloaded")

    monkeypatch.setattr(fetch, "fetch_repository", repository)
    with pytest.raises(ValueError, match=r"accept its licence .*huggingface\.co/google/medsig"):
        open_model("medsiglip_448")
    with pytest.raises(ValueError, match=r"did you mean marqo_fashion_siglip\?"):
        open_model("marqo_fashion_siglp")


def test_list_and_show(capsys):
    assert main(["list", "--fine-tunes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [tune.name for tune in FINE_TUNES]
    assert main(["list", "--fine-tunes"]) == 0
    assert "Apache-2.0" in capsys.readouterr().out
    assert main(["show", "marqo_ecommerce_l", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["licence"] == "Apache-2.0" and facts["fine_tune_of"] == "siglip_l16_256"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (
            {"open_clip_model_name": "hf-hub:Marqo/x", "auto_map": {"AutoModel": "code.Model"}},
            r"its model is built by open_clip \(hf-hub:Marqo/x\); use its open_clip files",
        ),
        ({"auto_map": {"AutoModel": "code.Model"}}, r"code of its own \(code\.Model\)"),
    ],
)
def test_a_card_without_an_architecture_is_named(tmp_path, card, message):
    """Its defaults are those of B/16 at 224 px, which it need not be."""
    write_npz(tmp_path / "t.npz", tensors().items())
    convert(tmp_path / "t.npz", tmp_path / "hf", to="transformers", config=CONFIG, pad=1)
    (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": "siglip", **card}))
    with pytest.raises(ValueError, match=message):
        open_checkpoint(tmp_path / "hf")
    with open_checkpoint(tmp_path / "hf", config=CONFIG) as opened:
        assert opened.config == CONFIG
