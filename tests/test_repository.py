"""Hub repositories: which files are fetched, and what stands in when there is no network."""

from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from towers import case

from siglip_jax import checkpoints, load
from siglip_jax.converters import convert, needed_files
from siglip_jax.fetch import fetch_model, fetch_repository, is_repository
from siglip_jax.preprocessing import custom_profile

COMMON = ["README.md", ".gitattributes", "tokenizer.json", "special_tokens_map.json"]
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        # As google/siglip-base-patch16-224, google/siglip2-*, sharded, -jax, timm/* are laid out.
        (
            ["config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin",
             "spiece.model", "tokenizer_config.json"],
            ["config.json", "preprocessor_config.json", "model.safetensors", "spiece.model",
             "tokenizer_config.json"],
        ),
        (
            ["config.json", *SHARDS, "model.safetensors.index.json", "tokenizer.model"],
            ["config.json", *SHARDS, "model.safetensors.index.json", "tokenizer.model"],
        ),
        # Where there is no sentencepiece file, tokenizer.json is the vocabulary.
        (
            ["config.json", "pytorch_model.bin"],
            ["config.json", "pytorch_model.bin", "tokenizer.json"],
        ),
        (["siglip2_b16_naflex.npz"], ["siglip2_b16_naflex.npz"]),
        (["siglip2_b16_naflex.npz", "config.json"], ["siglip2_b16_naflex.npz", "config.json"]),
        (
            ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin",
             "model.safetensors", "config.json", "tokenizer_config.json"],
            ["open_clip_config.json", "open_clip_model.safetensors", "config.json",
             "tokenizer.json", "tokenizer_config.json"],
        ),
        (["siglip_jax.json", "weights.safetensors", "tokenizer.model"],
         ["siglip_jax.json", "weights.safetensors", "tokenizer.model"]),
    ],
)  # fmt: skip
def test_only_what_is_needed(files, needed):
    assert needed_files([*COMMON, *files]) == sorted(needed)


def test_a_repository_without_weights():
    with pytest.raises(ValueError, match=r"no weights of a known format among README\.md"):
        needed_files(["README.md", "tf_model.h5"])


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("google/siglip2-base-patch16-naflex", True),
        ("hf-hub:timm/ViT-B-16-SigLIP", True),
        ("me/my_model.v2", True),
        ("siglip_b16_224", False),
        ("SigLIP B/16 224", False),
        ("./runs/model", False),
        ("/abs/path", False),
        ("runs/x.npz", False),
        ("a/b/c", False),
    ],
)
def test_what_looks_like_a_repository(name, is_one):
    assert is_repository(name) == is_one


class Hub:
    """Stands in for the hub: one repository, in a folder; keeps what was asked of it."""

    def __init__(self, monkeypatch, folder):
        self.folder, self.asked, self.down = folder, [], False
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.download)

    def model_info(self, repository, revision, timeout):
        if self.down:
            raise OSError("no route to the hub.\nmore")
        names = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*"))
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    def download(self, repository, revision, local_files_only=False, allow_patterns=None):
        self.asked.append((repository, revision, local_files_only, allow_patterns))
        if self.down and not self.folder.is_dir():
            raise OSError("not in the cache")
        return str(self.folder)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("SIGLIP_JAX_HOME", str(tmp_path / "home"))
    return Hub(monkeypatch, tmp_path / "repository")


def test_a_repository_is_loaded_in_its_own_format(hub):
    tiny = case("loop")
    convert(tiny.path, hub.folder, to="transformers", config=tiny.config, pad=1)
    profile = custom_profile(tiny.config, 1)
    model = load("me/fine-tune", profile=profile, revision="v2")
    assert (model.config, model.name) == (tiny.config, str(hub.folder))
    np.testing.assert_array_equal(model.params["t"], tiny.params["t"])
    files = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert hub.asked == [("me/fine-tune", "v2", False, files)]


@pytest.mark.parametrize("how", ["down", "offline"])
def test_without_a_network_the_cache_will_do(hub, monkeypatch, how):
    tiny = case("loop")
    if how == "down":
        hub.down = True
    else:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reason = {"down": "no route to the hub", "offline": "HF_HUB_OFFLINE is set"}
    hub.down, down = True, hub.down
    with pytest.raises(
        ValueError,
        match=rf"repository me/x is not on this machine and could not be \S+ \(({reason[how]})\)$",
    ):
        fetch_repository("me/x", needed_files)
    hub.down = down
    convert(tiny.path, hub.folder, to="transformers", config=tiny.config, pad=1)
    assert fetch_repository("hf-hub:me/x", needed_files) == hub.folder
    assert hub.asked[-1] == ("me/x", None, True, None)


def test_a_repository_that_holds_no_model(hub):
    hub.folder.mkdir()
    (hub.folder / "data.csv").touch()
    with pytest.raises(ValueError, match=r"me/x: no weights of a known format among data\.csv"):
        fetch_repository("me/x", needed_files)


def test_a_released_file_on_this_machine_goes_before_the_hub(hub, tmp_path, monkeypatch):
    row = checkpoints.find("google/siglip-base-patch16-224")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / row.file).touch()
    assert fetch_model(row.hf, needed_files)[:2] == (tmp_path / "home" / row.file, row)
    assert hub.asked == []


def test_a_released_repository_that_cannot_be_had(hub, monkeypatch):
    hub.down = True
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("siglip_jax.fetch._from_hub", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match=r"cannot find the weight file of siglip_b16_224 .*fe"):
        load("google/siglip-base-patch16-224")
    with pytest.raises(ValueError, match="siglip-base-patch16-224 is not on this machine"):
        load("google/siglip-base-patch16-224", revision="main")
