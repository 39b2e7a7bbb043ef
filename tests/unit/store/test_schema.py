"""The schema explains itself."""

import re
from pathlib import Path

TABLES = (Path(__file__).parents[3] / "schema.sql").read_text()
COLUMN = re.compile(r"    [a-z_0-9]+ +(?:uuid|text|integer|bigint|boolean|bytea|timestamptz|xid8|double precision)\b")


def test_every_column_has_a_comment() -> None:
    columns = [line for line in TABLES.splitlines() if COLUMN.match(line)]

    assert len(columns) > 90
    assert [line for line in columns if "--" not in line] == []


def test_every_table_has_a_comment() -> None:
    tables = re.findall(r"^CREATE TABLE (\w+)", TABLES, re.MULTILINE)

    assert len(tables) == 16
    assert tables == re.findall(r"^COMMENT ON TABLE (\w+)", TABLES, re.MULTILINE)
