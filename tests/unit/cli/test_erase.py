"""`./tide erase`: what it says to a person."""

import io
import sys

from cli import erase


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_id_cannot_tell_the_terminal_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert erase.erase("u\x1b[2J\n1Ü") == 1
    assert capsys.readouterr().out.startswith("Erase all of user u\\x1b[2J\\n1Ü, for good?")
