"""What a command prints as its result."""

from rich.table import Table

from beam_jobs.terminal.session import Session


def test_tables_mark_up_their_cells_and_text_is_printed_as_it_is(capsys):
    table = Table("check")
    table.add_row("[green]ok[/green]")
    Session().result({}, "a folder named [red]", table)
    printed = capsys.readouterr().out
    assert "a folder named [red]" in printed
    assert "ok" in printed
    assert "green" not in printed


def test_json_is_all_that_is_printed_and_holds_no_nan(capsys):
    Session(as_json=True).result({"loss": float("nan"), "steps": 3}, "a line for a person")
    assert capsys.readouterr().out == '{\n  "loss": null,\n  "steps": 3\n}\n'
