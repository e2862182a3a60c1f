"""Makes files of the shape of user_log.csv and UserBehavior.csv, for tests and trials.

`python -m bench.samples FILE [--rows N] [--seed K] [--format F] [--gb18030] [--header]`. The same seed gives the same
bytes; nothing in them comes from a real shop.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from bench.catalogue import PROVINCES
from bench.user_files import BEHAVIORS, COLUMNS, USER_BEHAVIOR, USER_LOG


def user_log(rows: int, seed: int) -> Iterator[str]:
    """Lines of a user_log.csv of one day (November 11), a user's rows one after the other."""
    rng = random.Random(seed)
    left = 0
    user = 0
    for _ in range(rows):
        if left == 0:
            user, left = rng.randrange(1, 424_170), min(300, int(rng.paretovariate(1.1)) + 4)
        left -= 1
        item = int(rng.paretovariate(0.7)) % 1_113_166 + 1
        action = rng.choices((0, 1, 2, 3), (864, 1, 125, 10))[0]
        brand = "" if rng.random() < 0.0005 else str(item * 7 % 8477)
        province = PROVINCES[rng.randrange(len(PROVINCES))]
        gender, age = rng.randrange(3), rng.randrange(8)
        yield (
            f"{user},{item},{item % 1671},{item * 3 % 4995},{brand},11,11,{action},{age},{gender},{province}"
        )


def user_behavior(rows: int, seed: int) -> Iterator[str]:
    """Lines of a UserBehavior.csv of one day."""
    rng = random.Random(seed)
    for _ in range(rows):
        item = int(rng.paretovariate(0.7)) % 5_163_000 + 1
        behavior = rng.choices(BEHAVIORS, (895, 20, 55, 30))[0]
        seconds = 1_511_539_200 + rng.randrange(86_400)
        yield f"{rng.randrange(1, 1_018_000)},{item},{item % 9_439},{behavior},{seconds}"


def write(path: Path, lines: Iterator[str], *, header: str = "", encoding: str = "utf-8") -> None:
    """The lines into a file; `header` as its first line where given."""
    with path.open("w", encoding=encoding, newline="") as f:
        if header:
            f.write(header + "\n")
        f.writelines(line + "\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.samples", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=(USER_LOG, USER_BEHAVIOR), default=USER_LOG)
    parser.add_argument("--gb18030", action="store_true")
    parser.add_argument("--header", action="store_true")
    given = parser.parse_args()
    make = user_log if given.format == USER_LOG else user_behavior
    header = ",".join(COLUMNS[given.format]) if given.header else ""
    encoding = "gb18030" if given.gb18030 else "utf-8"
    write(given.file, make(given.rows, given.seed), header=header, encoding=encoding)


if __name__ == "__main__":
    main()
