"""The table of the 27 released checkpoints, and finding a row by any of its names."""

import pytest

from siglip_jax.checkpoints import CHECKPOINTS, VOCABULARIES, find
from siglip_jax.config import SIZES, NaFlexVision
from siglip_jax.preprocessing import profile_for

NAMES = [checkpoint.name for checkpoint in CHECKPOINTS]


def spellings(checkpoint):
    gs = checkpoint.url.replace("https://storage.googleapis.com/", "gs://")
    names = [checkpoint.name, *checkpoint.aliases, checkpoint.file, checkpoint.url, gs]
    hub = [checkpoint.hf, *(f"timm/{model}" for model in checkpoint.open_clip), checkpoint.timm]
    names += [f"hf-hub:{name}" for name in hub]
    names += [f"https://huggingface.co/{checkpoint.hf}", f"https://huggingface.co/{checkpoint.hf}/"]
    return names


def test_there_are_27():
    assert len(set(NAMES)) == len(CHECKPOINTS) == 27
    assert sum(c.version == 1 for c in CHECKPOINTS) == 10
    assert sum(c.version == 2 and not c.config.naflex for c in CHECKPOINTS) == 15
    assert sum(c.config.naflex for c in CHECKPOINTS) == 2


def test_no_name_means_two_checkpoints():
    owners = {}
    for checkpoint in CHECKPOINTS:
        for name in spellings(checkpoint):
            assert owners.setdefault(name.lower(), checkpoint.name) == checkpoint.name
    for field in ("file", "url", "hf", "timm"):
        assert len({getattr(c, field) for c in CHECKPOINTS}) == 27


@pytest.mark.parametrize("name", NAMES)
def test_every_spelling_finds_its_row(name):
    checkpoint = find(name)
    assert checkpoint.name == name and name not in checkpoint.aliases
    for spelling in spellings(checkpoint):
        for variant in (spelling, spelling.upper(), spelling.lower(), f" {spelling}\n"):
            assert find(variant) is checkpoint, variant


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("siglip_b16_225", "siglip_b16_224"),
        ("siglip2_so400m14_348", "siglip2_so400m14_384"),
        ("ViT-B-16-SigLP", "ViT-B-16-SigLIP"),
        ("google/siglip2-base-patch16-naflx", "google/siglip2-base-patch16-naflex"),
        ("SigLIP2 g-opt/16 255", "SigLIP2 g-opt/16 256"),
        ("webli_en_b16_224_63724783.npz", "webli_en_b16_224_63724782.npz"),
    ],
)
def test_a_misspelled_name_offers_near_ones(wrong, near):
    message = r"^no released checkpoint is called '.*'; did you mean (.*)\?$"
    with pytest.raises(ValueError, match=message) as error:
        find(wrong)
    assert wrong in str(error.value)
    offers = str(error.value).split("did you mean ")[1].rstrip("?").split(", ")
    assert near in offers
    # Each checkpoint once: three spellings of one would crowd out the others.
    assert len({find(offer).name for offer in offers}) == len(offers) <= 3


@pytest.mark.parametrize("wrong", ["", "zzzzzz", "@/@"])
def test_a_name_that_is_like_none_says_where_all_names_are(wrong):
    with pytest.raises(ValueError, match=r"is called '.*'; `siglip-jax list` shows all names$"):
        find(wrong)


# Facts that a port gets wrong when it derives them.


def test_only_the_so400m_224_reads_16_tokens():
    assert [c.name for c in CHECKPOINTS if c.config.text.length != 64] == ["siglip_so400m14_224"]
    assert find("siglip_so400m14_224").config.text.length == 16


def test_only_the_multilingual_so400m_has_no_text_head():
    headless = [c for c in CHECKPOINTS if c.config.text.head is None]
    assert [c.name for c in headless] == ["siglip_so400m16_256_i18n"]
    assert headless[0].vanity is None  # absent from big_vision's own table as well
    assert headless[0].config.embed_dim == 1152


