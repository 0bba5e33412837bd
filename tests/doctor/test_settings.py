"""The right settings of a model whose own profile is not that of the released weights."""

import dataclasses

import pytest
from tiny_checkpoint import CONFIG

from siglip_jax.doctor.settings import correct
from siglip_jax.preprocessing import custom_profile
from siglip_jax.preprocessing.image_settings import range_of

PROFILE = custom_profile(CONFIG, 1, "open_clip")
CLIP = range_of((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def of(**changes):
    image = dataclasses.replace(PROFILE.image, **changes)
    return correct(CONFIG, dataclasses.replace(PROFILE, image=image))[0]


def test_what_a_folder_says_is_right_for_its_model():
    found = of(value_range=CLIP, fit="shortest", resize="pil_bilinear")
    assert (found.normalisation, found.framing, found.resize) == (
        "clip",
        "center_crop",
        "pil_bilinear",
    )
    assert of(value_range=(0.0, 1.0)).normalisation == "zero_one"
    assert of().normalisation == "half"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"value_range": (-2.0, 2.0)}, "mean 0.5, std 0.25"),
        ({"fit": "longest"}, "fit longest"),
        ({"crop": 0.5, "resize": "pil_box"}, "resize pil_box, crop 32 of 64"),
    ],
)
def test_what_is_not_modelled_is_refused(changes, named):
    with pytest.raises(ValueError, match=f"the doctor does not model {named}, which the model's"):
        of(**changes)
