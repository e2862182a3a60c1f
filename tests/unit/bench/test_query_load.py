"""The load of queries: what it counts, of a server that answers in pieces, late, or not at all."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from bench.query_load import Figures, Load, Query, came, complete, run, shares_of

BODY = b'{"degraded":[],"events":[]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
GONE = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture
def serve():
    """Starts a server whose connections are each handled by a thread; answers with its port."""
    opened = []

    def start(handle):
        listening = socket.create_server(("127.0.0.1", 0))
        opened.append(listening)

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                opened.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listening.getsockname()[1]

    yield start
    for each in opened:
        each.close()


def query(due, *, counted=True):
    return Query("timeline", b"GET / HTTP/1.1\r\n\r\n", due, counted=counted)


def take(load, answers):
    """Lets the load take what comes until it has so many answers."""
    until = time.monotonic() + 10
    while sum(load.figures.status.values()) + load.figures.failed < answers:
        assert time.monotonic() < until
        for fd, _ in load.epoll.poll(1):
            load.readable(fd)


@pytest.mark.parametrize("at", [3, len(ANSWER) - len(BODY) - 2, len(ANSWER) - 1])
def test_an_answer_is_whole_when_its_body_is(at):
    assert complete(ANSWER)
    assert not complete(ANSWER[:at])


def test_an_answer_in_pieces_is_one(serve):
    took_the_first = threading.Event()

    def handle(connection):
        connection.recv(1000)
        connection.sendall(ANSWER[:20])
        took_the_first.wait(10)
        connection.sendall(ANSWER[20:])

    load = Load("127.0.0.1", serve(handle), 1)
    load.put(query(time.monotonic()))
    for fd, _ in load.epoll.poll(10):
        load.readable(fd)
    assert not load.figures.status
    took_the_first.set()
    take(load, 1)
    assert load.figures.status == {200: 1}
    assert (load.figures.degraded, load.figures.failed) == (0, 0)
    load.end()


def test_the_latency_ends_when_the_answer_comes_and_begins_when_the_query_was_due(serve):
    answered = threading.Event()

    def handle(connection):
        while connection.recv(1000):
            connection.sendall(GONE)
            answered.set()

    load = Load("127.0.0.1", serve(handle), 1)

    def asked(late_s):
        """(ms, taken_ms) of a query that was due 200 ms ago, whose answer the load is late to look at."""
        load.figures = Figures()
        answered.clear()
        load.put(query(time.monotonic() - 0.2))
        assert answered.wait(10)
        time.sleep(late_s)
        take(load, 1)
        return load.figures.ms["timeline"][0], load.figures.taken_ms[0]

    # The kernel begins to stamp what comes some time after the first socket has asked for it.
    until = time.monotonic() + 10
    ms, taken = asked(0.02)
    while ms == taken and time.monotonic() < until:
        ms, taken = asked(0.02)
    ms, taken = asked(0.1)
    assert ms >= 200
    assert taken - ms >= 90  # what the load let lie is not the service's
    assert load.figures.late == 1
    assert load.figures.status == {404: 1}
    load.end()


def test_whoever_gets_no_answer_has_failed_and_waits_for_no_one(serve):
    load = Load("127.0.0.1", serve(lambda connection: (connection.recv(1000), connection.shutdown(2))), 2)
    for counted in (True, False):
        load.put(query(time.monotonic(), counted=counted))
    load.put(query(time.monotonic()))  # no connection is left for it
    load.end()
    assert load.figures.failed == 2
    assert not load.figures.ms


def test_a_run_sends_at_its_rate_and_counts_what_comes_after_the_warming_up(serve):
    def handle(connection):
        while connection.recv(1000):
            connection.sendall(ANSWER)

    port = serve(handle)
    found = run(f"http://127.0.0.1:{port}", 400, 0.5, 0.25, {"timeline": 1.0}, 50, 4)
    assert len(found.ms["timeline"]) == len(found.taken_ms) == 200
    assert found.failed == 0
    with pytest.raises(ValueError, match="loopback"):
        run("http://192.0.2.1:80", 1, 1, 0, {"timeline": 1.0}, 50, 1)


def test_without_the_kernels_word_an_answer_came_when_it_was_read():
    assert came([]) == 0.0


def test_shares():
    assert shares_of("timeline=2,gmv") == {"timeline": 2.0, "gmv": 1.0}
    with pytest.raises(ValueError, match="nothing"):
        shares_of("nothing=1")
