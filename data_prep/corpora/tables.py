"""CSV tables that come from outside: read whole, or refused in one line."""

import csv
from pathlib import Path

from data_prep.errors import UserError


def read_table(
    table: Path, remedy: str, *, short_rows: bool = False
) -> tuple[list[str], list[dict[str, str]]]:
    """Returns the columns of a CSV file, and its rows as text by column.

    Args:
      table: file with a header, UTF-8.
      remedy: what to do when it cannot be read, in the imperative.
      short_rows: allow rows that end early; the cells they lack are "".

    Raises:
      UserError: it cannot be read, is not UTF-8 text or no CSV, or a row is short.
    """
    rows = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            columns = [column.strip() for column in next(lines, [])]
            for cells in lines:
                if cells and len(cells) < len(columns) and not short_rows:
                    raise UserError(
                        f"{table}, line {lines.line_num}: {len(cells)} of {len(columns)} columns, "
                        f"expected all of them; {remedy}"
                    )
                if cells:
                    cells += [""] * (len(columns) - len(cells))
                    rows.append(dict(zip(columns, cells, strict=False)))
    except UnicodeDecodeError:
        raise UserError(f"{table} is not UTF-8 text, expected a CSV file; {remedy}") from None
    except csv.Error as error:
        raise UserError(f"{table} is no CSV file ({error}); {remedy}") from None
    except OSError as error:
        raise UserError(f"cannot read {table} ({error.strerror}); {remedy}") from None
    return columns, rows
