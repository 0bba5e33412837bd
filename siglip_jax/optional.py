"""The former home of `messages.from_extra`, for the readers of data that are being rebuilt."""

from siglip_jax.messages import from_extra, optional_package

__all__ = ["from_extra", "optional_package"]
