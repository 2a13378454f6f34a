"""The run file's reference, drawn from `RunConfig`: every key with its meaning, unit and default."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from agent.config import describe_fields


def draw_fields() -> RenderableType:
    """All keys of a run file, indented as they are in the file and in the same order."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_row(Text("Keys of a run file", style="bold"), Text("meaning [unit; default]", style="bold"))
    for field in describe_fields():
        *above, name = field.path.split(".")
        key = Text("  " * len(above) + name.removesuffix("[]"), style="bold cyan" if field.section else "cyan")
        notes = [field.unit if field.unit != "none" else "", f"default: {field.default}" if field.default else ""]
        if field.default == "required":
            notes[1] = "required"
        noted = "; ".join(filter(None, notes))
        meaning = f"list: {field.meaning}" if name.endswith("[]") else field.meaning
        table.add_row(key, Text.assemble(meaning, (f" [{noted}]" if noted else "", "dim")))
    return table
