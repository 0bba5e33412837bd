"""Rates are of the recent past, and none is said before there is one."""

import pytest

from siglip_jax.recent_rate import RecentRate


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_none_before_two_batches_are_back(clock):
    rate = RecentRate(clock=clock)
    for clock.now in (1.0, 25.0):
        rate.count(0)
        assert (rate.value, rate.seconds_left(100)) == (None, None)
    rate.count(32)  # 25 s of compiling are no part of what follows
    assert rate.seconds_left(68) is None
    clock.now = 27.0
    rate.count(64)
    assert (rate.value, rate.seconds_left(32)) == (16.0, 2.0)


def test_what_was_done_before_is_no_part_of_it(clock):
    rate = RecentRate(10_000, clock=clock)
    for clock.now, done in ((5.0, 10_000), (10.0, 10_010), (20.0, 10_020)):
        rate.count(done)
    assert rate.value == 1.0


def test_what_was_fast_an_hour_ago_says_nothing(clock):
    rate = RecentRate(clock=clock)
    for step in range(1000):
        clock.now = step / 10
        rate.count(100 * step)
    assert rate.value == pytest.approx(1000)
    done = 100 * 999
    for _ in range(60):
        clock.now += 1
        done += 10
        rate.count(done)
    assert rate.value == pytest.approx(10, rel=0.01)


def test_a_stall_is_seen(clock):
    rate = RecentRate(clock=clock)
    for clock.now, done in ((1.0, 10), (2.0, 20), (3.0, 30)):
        rate.count(done)
    clock.now = 3.9
    assert rate.value == 10  # between two batches
    clock.now = 21.0
    assert rate.value == 1


def test_many_counts_cost_little(clock):
    rate = RecentRate(clock=clock)
    for done in range(100_000):
        clock.now = done / 10_000
        rate.count(done)
    assert rate.value == pytest.approx(10_000, rel=0.1) and len(rate._counts) < 200
