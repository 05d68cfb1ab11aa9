"""The reader of `data/`: types as promised, doctored files refused by column and value."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from lib import tables
from lib.errors import PlaybookError
from lib.tables import DATA, read_table


@pytest.mark.parametrize("name", list(tables.SCHEMAS))
def test_shipped_tables_have_their_types(name: str) -> None:
    table = getattr(tables, name)()
    _, columns = tables.SCHEMAS[name]
    assert len(table) >= 8
    for key, column in columns.items():
        wanted = str(column.dtype) if "64" in str(column.dtype) else "str"
        assert str(table[key].dtype) == wanted, key
    assert table["checked_on"].str.fullmatch(r"\d{4}-\d\d-\d\d").all()
    assert table["source_url"].notna().all()


def test_a_blank_cell_is_missing_and_na_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "models.csv"
    table = tables.models().head(2)
    table["family"], table["country"] = "NA", None
    table.to_csv(path, index=False)
    read = read_table("models", path)
    assert list(read["family"]) == ["NA", "NA"]
    assert read["country"].isna().all()


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "models.csv"
    table = tables.models().head(2)
    table["released"], table["note"], table["license"] = "2026", "007", None
    table.to_csv(path, index=False)
    read = read_table("models", path)
    assert list(read["released"]) == ["2026", "2026"]
    assert list(read["note"]) == ["007", "007"]
    assert str(read["license"].dtype) == "str"  # all blank, and still text


def test_a_caller_cannot_spoil_the_shipped_table() -> None:
    mine = tables.hardware()
    mine.loc[:, "usd_per_hour"] = 0.0
    assert (tables.hardware()["usd_per_hour"] > 0).any()


def doctored(tmp_path: Path, column: str, value: object) -> Path:
    table = tables.hardware().head(3).astype({column: object})
    table.loc[1, column] = value
    table.to_csv(tmp_path / "hardware.csv", index=False)
    return tmp_path / "hardware.csv"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("memory_gb", -1, "column 'memory_gb', row 1: -1.0 breaks greater_than(0)"),
        ("usd_per_hour", -0.01, "column 'usd_per_hour', row 1: -0.01 breaks greater_than_or_"),
        ("devices", 0, "column 'devices', row 1: 0 breaks greater_than_or_equal_to(1)"),
        ("memory_gb", "lots", "column 'memory_gb', row 1: 'lots' breaks coerce_dtype"),
        ("device", "", "column 'device', row 1: nan breaks not_nullable"),
        ("source_url", "", "column 'source_url', row 1: nan breaks not_nullable"),
        ("checked_on", "June 2026", "column 'checked_on', row 1: 'June 2026' breaks str_match"),
        ("hardware", "a100-80-1", "'a100-80-1' breaks"),
    ],
)
def test_a_doctored_cell_is_named(tmp_path: Path, column: str, value: object, message: str) -> None:
    path = doctored(tmp_path, column, value)
    with pytest.raises(PlaybookError, match=re.escape(message)) as caught:
        read_table("hardware", path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    text = (DATA / "closed_models.csv").read_text(encoding="utf-8").replace(",low,", ",tiny,", 1)
    path = tmp_path / "closed.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PlaybookError, match=r"column 'tier', row 0: 'tiny' breaks isin"):
        read_table("closed_models", path)


@pytest.mark.parametrize("country", ["CN", "china", "Asia", "European Union", "Francce"])
def test_a_country_by_another_name_is_refused(tmp_path: Path, country: str) -> None:
    table, path = tables.models(), tmp_path / "models.csv"
    table.loc[1, "country"] = country
    table.to_csv(path, index=False)
    with pytest.raises(PlaybookError, match=f"'country', row 1: '{country}' breaks names_of_place"):
        read_table("models", path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hardware.csv"
    tables.hardware().drop(columns="usable_gb").to_csv(path, index=False)
    with pytest.raises(PlaybookError, match="'usable_gb' breaks column_in_dataframe"):
        read_table("hardware", path)


def test_a_price_may_be_unknown(tmp_path: Path) -> None:
    read = read_table("hardware", doctored(tmp_path, "usd_per_hour", ""))
    assert pd.isna(read.loc[1, "usd_per_hour"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable CSV file: No columns to parse"),
        (b"hardware,device\na,b,c,d\ne,f\n1,2,3,4,5\n", "not a readable CSV file"),
        (b"hardware\ncaf\xe9\n", "not a readable CSV file: 'utf-8' codec"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "hardware.csv"
    path.write_bytes(content)
    with pytest.raises(PlaybookError, match=re.escape(message)):
        read_table("hardware", path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"gone\.csv: no such table; restore it"):
        read_table("models", tmp_path / "gone.csv")
