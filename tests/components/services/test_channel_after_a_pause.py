"""A service that was stopped for longer than it waits for Redis: what Redis has answered meanwhile counts."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from services.query.channel import Channel

PATIENCE_S = 0.1


class Connection:
    """As redis-py's, as far as the channel looks at it."""

    def __init__(self, path) -> None:
        self.path = path

    async def connect(self):
        self._reader, self._writer = await asyncio.open_unix_connection(self.path)


def answer_once(listening, answered):
    connection, _ = listening.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"+PONG\r\n")
        answered.set()
        connection.recv(1000)  # until it is left


def stand_still(answered):
    assert answered.wait(20)
    time.sleep(2 * PATIENCE_S)


def test_a_reply_that_came_during_the_pause_is_taken(tmp_path):
    answered = threading.Event()

    async def work():
        channel = Channel(lambda: Connection(tmp_path / "s"), PATIENCE_S)
        line = await channel._connected()
        reply = channel.at_once([("PING",)])
        stand_still(answered)
        # As a loop does that SIGSTOP has interrupted in its wait: timers first, without a look at the sockets.
        line._watch.cancel()
        line._look()
        try:
            return await reply
        finally:
            channel.drop()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        server = threading.Thread(target=answer_once, args=(listening, answered))
        server.start()
        try:
            assert asyncio.run(work()) == [b"PONG"]
        finally:
            server.join(20)
