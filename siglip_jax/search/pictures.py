"""The images that rows are of, found again where the job read them."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from siglip_jax.data.open import SHARD_SIZE, open_items
from siglip_jax.data.storage import is_remote
from siglip_jax.messages import escaped
from siglip_jax.search.embeddings import Embeddings, Row


def pictures_of(
    embeddings: Embeddings, rows: Sequence[Row], specs: Sequence[str] = ()
) -> dict[Row, bytes | str]:
    """Bytes or path of the images of `rows`; those that cannot be read are left out.

    Args:
      specs: what the job was given as its source, where its manifest does not say; files
        are looked for by their keys where nothing does.

    Raises:
      ValueError: if `specs` cannot be opened.
    """
    found: dict[Row, bytes | str] = {}
    for number, manifest in enumerate(embeddings.manifests):
        own = [row for row in rows if row.folder == number]
        origin: Any = {"specs": list(specs)} if specs else manifest.source.get("origin")
        if origin is None or "-" in origin["specs"]:  # standard input is gone
            found |= {row: row.key for row in own if Path(row.key).is_file()}
            continue
        # What the manifest says may be gone by now; what was asked for must be there.
        with contextlib.ExitStack() as stack:
            if not specs:
                stack.enter_context(contextlib.suppress(ValueError))
                # Other files may have the same names here.
                stack.enter_context(_inside(origin.get("folder")))
            columns = {f"{what}_column": origin.get(what) for what in ("image", "text", "key")}
            columns["separator"] = origin.get("separator")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the job has said what it left out
                source = open_items(
                    origin["specs"],
                    **columns,
                    only=origin.get("only", "images"),
                    shard_size=origin.get("shard_size", SHARD_SIZE),
                )
            wanted: dict[str, Row] = {row.key: row for row in own}
            by_shard: dict[int, set[str]] = {}
            for row in own:
                by_shard.setdefault(row.shard, set()).add(row.key)
            # With other options, or after an update, the shards are cut otherwise: then all are
            # gone through.
            other = source.identity() != manifest.source["identity"]
            if other:
                warnings.warn(
                    f"{', '.join(origin['specs'])}: not what the job read: files have changed, or "
                    "these are others; the images shown may be others, too",
                    stacklevel=2,
                )
            if other or manifest.source.get("updates"):
                by_shard = {shard: set(wanted) for shard in range(len(source.shards()))}
            for shard, keys in by_shard.items():
                # Names that are no Unicode have another spelling in the source.
                asked = None if any("\\" in key for key in keys) else keys
                with contextlib.suppress(ValueError):
                    for item in source.read(shard, asked):
                        row = wanted.get(escaped(item.key))
                        if row is not None and item.image is not None:
                            found[row] = _absolute(item.image)
    return found


@contextlib.contextmanager
def _inside(folder: str | None) -> Iterator[None]:
    """The working folder, as the job had it, if it is still there."""
    if folder is None or not Path(folder).is_dir():
        yield
    else:
        with contextlib.chdir(folder):
            yield


def _absolute(image: bytes | str) -> bytes | str:
    return image if isinstance(image, bytes) or is_remote(image) else str(Path(image).absolute())
