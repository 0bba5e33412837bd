"""What a job may be run by in the place of this process, and what does not go with that."""

from typing import Any

from siglip_jax.data.failures import SettingError

RAY = "ray"
_ADDRESS = "ray://"
# Which each say in another way who does which shards, or are for one device that is known.
_OTHERWISE = {
    "shared": "Ray divides the shards among its actors",
    "part": "Ray divides the shards among its actors",
    "distributed": "Ray divides the shards among its actors",
    "update": "an update is done by one process",
    "program": "a saved program is for the devices of one process",
}


def check_engine(options: Any) -> None:
    """Raises a ValueError if the engine of `options` is none, or does not go with the others.

    >>> from types import SimpleNamespace
    >>> check_engine(SimpleNamespace(engine="ray://head:10001", shared=False))
    >>> check_engine(SimpleNamespace(engine="ray", part="1/2"))
    Traceback (most recent call last):
    siglip_jax.data.failures.SettingError: Ray divides the shards among its actors; leave out part
    """
    if options.engine is None:
        return
    named_engine(options.engine)
    for name, why in _OTHERWISE.items():
        if getattr(options, name, None):
            advice = "leave out {}" if name != "update" else "run {} without an engine"
            raise SettingError(why, name, advice)


def named_engine(text: str) -> str:
    """The name of an engine, if it is one.

    Raises:
      ValueError: one line, if not.

    >>> named_engine("spark")
    Traceback (most recent call last):
    ValueError: the engine must be ray or ray://HOST:PORT, got 'spark'
    """
    if text != RAY:
        host, colon, port = text.removeprefix(_ADDRESS).rpartition(":")
        if not (text.startswith(_ADDRESS) and host and colon and port.isdecimal()):
            raise ValueError(f"the engine must be ray or ray://HOST:PORT, got {text!r}")
    return text
