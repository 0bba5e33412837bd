import threading
import time

import numpy as np
import pytest

from siglip_jax.scoring.pipeline import Pipeline
from siglip_jax.serve.batcher import IN_FLIGHT, Batcher, NotFinite, batch_sizes
from siglip_jax.serve.metrics import Metrics


class Program:
    """Twice its examples; waits while it is held."""

    def __init__(self):
        self.batch_sharding, self.batches = None, []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, params, batch):
        self.batches.append(batch[:, 0].tolist())
        assert self.free.wait(30)
        if (batch == -1).any():
            raise RuntimeError("no memory")
        return 2 * batch


@pytest.fixture
def made(monkeypatch):
    program, metrics = Program(), Metrics()
    monkeypatch.setattr(Pipeline, "_embed", lambda self, batch: (program(None, batch),))
    monkeypatch.setattr("siglip_jax.scoring.pipeline.compiling_tower", lambda *_: threading.Lock())
    pipeline = Pipeline(program, None, "images", batch_size=4, in_flight=IN_FLIGHT)
    batcher = Batcher(pipeline, batch_sizes(4), "images", metrics)
    batcher.start(example(0))
    program.batches.clear()
    yield program, batcher, metrics
    program.free.set()
    batcher.close()


def example(number):
    return np.full(3, number, np.float32)


def counted(metrics, name):
    return metrics.registry.get_sample_value(f"siglip_{name}", {"tower": "images"})


def test_every_size_runs_before_the_first_request(monkeypatch):
    program = Program()
    monkeypatch.setattr(Pipeline, "_embed", lambda self, batch: (program(None, batch),))
    monkeypatch.setattr("siglip_jax.scoring.pipeline.compiling_tower", lambda *_: threading.Lock())
    pipeline = Pipeline(program, None, "images", batch_size=4, in_flight=IN_FLIGHT)
    batcher = Batcher(pipeline, batch_sizes(4), "images", Metrics())
    batcher.start(example(0))
    batcher.close()
    assert [len(batch) for batch in program.batches] == [1, 2, 4]


def test_rows_come_back_to_who_asked(made):
    _, batcher, _ = made
    asked = [batcher.submit([example(i), example(i + 0.5)]) for i in range(20)]
    for i, each in enumerate(asked):
        assert each.result(30).tolist() == [[2 * i] * 3, [2 * i + 1] * 3]


def test_what_waits_is_taken_together_and_filled_up(made):
    program, batcher, metrics = made
    program.free.clear()
    first = batcher.submit([example(1)])
    while not program.batches:
        pass
    others = [batcher.submit([example(i)]) for i in (2, 3, 4)]
    program.free.set()
    for each in (first, *others):
        each.result(30)
    assert program.batches == [[1], [2, 3, 4, 2]]
    assert counted(metrics, "padding_rows_total") == 1


def test_who_went_costs_nothing(made):
    program, batcher, metrics = made
    program.free.clear()
    first = batcher.submit([example(1)])
    while not program.batches:
        pass
    gone, stays = batcher.submit([example(2)]), batcher.submit([example(3)])
    assert gone.cancel()
    program.free.set()
    assert stays.result(30).tolist() == [[6] * 3]
    first.result(30)
    assert program.batches == [[1], [3]]
    assert counted(metrics, "dropped_entries_total") == 1


def test_a_batch_that_fails_is_told_to_its_own_and_no_others(made):
    _, batcher, _ = made
    with pytest.raises(RuntimeError, match="no memory"):
        batcher.submit([example(-1)]).result(30)
    assert batcher.submit([example(1)]).result(30).tolist() == [[2] * 3]


def test_a_batch_that_fails_on_the_device_is_told_to_its_own_and_no_others(made, monkeypatch):
    program, batcher, _ = made

    class Lost:
        def block_until_ready(self):
            raise RuntimeError("the device is lost")

    lost = lambda self, batch: (Lost() if batch[0, 0] == 5 else program(None, batch),)  # noqa: E731
    monkeypatch.setattr(Pipeline, "_embed", lost)
    bad = batcher.submit([example(5)])
    with pytest.raises(RuntimeError, match="the device is lost"):
        bad.result(30)
    # The pipeline raises it again for the next batch, which is on its way all the same.
    good = [batcher.submit([example(i)]) for i in (1, 2)]
    assert [each.result(30)[0, 0] for each in good] == [2, 4]


def test_nan_names_its_example(made):
    _, batcher, _ = made
    with pytest.raises(NotFinite) as caught:
        batcher.submit([example(1), example(np.nan), example(2)]).result(30)
    assert caught.value.index == 1


def test_what_waits_at_the_end_is_done(made):
    _, batcher, _ = made
    # Its result is not yet asked for when the batcher is closed.
    batcher._pipeline._collector.submit(time.sleep, 0.3)
    asked = batcher.submit([example(1)])
    batcher.close()
    assert asked.result(0)[0, 0] == 2
    with pytest.raises(RuntimeError, match="stopped"):
        batcher.submit([example(1)])
