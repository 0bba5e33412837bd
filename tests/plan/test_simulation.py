"""The simulated job: against sums that can be made by hand, and what trouble does to it."""

import dataclasses

import numpy as np
import pytest

from siglip_jax.plan import Cluster, ShardCosts, draw_costs, simulate
from siglip_jax.plan.shard_costs import BYTES

ONES = np.ones(40)


def costs(cpu=1.0, device=0.0, nbytes=0.0):
    return ShardCosts(100 * ONES.astype(int), cpu * ONES, device * ONES, nbytes * ONES)


@pytest.mark.parametrize(
    ("work", "cluster", "seconds", "side"),
    [
        (costs(cpu=2), Cluster(cores=2), 40, "cores"),
        (costs(cpu=2), Cluster(cores=8, parallel=1), 80, "cores"),
        (costs(cpu=2), Cluster(cores=8, parallel=1, processes=4), 20, "cores"),
        # Two processes on two cores are no faster than one that uses both.
        (costs(cpu=2), Cluster(cores=2, processes=2), 40, "cores"),
        (costs(cpu=2), Cluster(cores=2, hosts=4), 10, "cores"),
        (costs(device=3), Cluster(cores=2, hosts=2), 60, "device"),
        (costs(nbytes=5), Cluster(cores=2, network=10, hosts=2, processes=2), 10, "reading"),
        (costs(nbytes=5), Cluster(network=100, store=20, hosts=4), 10, "reading"),
        (costs(cpu=1), Cluster(start=7), 47, "cores"),
    ],
)
def test_a_job_takes_as_long_as_its_slowest_side(work, cluster, seconds, side):
    done = simulate(work, cluster)
    assert done.seconds == pytest.approx(seconds, rel=1e-6)
    assert (done.items, done.bound[side], done.again) == (4000, 40, 0)


def test_what_a_dead_process_held_is_done_again_after_the_patience():
    cluster = Cluster(cores=2, parallel=1, processes=2, patience=30)
    done = simulate(costs(), cluster, kills=[(5.5, 1)])
    assert (done.items, done.deaths, done.again) == (4000, 1, 2)
    # 35 seconds of its own; those of the dead one at the earliest 30 after it was first looked at.
    assert 35 <= done.seconds <= 40 + 30 + 2 + 1
    alone = simulate(costs(), dataclasses.replace(cluster, processes=1))
    assert done.seconds > alone.seconds - 6


def test_all_processes_dead_is_no_end_unless_they_are_replaced():
    killed = simulate(costs(), Cluster(), kills=[(5.5, 0)])
    assert killed.seconds == np.inf and killed.items == 500
    again = simulate(costs(), Cluster(replaced=10, patience=5), kills=[(5.5, 0)])
    assert again.items == 4000 and again.seconds > 50


@pytest.mark.parametrize(
    "trouble",
    [
        {"slow_share": 0.5, "slow": 0.25},
        {"deaths": 720.0, "replaced": 5.0},
        {"throttled": 0.5, "requests": 5},
    ],
)
def test_trouble_takes_time_and_loses_nothing(trouble):
    cluster = Cluster(hosts=4, cores=2, parallel=1, network=1e9, patience=1.0)
    whole, troubled = (
        simulate(costs(), cluster),
        simulate(costs(), dataclasses.replace(cluster, **trouble)),
    )
    assert troubled.items == whole.items == 4000
    assert troubled.seconds > whole.seconds


def test_the_same_seed_is_the_same_run():
    cluster = Cluster(hosts=4, cores=2, deaths=720.0, replaced=5.0, patience=1.0)
    one, same, other = (simulate(costs(), cluster, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("wrong", [{"hosts": 0}, {"cores": 0}, {"processes": 0}, {"parallel": 0}])
def test_nothing_to_run_on_is_an_error(wrong):
    with pytest.raises(ValueError, match="a host, a core and a process"):
        simulate(costs(), Cluster(**wrong))


def test_the_mean_cost_is_the_measured_one_whatever_the_spread():
    for spread in (0.0, 1.0):
        drawn = draw_costs(
            10**6, 1000, device_rate=500, core_rate=800, spread=spread, rng=np.random.default_rng(1)
        )
        assert drawn.items.sum() == 10**6
        assert drawn.cpu.sum() == pytest.approx(10**6 / 800, rel=0.02)
        assert drawn.nbytes.sum() == pytest.approx(10**6 * BYTES, rel=0.02)
        assert drawn.device.sum() == pytest.approx(2000)
        assert (drawn.cpu[:-1].std() > 0) == (spread > 0)
