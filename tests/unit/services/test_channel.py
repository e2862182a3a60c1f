"""The channel: every reader gets its own replies, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from clicktide.read.plan import SCRIPTS, Read
from services.query.channel import Channel


class Server:
    """Answers each command by `reply`, byte by byte; `reply` may raise `Hang` or `Close`."""

    def __init__(self, reply) -> None:
        self.reply, self.asked, self.connections = reply, [], 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while command := await self.command(reader):
                self.asked.append(command)
                for byte in self.reply(command, self):
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0)
        except CloseError:
            pass
        except HangError:
            await reader.read()
        finally:
            writer.close()

    async def command(self, reader):
        head = await reader.readline()
        if not head:
            return None
        words = []
        for _ in range(int(head[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2].decode())
        return words


class CloseError(Exception):
    """The server ends the connection."""


class HangError(Exception):
    """The server says no more."""


class Connection:
    """As redis-py's, as far as the channel looks at it."""

    def __init__(self, path) -> None:
        self.path = path

    async def connect(self):
        self._reader, self._writer = await asyncio.open_unix_connection(self.path)


def run(tmp_path, reply, work, patience=20.0):
    @asynccontextmanager
    async def serving():
        server = Server(reply)
        path = str(tmp_path / "s")
        listening = await asyncio.start_unix_server(server.serve, path)
        channel = Channel(lambda: Connection(path), patience)
        try:
            yield server, channel
        finally:
            channel.drop()
            listening.close()

    async def main():
        async with asyncio.timeout(30), serving() as (server, channel):
            return await work(server, channel)

    return asyncio.run(main())