def test_g_opt_has_a_so400m_text_tower():
    for name in ("siglip2_g-opt16_256", "siglip2_gopt16_384"):
        config = find(name).config
        assert config.vision.size == SIZES["g-opt"] and config.text.size == SIZES["So400m"]
        assert (config.text.size.width, config.text.head) == (1152, 1536)
    for checkpoint in CHECKPOINTS:
        if "g-opt" not in checkpoint.name:
            assert checkpoint.config.vision.size == checkpoint.config.text.size


def test_heads_and_mlp_are_not_derived_from_the_width():
    so400m, g_opt = SIZES["So400m"], SIZES["g-opt"]
    assert (so400m.num_heads, so400m.head_dim, so400m.mlp_dim) == (16, 72, 4304)
    assert (g_opt.num_heads, g_opt.head_dim, g_opt.depth) == (16, 96, 40)


def test_384_pixels_of_patch_14_are_cropped_to_a_27_grid():
    for name in ("siglip_so400m14_384", "siglip2_so400m14_384"):
        vision = find(name).config.vision
        assert (vision.res, vision.patch, vision.grid) == (384, 14, 27)


def test_open_clip_feeds_one_checkpoint_378_pixels():
    other = {c.name: c.open_clip_res for c in CHECKPOINTS if c.open_clip_res}
    assert other == {"siglip2_so400m14_384": 378}
    checkpoint = find("siglip2_so400m14_384")
    assert profile_for(checkpoint, "open_clip").image.res == 378
    assert profile_for(checkpoint).image.res == 384
    assert find("ViT-SO400M-14-SigLIP-378").name == "siglip_so400m14_384"
    assert find("ViT-SO400M-14-SigLIP2-378").name == "siglip2_so400m14_384"


def test_naflex_has_a_16_grid_and_a_canvas_of_64():
    for name in ("siglip2_b16_naflex", "siglip2_so400m16_naflex"):
        vision = find(name).config.vision
        assert isinstance(vision, NaFlexVision)
        assert (vision.patch, vision.posemb_grid, vision.canvas) == (16, 16, 64)


def test_vocabularies():
    used = {c.name: c.tokenizer for c in CHECKPOINTS}
    assert {n for n, t in used.items() if t == "mc4"} == {n for n in used if n.endswith("_i18n")}
    assert {n for n, t in used.items() if t == "gemma"} == {
        n for n in used if n.startswith("siglip2_")
    }
    rows = {name: (v.pieces, v.rows, v.pad) for name, v in VOCABULARIES.items()}
    assert rows == {
        "c4_en": (32_000, 32_000, 1),
        "mc4": (250_100, 250_000, 1),  # 100 sentinel pieces have no embedding
        "gemma": (256_000, 256_000, 0),
    }
    assert all(c.config.text.vocab_size == c.vocabulary.rows for c in CHECKPOINTS)


def test_urls_and_hub_mirrors():
    first, second = find("siglip_b16_224"), find("siglip2_so400m16_512")
    storage = "https://storage.googleapis.com/big_vision"
    assert first.url == f"{storage}/siglip/webli_en_b16_224_63724782.npz"
    assert second.url == f"{storage}/siglip2/siglip2_so400m16_512.npz"
    assert first.hub_npz is None  # SigLIP's npz files are on no hub
    assert second.hub_npz == "google/siglip2-so400m-patch16-512-jax"


def test_accuracy():
    assert find("siglip2_g-opt16_384").accuracy.imagenet == 85.0
    assert find("siglip_so400m14_384").accuracy.imagenet == 83.2
    i18n = find("siglip_b16_256_i18n").accuracy
    assert (i18n.imagenet, i18n.xm3600_t2i, i18n.xm3600_i2t) == (None, 42.6, 54.1)
    naflex = find("siglip2_b16_naflex").accuracy
    assert (naflex.imagenet, naflex.imagenet_v2, naflex.coco_i2t) == (78.5, None, 67.3)
