"""Embeddings of pairs to compute losses of, and the losses in float64 numpy."""

import numpy as np

PARAMETERS = {
    "at initialisation": (np.log(10.0), -10.0),
    "trained": (4.7647, -12.93),  # a temperature of 117
}


def pairs(n, d=16, parameters="at initialisation", seed=0):
    """(zimg, ztxt, t, b), float32 values; each text is a little like its image."""
    rng = np.random.default_rng(seed)
    zimg, noise = rng.normal(size=(2, n, d))
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (zimg, zimg + 2 * noise)]
    t, b = PARAMETERS[parameters]
    return tuple(np.asarray(x, np.float32) for x in (*unit, [t], [b]))


def sigmoid_reference(zimg, ztxt, t, b):
    """(loss, gradients) by the formulas, not by differentiation, in float64."""
    zimg, ztxt, t, b = (np.asarray(x, np.float64) for x in (zimg, ztxt, t, b))
    n = len(zimg)
    labels = 2 * np.eye(n) - 1
    cosines = zimg @ ztxt.T
    scores = labels * (np.exp(t[0]) * cosines + b[0])
    loss = np.logaddexp(0, -scores).sum() / n
    slope = -labels / (1 + np.exp(scores)) / n
    scaled = np.exp(t[0]) * slope
    by_t, by_b = (scaled * cosines).sum(), slope.sum()
    return loss, (scaled @ ztxt, scaled.T @ zimg, np.array([by_t]), np.array([by_b]))


def assert_agree(got, want, relative):
    """Two (loss, gradients), each gradient relative to its largest entry."""
    np.testing.assert_allclose(got[0], want[0], rtol=relative, atol=0)
    for ours, theirs in zip(got[1], want[1], strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max())
