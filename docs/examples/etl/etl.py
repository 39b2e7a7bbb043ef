"""The steps of the ETL example; each reads and writes CSV files in its working directory."""

import argparse
import csv
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

REGIONS = ("north", "east", "south", "west")
CATEGORIES = ("books", "garden", "kitchen", "tools", "toys")
PRODUCT_COUNT = 200
ORDER_FIELDS = ("order_id", "region", "product", "quantity", "unit_cents")
#: Every so-many-th order is broken, in one of three ways.
BROKEN_EVERY = 150


def set_output(key: str, value: object) -> None:
    """Hands a small value to later tasks."""
    print(f"::set-output name={key}::{value}")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(path: str) -> Iterator[dict[str, str]]:
    """Yields the rows of a CSV file."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def result_file(name: str) -> Path:
    """Returns where a file of the task's result belongs."""
    return Path(os.environ["FORMICARY_RESULT_DIR"]) / name


def raw_orders(row_count: int) -> Iterator[tuple[object, ...]]:
    """Yields orders, the same ones each time, some of them broken."""
    dice = random.Random(2024)
    for order_id in range(1, row_count + 1):
        region, quantity = dice.choice(REGIONS), dice.randint(1, 9)
        product = f"P{dice.randrange(PRODUCT_COUNT):03}"
        unit_cents: object = dice.randint(100, 9900)
        if order_id % BROKEN_EVERY == 0:
            kind = (order_id // BROKEN_EVERY) % 3
            region = "" if kind == 0 else region
            quantity = -quantity if kind == 1 else quantity
            unit_cents = "n/a" if kind == 2 else unit_cents
        yield order_id, region, product, quantity, unit_cents


def extract(options: argparse.Namespace) -> int:
    """Writes orders.csv and products.csv."""
    write_csv(Path("orders.csv"), ORDER_FIELDS, raw_orders(options.rows))
    products = (
        (f" p{number:03} ", CATEGORIES[number % len(CATEGORIES)].upper())
        for number in [*range(PRODUCT_COUNT), *range(0, PRODUCT_COUNT, 10)]
    )
    write_csv(Path("products.csv"), ("product", "category"), products)
    print(f"{options.rows} orders, {Path('orders.csv').stat().st_size} bytes")
    set_output("row_count", options.rows)
    return 0


def fault(order: dict[str, str]) -> str | None:
    """Returns what is wrong with an order."""
    if not order["region"]:
        return "no region"
    if int(order["quantity"]) <= 0:
        return "quantity not positive"
    if not order["unit_cents"].isdigit():
        return "price is no number"
    return None


def clean(_options: argparse.Namespace) -> int:
    """Splits orders.csv into clean.csv and rejected.csv."""
    good: list[list[object]] = []
    rejected: list[list[object]] = []
    for order in read_csv("orders.csv"):
        reason = fault(order)
        (good.append([*order.values()]) if reason is None else rejected.append([*order.values(), reason]))
    write_csv(Path("clean.csv"), ORDER_FIELDS, good)
    write_csv(Path("rejected.csv"), (*ORDER_FIELDS, "reason"), rejected)
    print(f"{len(good)} good, {len(rejected)} rejected")
    set_output("clean_count", len(good))
    set_output("rejected_count", len(rejected))
    return 0


def catalogue(_options: argparse.Namespace) -> int:
    """Writes catalogue.csv: one row per product, names brought into one form."""
    categories = {row["product"].strip().upper(): row["category"].lower() for row in read_csv("products.csv")}
    write_csv(Path("catalogue.csv"), ("product", "category"), sorted(categories.items()))
    set_output("product_count", len(categories))
    return 0


def enrich(_options: argparse.Namespace) -> int:
    """Joins clean.csv with catalogue.csv into revenue.csv."""
    category_of = {row["product"]: row["category"] for row in read_csv("catalogue.csv")}
    cents: dict[tuple[str, str], int] = defaultdict(int)
    for order in read_csv("clean.csv"):
        amount = int(order["quantity"]) * int(order["unit_cents"])
        cents[order["region"], category_of[order["product"]]] += amount
    write_csv(Path("revenue.csv"), ("region", "category", "cents"), [(*key, cents[key]) for key in sorted(cents)])
    set_output("total_cents", sum(cents.values()))
    return 0


def validate(options: argparse.Namespace) -> int:
    """Returns 3 when the share of rejected rows is above the limit."""
    rejected = sum(1 for _ in read_csv("rejected.csv"))
    total = rejected + sum(1 for _ in read_csv("clean.csv"))
    percent = 100 * rejected / total
    print(f"{rejected} of {total} rows rejected: {percent:.2f} %, allowed are {options.max_rejected_percent} %")
    set_output("rejected_percent", round(percent, 2))
    return 3 if percent > options.max_rejected_percent else 0


def report(options: argparse.Namespace) -> int:
    """Writes report.md."""
    revenue = {(row["region"], row["category"]): int(row["cents"]) for row in read_csv("revenue.csv")}
    lines = [
        "# Revenue by region and category",
        "",
        f"{options.rows - options.rejected} of {options.rows} orders; {options.rejected} were rejected.",
        "",
        f"| | {' | '.join(CATEGORIES)} |",
        "| --- |" + " ---: |" * len(CATEGORIES),
    ]
    for region in sorted({key[0] for key in revenue}):
        cells = (f"{revenue[region, category] / 100:,.2f}" for category in CATEGORIES)
        lines.append(f"| {region} | {' | '.join(cells)} |")
    result_file("report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    set_output("total_cents", sum(revenue.values()))
    return 0


def quarantine(_options: argparse.Namespace) -> int:
    """Writes quarantine.csv, sorted by reason."""
    rows = sorted(read_csv("rejected.csv"), key=lambda row: (row["reason"], int(row["order_id"])))
    write_csv(result_file("quarantine.csv"), rows[0].keys(), (row.values() for row in rows))
    for reason, count in Counter(row["reason"] for row in rows).items():
        print(f"{count} rows: {reason}", file=sys.stderr)
    set_output("quarantined_count", len(rows))
    return 0


def main() -> int:
    """Runs the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(required=True)
    for step in (extract, clean, catalogue, enrich, validate, report, quarantine):
        command = steps.add_parser(step.__name__, help=step.__doc__)
        command.set_defaults(step=step)
        if step in (extract, report):
            command.add_argument("--rows", type=int, required=True)
        if step is report:
            command.add_argument("--rejected", type=int, required=True)
        if step is validate:
            command.add_argument("--max-rejected-percent", type=float, required=True)
    options = parser.parse_args()
    return int(options.step(options))


if __name__ == "__main__":
    sys.exit(main())
