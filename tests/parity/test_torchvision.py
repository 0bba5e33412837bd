"""Against torchvision itself: its resizes of bytes, bit for bit."""

import numpy as np
import pytest
from torch_libraries import import_libraries

torch, tv = import_libraries("torchvision.transforms.v2")

from siglip_jax.preprocessing import ImageProfile  # noqa: E402
from siglip_jax.preprocessing.images import resize_uint8  # noqa: E402

SIZES = [
    ((150, 170), (224, 224)),
    ((33, 20), (48, 48)),
    ((300, 90), (56, 31)),
    ((700, 1000), (64, 64)),
    ((5, 900), (32, 32)),
    ((224, 300), (224, 224)),
    ((1, 1), (16, 16)),
    ((3000, 20), (20, 17)),
]


@pytest.mark.parametrize(("size", "target"), SIZES)
@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_resizes_of_bytes(size, target, method):
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torchvision computes in floats on this CPU")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    mode = tv.InterpolationMode("nearest-exact" if method == "nearest" else method)
    pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    theirs = tv.functional.resize(pixels, list(target), interpolation=mode, antialias=True)
    profile = ImageProfile(decode="pillow", resize=f"torch_{method}", res=224)
    np.testing.assert_array_equal(resize_uint8(image, *target, profile), theirs.permute(1, 2, 0))
