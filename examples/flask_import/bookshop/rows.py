"""The rows of a CSV file: read at once, checked one by one in the background."""

import csv
import io
import re
from decimal import Decimal
from typing import Any

from wippy_queue import Reject

FIELDS = ("isbn", "title", "price", "stock")
MOST_ROWS = 10_000  # as many as the queue has room for

Row = dict[str, Any]


class BadFileError(ValueError):
    """Not a CSV file of books, so that there is no row to check."""


def read_rows(content: bytes) -> list[Row]:
    """Return the fields of each row as they stand in the file, with the number of its line."""
    try:
        text = content.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", restkey="more")
        missing = [field for field in FIELDS if field not in (reader.fieldnames or ())]
        if missing:
            raise BadFileError(f"The first line names no column {', '.join(missing)}.")
        rows = [{"line": reader.line_num, **{f: row[f] for f in FIELDS}} for row in reader]
    except UnicodeDecodeError as error:
        raise BadFileError("The file is not text in UTF-8.") from error
    except csv.Error as error:
        raise BadFileError(f"The file is not CSV: {error}.") from error
    if not 1 <= len(rows) <= MOST_ROWS:
        raise BadFileError(f"The file has {len(rows)} rows; 1 to {MOST_ROWS} can be imported.")
    return rows


def check(row: Row) -> Row:
    """Return what is stored of a row. Raises ``Reject`` with everything that is wrong."""
    isbn = re.sub("[- ]", "", row["isbn"])
    title, price, stock = (row[field].strip() for field in ("title", "price", "stock"))
    problems = []
    if not re.fullmatch("97[89][0-9]{10}", isbn):
        problems.append("isbn: must have 13 digits, the first 978 or 979")
    elif sum(map(int, isbn[::2])) % 10 != -3 * sum(map(int, isbn[1::2])) % 10:
        problems.append("isbn: the check digit is wrong")
    if not title:
        problems.append("title: is missing")
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,2})?", price):
        problems.append("price: must be an amount such as 12.50")
    if not re.fullmatch("[0-9]{1,6}", stock):
        problems.append("stock: must be a whole number, at least 0")
    if problems:
        raise Reject("; ".join(problems))
    return {"isbn": isbn, "title": title, "cents": int(Decimal(price) * 100), "stock": int(stock)}