def pass_(seconds):
    """The loop's clock jumps: nobody has to wait for a patience that a slow machine does not use up either."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds


def echo(command, _server):
    return f"${len(command[1])}\r\n{command[1]}\r\n".encode()


def closes_at_the_second(command, server):
    if len(server.asked) == 2:
        raise CloseError
    return echo(command, server)


def read(*words):
    return Read([("ECHO", w) for w in words], lambda replies: [r.decode() for r in replies])


def test_everyone_gets_their_own_replies_over_one_connection(tmp_path):
    async def work(server, channel):
        got = await asyncio.gather(*(channel.read(read(f"a{i}", f"b{i}"), part=i % 3) for i in range(20)))
        return got, server.connections

    got, connections = run(tmp_path, echo, work)
    assert got == [[f"a{i}", f"b{i}"] for i in range(20)]
    assert connections == 1


def test_one_who_leaves_does_not_shift_the_replies_of_others(tmp_path):
    async def work(server, channel):
        await channel.read(read("first"))
        leaver = asyncio.create_task(channel.read(read("left")))
        await asyncio.sleep(0)
        leaver.cancel()
        return await asyncio.gather(channel.read(read("x")), channel.read(read("y"))), server.connections

    assert run(tmp_path, echo, work) == ([["x"], ["y"]], 1)


def test_what_was_asked_on_a_connection_that_is_lost_is_asked_once_more(tmp_path):
    async def work(server, channel):
        first = await channel.read(read("a"))
        return first, await channel.read(read("b")), server.connections

    assert run(tmp_path, closes_at_the_second, work) == (["a"], ["b"], 2)


def test_twice_is_not_tried_a_third_time(tmp_path):
    def reply(command, server):
        if len(server.asked) > 1:
            raise CloseError
        return echo(command, server)

    async def work(server, channel):
        await channel.read(read("a"))
        with pytest.raises(RedisConnectionError):
            await channel.read(read("b"))
        return server.connections

    assert run(tmp_path, reply, work) == 2


def test_when_it_is_dropped_nobody_waits_on(tmp_path):
    def hang(_command, _server):
        raise HangError

    async def work(server, channel):
        waiting = [asyncio.create_task(channel.read(read(str(i)))) for i in range(3)]
        while not server.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        channel.drop()
        return await asyncio.gather(*waiting, return_exceptions=True), server.connections

    got, connections = run(tmp_path, hang, work)
    assert [type(e) for e in got] == [RedisConnectionError] * 3
    assert connections == 1


def test_an_error_reply_is_its_readers_alone(tmp_path):
    def reply(command, server):
        return b"-ERR no such thing\r\n" if command[1] == "bad" else echo(command, server)

    async def work(_server, channel):
        return await asyncio.gather(
            channel.read(read("a", "bad")), channel.read(read("b")), return_exceptions=True
        )

    bad, good = run(tmp_path, reply, work)
    assert isinstance(bad, ResponseError)
    assert good == ["b"]


def test_scripts_are_loaded_where_the_server_has_lost_them(tmp_path):
    def reply(command, server):
        if command[0] == "SCRIPT":
            return b"+OK\r\n"
        loaded = any(c[0] == "SCRIPT" for c in server.asked)
        return echo(command, server) if loaded else b"-NOSCRIPT No matching script.\r\n"

    async def work(server, channel):
        return await channel.read(read("a")), [c[0] for c in server.asked]

    got, asked = run(tmp_path, reply, work)
    assert got == ["a"]
    assert asked == ["ECHO", *["SCRIPT"] * len(SCRIPTS), "ECHO"]


def test_an_answer_that_is_no_redis_ends_the_connection(tmp_path):
    def nonsense(_command, _server):
        return b"HTTP/1.1 400\r\n"

    async def work(_server, channel):
        with pytest.raises(RedisConnectionError):
            await channel.read(read("a"))

    run(tmp_path, nonsense, work)


def test_who_has_waited_too_long_is_told_and_those_behind_as_well(tmp_path):
    """A server that hangs hangs for all; a new connection may find it well again."""

    def reply(command, server):
        if len(server.asked) == 2:
            raise HangError
        return echo(command, server)

    async def work(server, channel):
        await channel.read(read("a"))
        waiting = [channel.at_once([("ECHO", word)]) for word in "bc"]
        while len(server.asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        pass_(10)
        got = await asyncio.gather(*waiting, return_exceptions=True)
        assert channel.at_once([("ECHO", "d")]) is None, "the connection was left"
        return got, await channel.read(read("e")), server.connections

    got, after, connections = run(tmp_path, reply, work, patience=10)
    assert [type(error) for error in got] == [TimeoutError, TimeoutError]
    assert (after, connections) == (["e"], 2)


def test_one_who_waits_shortly_after_another_has_his_own_time(tmp_path):
    """The timer runs for the one that waits longest, and then for the next."""

    async def work(server, channel):
        await channel.read(read("a"))
        for word in "bcd":
            reply = channel.at_once([("ECHO", word)])
            pass_(6)  # from the second on, the timer of the one before runs out before the reply comes
            assert await reply == [word.encode()]
        return server.connections

    assert run(tmp_path, echo, work, patience=10) == 1


def test_replies_go_to_whoever_is_to_get_them_without_a_task(tmp_path):
    async def work(_server, channel):
        got: asyncio.Queue = asyncio.Queue()
        assert not channel.soon([("ECHO", "x")], got.put_nowait), "there is no connection yet"
        await channel.read(read("a"))

        def fails(_replies):
            raise RuntimeError

        assert channel.soon([("ECHO", "b")], fails)
        assert channel.soon([("ECHO", "c"), ("ECHO", "d")], got.put_nowait)
        one_after = await channel.read(read("e"))
        return await got.get(), one_after

    assert run(tmp_path, echo, work) == ([b"c", b"d"], ["e"])


def test_whoever_waits_without_a_task_is_told_that_the_connection_is_lost(tmp_path):
    async def work(_server, channel):
        got: asyncio.Queue = asyncio.Queue()
        await channel.read(read("a"))
        assert channel.soon([("ECHO", "b")], got.put_nowait)
        return await got.get()

    assert isinstance(run(tmp_path, closes_at_the_second, work), RedisConnectionError)
