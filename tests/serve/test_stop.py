"""A server that is told to stop while many ask it: whoever was accepted has an answer."""

import collections
import concurrent.futures
import http.client
import json
import threading
from urllib.parse import urlsplit

from emoji_pictures import PICTURES, as_base64

CLIENTS = 12


def test_no_accepted_request_is_lost(start_process):
    body = json.dumps({"input": as_base64(PICTURES[0]), "labels": ["a dog", "a cat"]})
    enough = threading.Semaphore(0)

    def ask(url):
        """Statuses of one request after the other on one connection, and how it ended."""
        client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        found = []
        try:
            while True:
                client.request("POST", "/v1/classify", body)
                answer = client.getresponse()
                answer.read()
                found.append(answer.status)
                enough.release()
        except ConnectionRefusedError as error:  # a new connection, which was not accepted
            return found, error
        except (OSError, http.client.HTTPException) as error:
            return [*found, "lost"], error
        finally:
            client.close()

    with start_process() as process, concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask, process.url) for _ in range(CLIENTS)]
        for _ in range(10 * CLIENTS):
            assert enough.acquire(timeout=60)
        process.terminate()
        ended = [client.result(timeout=120) for client in clients]
        assert process.wait(60) == 0
    statuses = collections.Counter(status for found, _ in ended for status in found)
    # 503 is the answer to what came after the signal on a connection that was open.
    assert set(statuses) <= {200, 503}, ended
    assert statuses[200] >= 10 * CLIENTS
