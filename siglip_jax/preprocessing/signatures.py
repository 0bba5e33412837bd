"""Images by their first bytes, since names may end in anything; and what else reads some."""

import importlib

HEAD = 16  # bytes that tell

# Where the bytes lie, and what they are.
_SIGNATURES: dict[str, tuple[tuple[int, bytes], ...]] = {
    "JPEG": ((0, b"\xff\xd8\xff"),),
    "PNG": ((0, b"\x89PNG\r\n\x1a\n"),),
    "GIF": ((0, b"GIF8"),),
    "WebP": ((0, b"RIFF"), (8, b"WEBP")),
    "BMP": ((0, b"BM"), (6, b"\0\0\0\0")),
    "TIFF": ((0, b"II*\0"),),
    "TIFF, big-endian": ((0, b"MM\0*"),),
    "JPEG 2000": ((0, b"\0\0\0\x0cjP  "),),
    "JPEG XL": ((0, b"\0\0\0\x0cJXL "),),
    "JPEG XL, bare": ((0, b"\xff\x0a"),),
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
)


def image_format(head: bytes) -> str | None:
    r"""The format of an image that begins with `head`; None if it is no image.

    >>> image_format(b"GIF89a" + bytes(10)), image_format(b"\0\0\0\x18ftypheic"), image_format(b"")
    ('GIF', 'HEIC', None)
    """
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    for name, parts in _SIGNATURES.items():
        if all(head[start : start + len(mark)] == mark for start, mark in parts):
            return name.partition(",")[0]
    return None


# Formats that Pillow leaves to another package: its module, what registers it, its name.
_PLUGINS = {
    "HEIC": ("pillow_heif", "register_heif_opener", "pillow-heif"),
    "AVIF": ("pillow_heif", "register_avif_opener", "pillow-heif"),
    "JPEG XL": ("pillow_jxl", "", "pillow-jxl-plugin"),
}


def read_by_plugin(format: str | None) -> bool:
    """Whether Pillow reads a format by another package, which is made known to it now."""
    if format not in _PLUGINS:
        return False
    module, register, _ = _PLUGINS[format]
    try:
        plugin = importlib.import_module(module)
        if register:
            getattr(plugin, register)()
    except (ImportError, AttributeError):
        return False
    return True


def unknown_format(format: str | None) -> str:
    """Why Pillow does not know a file, by its format.

    >>> unknown_format("HEIC"), unknown_format(None)
    ('a HEIC image; to read it: pip install pillow-heif', 'not an image in a known format')
    """
    if format in _PLUGINS:
        return f"a {format} image; to read it: pip install {_PLUGINS[format][2]}"
    if format is None:
        return "not an image in a known format"
    if format == "JPEG 2000":
        return "a JPEG 2000 image, which is not read; save it as PNG"
    return f"a truncated or damaged {format}"
