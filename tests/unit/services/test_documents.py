"""docs/http.md against the registries."""

from pathlib import Path

from services.problems import CODES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "http.md").read_text("utf-8")


def test_every_problem_code_is_in_the_table_and_no_other():
    lines = [line for line in TEXT.partition("## Errors")[2].splitlines() if line.startswith("| `")]
    table = {line.split("`")[1]: line for line in lines}
    assert set(table) == set(CODES)
    for code, (status, title) in CODES.items():
        assert table[code] == f"| `{code}` | {status} | {title} |"
