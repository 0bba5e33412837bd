"""Bulk jobs on paper: the slowest side decides, and the numbers are those of RESULTS.md."""

import json
import math
import re

import pytest
from paths import REPO

from siglip_jax.checkpoints import find
from siglip_jax.plan import CHIPS, HOSTS, bulk_plan
from siglip_jax.plan.flops import image_flops, training_flops
from siglip_jax.plan.hosts import Host
from siglip_jax.plan.measured import DECODING, EMBEDDING, TRAINING

HOST = Host(4, 10, 1e9, "made up")
MANY = {"processes": 100}
PLAIN = {"chips": 8, "host": HOST, "peak": 1e6, "width": 100}


@pytest.mark.parametrize(
    ("changes", "bound", "rate"),
    [
        ({"core_rate": 424}, "decoding in the processes", 2 * DECODING.process / 2),
        ({}, "decoding in the processes", 2 * DECODING.process),
        ({"processes": 100}, "the hosts' cores", 2 * 10 * 848),
        ({"processes": 100, "core_rate": 1e5}, "the network", 2 * 1e9 / 42_000),
        (
            {"processes": 100, "core_rate": 1e5, "image_bytes": 1},
            "the chips",
            1e6 * EMBEDDING.share,
        ),
        ({"peak": 1000}, "the chips", 1000 * EMBEDDING.share),
        ({"memory": 300.0}, "the chips", 300),
    ],
)
def test_the_slowest_side_bounds(changes, bound, rate):
    plan = bulk_plan(10**9, **PLAIN | changes)
    assert plan.bound == bound
    assert plan.rate == pytest.approx(rate)
    assert plan.hours == pytest.approx(10**9 / rate / 3600)
    assert plan.hours_all_cores <= plan.hours


def test_bytes_and_shards():
    plan = bulk_plan(5000, **PLAIN, image_bytes=1000)
    assert (plan.hosts, plan.shards, plan.read) == (2, 3, 5_000_000)
    assert plan.written == 5000 * (400 + 48) + 3 * 400
    plain = json.loads(json.dumps(plan.to_dict()))
    assert plain["hours"] == plan.hours and plain["assumptions"]


@pytest.mark.parametrize(
    "wrong", [{"items": 0}, {"image_bytes": -1.0}, {"core_rate": math.inf}, {"processes": 0}]
)
def test_what_is_no_number_above_0_is_an_error(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a number above 0"):
        bulk_plan(**{"items": 10} | PLAIN | wrong)


def test_every_chip_has_a_host():
    assert set(HOSTS) == {chip.name for chip in CHIPS}


def test_what_was_measured_is_in_the_results():
    results = (REPO / "benchmarks" / "RESULTS.md").read_text("utf-8")
    config, peak = find("siglip_b16_224").config, 989.4e12
    for share, per_second, flops in (
        (EMBEDDING, 10_415, image_flops(config)),
        (TRAINING, 2_323, training_flops(config, 256, 1) / 256),
    ):
        assert f"{per_second:,}" in share.source and f"{per_second:,}" in results
        assert share.share == pytest.approx(per_second * flops / peak, rel=0.01)
    assert re.search(rf"^exact +{DECODING.core:.0f} images/s .* 128 images/s", results, re.M)
    assert re.search(rf"^16 .* {DECODING.process:,.0f} ", results, re.M)
    assert 1 / (DECODING.seconds + 3e6 * DECODING.seconds_per_pixel) == pytest.approx(128)
