"""The ledger's findings: one line a check, with numbers; `balanced` only if all hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison. `expected` and `found` are counts or sums; `examples` name some of what differs."""

    name: str
    ok: bool
    expected: str
    found: str
    examples: Sequence[str] = ()

    def line(self) -> str:
        verdict = "ok  " if self.ok else "FAIL"
        text = f"{verdict} {self.name}: expected {self.expected}, found {self.found}"
        return text + (f" (e.g. {'; '.join(self.examples)})" if self.examples else "")


def compare(
    name: str, expected: int | str, found: int | str, wrong: Iterable[str] = (), *, ok: bool | None = None
) -> Check:
    """A check that holds when both are equal and nothing is `wrong`, of which it keeps some examples."""
    examples: list[str] = []
    bad = False
    for text in wrong:
        bad = True
        if len(examples) == _EXAMPLES:
            break
        examples.append(text)
    holds = (expected == found and not bad) if ok is None else ok
    return Check(name, holds, str(expected), str(found), tuple(examples))


@dataclass(slots=True)
class Report:
    """All checks of one truth file, and lines that explain without deciding."""

    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    def lines(self) -> list[str]:
        verdict = "balanced" if self.balanced else "NOT balanced"
        failed = sum(not check.ok for check in self.checks)
        end = f"{verdict}: {len(self.checks)} checks" + (f", {failed} failed" if failed else "")
        return [*(check.line() for check in self.checks), *(f"     {note}" for note in self.notes), end]

    def as_dict(self) -> dict[str, Any]:
        return {
            "balanced": self.balanced,
            "checks": [
                {
                    "name": c.name,
                    "ok": c.ok,
                    "expected": c.expected,
                    "found": c.found,
                    "examples": list(c.examples),
                }
                for c in self.checks
            ],
            "notes": self.notes,
        }


def money(cents: int) -> str:
    """Minor units with a point before the last two digits."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02}"
