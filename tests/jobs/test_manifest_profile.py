"""A job's folder from before an image profile had all the fields of today goes on."""

import dataclasses
import json

from tiny_checkpoint import CONFIG

from siglip_jax.jobs.manifest import NAME, Manifest, read_manifest
from siglip_jax.preprocessing import custom_profile


def test_fields_that_were_added_mean_what_they_default_to(tmp_path):
    profile = custom_profile(CONFIG, 1).to_dict()
    space = {"weights": "sha256:0", "profile": profile}
    manifest = Manifest(model="m", space=space, t=0.0, b=0.0, job={}, source={})
    plain = dataclasses.asdict(manifest)
    for name in ("fit", "fill"):
        del plain["space"]["profile"]["image"][name]
    (tmp_path / NAME).write_text(json.dumps(plain))
    assert read_manifest(tmp_path).space["profile"] == profile
