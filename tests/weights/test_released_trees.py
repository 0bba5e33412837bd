"""All 27 released checkpoints against trees that big_vision itself made."""

import hashlib
import json

import jax
import pytest
from flax.traverse_util import flatten_dict
from towers import FIXTURES

from siglip_jax.checkpoints import CHECKPOINTS
from siglip_jax.config import Execution
from siglip_jax.models import SiglipModel, abstract_inputs

TREES = json.loads((FIXTURES / "trees.json").read_text())


def tree(checkpoint, scan):
    run = Execution(scan_image=scan, scan_text=scan)
    model = SiglipModel(checkpoint.config, run)
    params = jax.eval_shape(model.init, jax.random.key(0), *abstract_inputs(checkpoint.config))
    flat = flatten_dict(params["params"], sep="/")
    assert {str(leaf.dtype) for leaf in flat.values()} == {"float32"}
    return {name: list(flat[name].shape) for name in sorted(flat)}


def test_every_checkpoint_has_a_golden():
    assert [c.name for c in CHECKPOINTS] == list(TREES)
    assert len(TREES) == 27


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.name)
def test_scan_tree_and_parameter_count(checkpoint):
    ours = tree(checkpoint, scan=True)
    assert ours == TREES[checkpoint.name]["scan"]
    count = 0
    for shape in ours.values():
        size = 1
        for side in shape:
            size *= side
        count += size
    assert count == checkpoint.params


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: c.name)
def test_loop_tree(checkpoint):
    ours = json.dumps(tree(checkpoint, scan=False), sort_keys=True)
    digest = hashlib.sha256(ours.encode()).hexdigest()
    assert digest == TREES[checkpoint.name]["loop_sha256"]
