"""The dense losses: against the formulas in float64, and what they must not depend on."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import PARAMETERS, assert_agree, pairs, sigmoid_reference
from tolerances import LOSS_FLOAT64_RELATIVE, LOSS_RELATIVE

from siglip_jax.training.loss import sigmoid_loss, softmax_loss

EVERYTHING = (0, 1, 2, 3)
sigmoid = jax.jit(jax.value_and_grad(sigmoid_loss, EVERYTHING))
softmax = jax.jit(jax.value_and_grad(softmax_loss, EVERYTHING))


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("n", [1, 8, 37, 512])
def test_values_and_gradients(n, parameters):
    inputs = pairs(n, parameters=parameters)
    want = sigmoid_reference(*inputs)
    assert_agree(sigmoid(*inputs), want, LOSS_RELATIVE)
    with jax.enable_x64(True):
        got = sigmoid(*(np.float64(x) for x in inputs))
        assert got[0].dtype == np.float64
        assert_agree(got, want, LOSS_FLOAT64_RELATIVE)


def test_the_value_at_initialisation():
    # Orthogonal rows: every logit is the bias. The one match costs 10.00005, and every
    # other text 4.54e-5, which at the paper's batch of 32768 adds up to 1.4876.
    with jax.enable_x64(True):
        t, b = jnp.log(jnp.array([10.0])), jnp.array([-10.0])

        def at_batch(n):
            return float(sigmoid_loss(np.eye(n, 2 * n), np.eye(n, 2 * n, n), t, b))

        match, text = at_batch(1), (at_batch(257) - at_batch(1)) / 256
    assert match == pytest.approx(10.00005, abs=5e-6)
    assert 32767 * text == pytest.approx(1.4876, abs=5e-5)


@pytest.mark.parametrize("loss", [sigmoid_loss, softmax_loss])
@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_wrong_shapes_are_refused_under_test(loss, wrong):
    shapes = [(4, 8), (4, 8), (1,), (1,)]
    assert loss(*map(jnp.zeros, shapes)).shape == ()
    shapes[wrong] = (5, 8) if wrong < 2 else ()
    with pytest.raises(jaxtyping.TypeCheckError):
        loss(*map(jnp.zeros, shapes))


def test_a_perfect_model_costs_nothing_and_a_wrong_one_its_logits():
    z, t, b = np.eye(4, dtype=np.float32), jnp.log(jnp.array([200.0])), jnp.array([-100.0])
    assert float(sigmoid_loss(z, z, t, b)) == 0
    # Every image says yes to another's text, 100, and no to its own, 100.
    assert float(sigmoid_loss(z, np.roll(z, 1, 0), t, b)) == pytest.approx(200, rel=1e-6)


def softmax_reference(zimg, ztxt, t):
    scores = np.exp(np.float64(t[0])) * (np.float64(zimg) @ np.float64(ztxt).T)

    def entropy(scores):
        largest = scores.max(1, keepdims=True)
        return (np.log(np.exp(scores - largest).sum(1)) + largest[:, 0] - np.diag(scores)).mean()

    return (entropy(scores) + entropy(scores.T)) / 2


@pytest.mark.parametrize("n", [1, 8, 37])
def test_softmax(n):
    zimg, ztxt, t, b = pairs(n)
    loss, (_, _, _, by_b) = softmax(zimg, ztxt, t, b)
    np.testing.assert_allclose(loss, softmax_reference(zimg, ztxt, t), rtol=LOSS_RELATIVE, atol=0)
    assert by_b.tolist() == [0]
    assert float(softmax(ztxt, zimg, t, b)[0]) == pytest.approx(float(loss), rel=LOSS_RELATIVE)


def test_softmax_needs_all_texts_and_sigmoid_does_not():
    # With only its own text an image cannot be wrong, to the softmax.
    alone = pairs(1)
    assert float(softmax(*alone)[0]) == 0
    assert float(sigmoid(*alone)[0]) > 1


@pytest.mark.parametrize("loss", [sigmoid, softmax], ids=["sigmoid", "softmax"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.permutations(range(12)))
def test_the_order_of_pairs_does_not_matter(loss, seed, order):
    zimg, ztxt, t, b = pairs(12, seed=seed)
    order = np.array(order)
    value, towers = loss(zimg, ztxt, t, b)
    moved, moved_towers = loss(zimg[order], ztxt[order], t, b)
    # Only the towers: the gradient of t may be next to nothing, matches against the rest.
    want = value, [z[order] for z in towers[:2]]
    assert_agree((moved, moved_towers[:2]), want, LOSS_RELATIVE)


def test_which_text_is_whose_does_matter():
    zimg, ztxt, t, b = pairs(12)
    for loss in (sigmoid, softmax):
        assert float(loss(zimg, np.roll(ztxt, 1, 0), t, b)[0]) > 1.1 * float(
            loss(zimg, ztxt, t, b)[0]
        )
