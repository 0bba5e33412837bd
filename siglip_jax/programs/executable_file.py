"""One executable in a file: a digest, plain facts in JSON, and XLA's own bytes. No pickle.

jax would write one with `jax.experimental.serialize_executable`, whose pickle runs what it
names. What it holds beyond XLA's bytes are shapes, dtypes and which arguments are used, since
all here run on one device and give one array.
"""

# jax annotates its functions in part, and these not at all.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportPrivateImportUsage=false

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

# The last byte is the number of this format.
MAGIC = b"siglip_jax executable\x01"
_DIGEST = hashlib.sha256().digest_size


def to_bytes(key: str, compiled: Any) -> bytes:
    """What is in the file `key` of a `jax.stages.Compiled`.

    Raises:
      ValueError: if it is more than a function of arrays that gives one array.
    """
    import jax

    unloaded = compiled._executable._unloaded_executable
    beside = (
        unloaded.unordered_effects,
        unloaded.ordered_effects,
        unloaded.keepalive,
        unloaded.host_callbacks,
        unloaded.mut,
        compiled._params.const_args,
        [layout for layout in unloaded.dispatch_in_layouts if layout is not None],
    )
    one = compiled.out_tree == jax.tree.structure(0) and len(unloaded.output_avals) == 1
    if any(beside) or not one or len(unloaded.device_list) != 1:
        raise ValueError("not a function of arrays alone that gives one array on one device")
    facts = {
        "name": unloaded.name,
        "arguments": [_described(info) for info in jax.tree.leaves(compiled.args_info)],
        "used": sorted(unloaded.kept_var_idx),
        "result": _described(unloaded.output_avals[0]),
    }
    text = json.dumps(facts).encode()
    raw = unloaded.backend.serialize_executable(unloaded.xla_executable)
    body = len(text).to_bytes(8, "little") + text + raw
    return MAGIC + _digest(key, body) + body


def from_bytes(key: str, data: bytes, device: Any) -> Callable[..., Any]:
    """The function in the file `key`, loaded onto `device`.

    Raises:
      ValueError: if this is another file, or damaged. Nothing of it has been parsed by then.
    """
    start = len(MAGIC) + _DIGEST
    body = data[start:]
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : start] != _digest(key, body):
        raise ValueError("not the executable of this name, or damaged")
    length = int.from_bytes(body[:8], "little")
    return _Loaded(json.loads(body[8 : 8 + length]), body[8 + length :], device)


class _Loaded:
    """An executable whose arguments come in the order in which it was compiled for them."""

    def __init__(self, facts: dict[str, Any], raw: bytes, device: Any) -> None:
        from jax._src.lib import xla_client

        devices = xla_client.DeviceList((device,))
        self._facts, self._device, self._devices = facts, device, devices
        self._executable = device.client.deserialize_executable(raw, executable_devices=devices)
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._compiled is None:
            self._compiled = self._for(arguments)
        return self._compiled(*arguments)

    def _for(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """As jax makes it of what it has compiled, for arguments of this structure."""
        import jax
        from jax._src import core
        from jax._src.interpreters import pxla

        def aval(fact: list[Any]) -> Any:
            return core.ShapedArray(tuple(fact[0]), np.dtype(fact[1]))

        every = [aval(fact) for fact in self._facts["arguments"]]
        used = [every[index] for index in self._facts["used"]]
        on_device = jax.sharding.SingleDeviceSharding(self._device)
        unloaded = pxla.UnloadedMeshExecutable(
            xla_executable=self._executable,
            device_list=self._devices,
            backend=self._device.client,
            input_avals=used,
            input_shardings=[on_device] * len(used),
            output_avals=[aval(self._facts["result"])],
            output_shardings=[on_device],
            committed=True,
            name=self._facts["name"],
            unordered_effects=[],
            ordered_effects=[],
            keepalive=[],
            host_callbacks=[],
            kept_var_idx=set(self._facts["used"]),
            mut=None,
            xla_in_layouts=[None] * len(used),
            dispatch_in_layouts=[None] * len(used),
            xla_out_layouts=[None],
            all_args_info=None,
            pgle_profiler=None,
        )
        structure = jax.tree.structure((arguments, {}))
        info = [jax.stages.ArgInfo(aval, donated=False) for aval in every]
        return jax.stages.Compiled(
            unloaded.load(),
            [],
            jax.tree.unflatten(structure, info),
            jax.tree.structure(0),
            no_kwargs=True,
        )


def _described(array: Any) -> list[Any]:
    return [list(array.shape), str(array.dtype)]


def _digest(key: str, body: bytes) -> bytes:
    # With the name in it, a file that was given another's name is no executable of that name.
    return hashlib.sha256(key.encode() + body).digest()
