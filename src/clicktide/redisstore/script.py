"""A Lua script run for many shards at once, on one server or on a cluster's nodes; loaded where it is not known.

Promises: one call a shard, each atomic; what one node of a cluster cannot do is named for its shards alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha1
from importlib import resources
from typing import Any

import redis

from clicktide.redisstore.client import errors_named, named, require_version
from clicktide.redisstore.cluster import Cluster

Arguments = tuple[int | bytes, ...]
# What a key's server gets, and the key that says which server that is.
Call = tuple[str, tuple[Any, ...]]


class Script:
    """A script of this package. Its one key is a shard's prefix, which must never be a key of its own: so a node that is
    just handing the slot over answers before it runs anything, and not in the middle (decision 0012)."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client: Any = client
        self._text = resources.files(__package__).joinpath(name).read_text("utf-8")
        self._sha = sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        self._loaded = False

    def run(self, calls: Mapping[str, Arguments]) -> list[Any]:
        """One call a key prefix, as one pipeline (one a node); an answer or a `StoreError` for each, in order."""
        if not calls:
            return []
        commands = [(key, ("EVALSHA", self._sha, 1, key, *arguments)) for key, arguments in calls.items()]
        with errors_named():
            if isinstance(self._client, Cluster):
                answers = self._client.send(commands, self._load)
            else:
                answers = self._on_one_server(commands)
        return [named(a) if isinstance(a, Exception) else a for a in answers]

    def _on_one_server(self, commands: list[Call]) -> list[Any]:
        if not self._loaded:
            self._load(self._client)
            self._loaded = True
        answers = self._pipeline(commands)
        missing = [i for i, a in enumerate(answers) if isinstance(a, redis.exceptions.NoScriptError)]
        if missing:
            self._load(self._client)
            for i, answer in zip(missing, self._pipeline([commands[i] for i in missing]), strict=True):
                answers[i] = answer
        return answers

    def _load(self, server: redis.Redis) -> None:
        # An older server would stop in the middle of the script, its claims made and their effects not.
        require_version(server)
        server.script_load(self._text)

    def _pipeline(self, commands: Sequence[Call]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipe:
            for _, command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = pipe.execute(raise_on_error=False)
            return answers
