"""Programs that run in one thread while another compiles or runs its own, on the same GPU."""

from typing import Any

from jax.sharding import Mesh

# XLA records a program's kernels as a CUDA graph in its second run, and again when its arrays
# lie elsewhere. What another thread does on the same GPU meanwhile (loading a program, launching
# or recording another graph) makes CUDA refuse both.
_NO_GRAPHS = {
    "xla_gpu_enable_command_buffer": "",
    # Of so many kernels at least, which none has.
    "xla_gpu_graph_min_graph_size": 2**31 - 1,
}


def for_several_threads(mesh: Mesh) -> dict[str, Any]:
    """Options of `jax.jit` for such a program: on a GPU it is not recorded.

    >>> import jax
    >>> from siglip_jax.programs.sharding import make_mesh
    >>> for_several_threads(make_mesh(jax.devices("cpu")[:1]))
    {}
    """
    on_gpu = mesh.devices.flat[0].platform == "gpu"
    return {"compiler_options": _NO_GRAPHS} if on_gpu else {}
