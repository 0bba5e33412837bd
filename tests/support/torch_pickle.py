"""Files as `torch.save` writes them, without PyTorch."""

import io
import pickle
import sys
import types
import zipfile

import numpy as np


class _Rebuild:
    """What pickles as a call of `torch._utils._rebuild_tensor_v2`."""

    def __init__(self, pid, array):
        self.pid, self.array = pid, array

    def __reduce__(self):
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        return _rebuild_tensor_v2, (self.pid, 0, self.array.shape, strides, False, None)


class _Storage:
    def __init__(self, key, size):
        self.key, self.size = key, size


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            return ("storage", FloatStorage, obj.key, "cpu", obj.size)
        return None


def _rebuild_tensor_v2(*args):
    raise NotImplementedError


class FloatStorage:
    pass


_rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
    "torch._utils",
    "_rebuild_tensor_v2",
)
FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"


def save(path, tree):
    """Writes nested dictionaries whose arrays are float32 (others become it)."""
    storages = {}

    def convert(value):
        if isinstance(value, dict):
            return {key: convert(inner) for key, inner in value.items()}
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value, np.float32).reshape(value.shape)
            key = str(len(storages))
            storages[key] = array.tobytes()
            return _Rebuild(_Storage(key, array.size), array)
        return value

    # The pickler looks its names up; PyTorch itself must not be needed, nor be changed.
    stand_ins = {"torch": types.ModuleType("torch"), "torch._utils": types.ModuleType("_utils")}
    stand_ins["torch"].FloatStorage = FloatStorage
    stand_ins["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules |= stand_ins
    try:
        out = io.BytesIO()
        _Pickler(out, protocol=2).dump(convert(tree))
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", out.getvalue())
        file.writestr("x/byteorder", "little")
        for key, content in storages.items():
            file.writestr(f"x/data/{key}", content)
