"""The count of executed lines: whole functions, once each, where a line of the body ran."""

from __future__ import annotations

from pathlib import Path

from tools.executed_lines import Function, functions, table

SOURCE = '''\
import os

@cache
def used(x):
    """Says what it does."""
    def nested():
        return x
    return nested()

def unused():
    return 1

class Room:
    @property
    def method(self):
        return 2

if os:
    async def late():
        pass
'''


def counted(tmp_path: Path, *executed: int) -> list[tuple[str, int]]:
    path = tmp_path / "hub" / "client.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(SOURCE)
    return [(f.name, f.lines) for f in functions(path, set(executed), tmp_path)]


def test_a_function_counts_whole_once_a_line_of_its_body_ran(tmp_path: Path) -> None:
    assert counted(tmp_path, 1, 3, 4, 10, 13, 14, 15, 18, 19) == []
    assert counted(tmp_path, 4, 6, 7) == [("used", 5)]
    assert counted(tmp_path, 8, 16, 20) == [("used", 5), ("Room.method", 2), ("late", 2)]


def test_the_table_adds_up_by_room() -> None:
    executed = [
        Function("hub/a.py", "f", 5),
        Function("hub/a.py", "g", 7),
        Function("c.py", "h", 3),
    ]
    assert table(executed, top=1).splitlines() == [
        "     3 ground and roof (1 functions)",
        "             3 c.py: h",
        "    12 hub (2 functions)",
        "             7 hub/a.py: g",
        "    15 lines: 3 functions in 2 files",
    ]
