"""Our losses against open_clip's, values and gradients."""

import jax
import numpy as np
import pytest
from pairs import PARAMETERS, assert_agree, pairs
from tolerances import LOSS_RELATIVE
from torch_libraries import import_libraries

torch, open_clip_loss = import_libraries("open_clip.loss")

from siglip_jax.training.loss import sigmoid_loss, softmax_loss  # noqa: E402

# open_clip takes the temperature already exponentiated; a softmax has no bias.
LOSSES = {
    "sigmoid": (sigmoid_loss, lambda x, y, t, b: open_clip_loss.SigLipLoss()(x, y, t.exp(), b)),
    "softmax": (softmax_loss, lambda x, y, t, b: open_clip_loss.ClipLoss()(x, y, t.exp()) + 0 * b),
}


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("name", LOSSES)
def test_equals_open_clip(name, parameters):
    ours, theirs = LOSSES[name]
    inputs = pairs(64, parameters=parameters)
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    loss = theirs(*tensors)
    loss.sum().backward()
    want = loss.item(), [x.grad.numpy() for x in tensors]
    value, gradients = jax.jit(jax.value_and_grad(ours, (0, 1, 2, 3)))(*inputs)
    assert_agree((np.asarray(value), gradients), want, LOSS_RELATIVE)
