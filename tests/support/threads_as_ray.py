"""As much of Ray as jobs need, with a thread for each call of an actor: for tests without Ray.

What is sent to an actor and back is pickled, as by Ray. Of an actor that dies all calls fail; its
threads finish what they are at, as those of a node do that Ray has lost sight of.
"""

import contextlib
import pickle
import threading
import time
import types
from concurrent.futures import FIRST_COMPLETED, Future, wait

_here = threading.local()


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__("Traceback ...")
        self.cause = cause


class Ray:
    """The package, with a cluster of so many nodes of one CPU.

    Attributes:
      begun: actors, living or dead, in the order in which they began.
    """

    exceptions = types.SimpleNamespace(
        RayError=RayError, RayActorError=RayActorError, RayTaskError=RayTaskError
    )

    def __init__(self, nodes=2, **resources):
        self._nodes, self._resources, self.begun = nodes, resources, []

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": float(self._nodes), **self._resources}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1.0}} for _ in range(self._nodes)]

    def put(self, value):
        ref = Future()
        ref.set_result(pickle.dumps(value))
        return ref

    def get(self, ref):
        return pickle.loads(ref.result())

    def wait(self, refs, num_returns, timeout):
        done, left = wait(refs, timeout, FIRST_COMPLETED)
        return list(done)[:num_returns], list(left)

    def kill(self, actor):
        actor.die("it was killed")
        actor.wait()

    def remote(self, **options):
        return lambda kind: types.SimpleNamespace(
            remote=lambda *arguments: _Actor(self, kind, arguments, options)
        )


class _Actor:
    def __init__(self, ray, kind, arguments, options):
        self.options, self._ray = options, ray
        self._calls, self._dead, self._lock = set(), None, threading.Lock()
        self._made, self._threads = threading.Event(), []
        ray.begun.append(self)
        threading.Thread(target=self._make, args=(kind, arguments), daemon=True).start()

    def _make(self, kind, arguments):
        _here.actor = self
        self._self = kind(*self._resolved(arguments))
        self._made.set()

    def _resolved(self, arguments):
        return [
            self._ray.get(one) if isinstance(one, Future) else pickle.loads(pickle.dumps(one))
            for one in arguments
        ]

    def __getattr__(self, name):
        return types.SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))

    def _call(self, name, arguments):
        ref = Future()
        with self._lock:
            if self._dead is not None:
                ref.set_exception(RayActorError(self._dead))
                return ref
            self._calls.add(ref)
        thread = threading.Thread(target=self._run, args=(ref, name, arguments), daemon=True)
        self._threads.append(thread)
        thread.start()
        return ref

    def _run(self, ref, name, arguments):
        _here.actor = self
        self._made.wait()
        try:
            answer, value = ref.set_result, self._called(name, arguments)
        except Exception as error:
            answer, value = ref.set_exception, RayTaskError(error)
        with self._lock:
            if ref in self._calls:
                self._calls.discard(ref)
                answer(value)

    def _called(self, name, arguments):
        return pickle.dumps(getattr(self._self, name)(*self._resolved(arguments)))

    def die(self, why):
        with self._lock:
            self._dead = self._dead or why
            for ref in self._calls:
                ref.set_exception(RayActorError(f"An actor died.\n\tip: 10.0.0.7\n{why}"))
            self._calls.clear()
        self._stop()

    def wait(self):
        """Until its threads have ended: jax must not compute while the process ends."""
        for thread in self._threads:
            thread.join()
        self._stop()  # of one that has begun meanwhile
        while hasattr(self._self, "_worker") and not self._self._ended:
            time.sleep(0.01)

    def _stop(self):
        with contextlib.suppress(AttributeError):  # it had not begun
            self._self.stop()


def here():
    """The actor whose call this thread runs; None in other threads."""
    return getattr(_here, "actor", None)
