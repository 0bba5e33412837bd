"""Parameters that are trained are float32, unless told otherwise."""

# jax and flax annotate their functions in part.
# pyright: reportUnknownMemberType=false

from typing import Any

import jax
import jax.numpy as jnp

from siglip_jax.weights.tree import flatten


def not_float16(z: Any, params: Any) -> Any:
    """`z`, through which no gradient of a float16 parameter goes.

    The squares of gradients that Adam and others keep are below float16's least number, so
    that the parameters are not finite after one step. Other precisions, and gradients of
    inputs alone, are left as they are.

    Args:
      z: arrays computed of `params`.
      params: the tree of all parameters.

    Raises:
      ValueError: where a gradient of such a parameter is asked for.
    """
    leaves = flatten(params).items()
    half = {name: leaf for name, leaf in leaves if jnp.result_type(leaf) == jnp.float16}
    return _guarded(z, half) if half else z


@jax.custom_jvp
def _guarded(z: Any, half: dict[str, jax.Array]) -> Any:
    return z


def _jvp(primals: Any, tangents: Any) -> Any:
    wanted = [
        name
        for name, tangent in tangents[1].items()
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    ]
    if wanted:
        more = f" and {len(wanted) - 1} more" if len(wanted) > 1 else ""
        raise ValueError(
            f"{wanted[0]}{more} are to be trained and are float16, in which a step of Adam is "
            "not finite; load the model with dtype='float32', or, to train float16 all the "
            "same, with Execution(weights='float16')"
        )
    return primals[0], tangents[0]


_guarded.defjvp(_jvp, symbolic_zeros=True)
