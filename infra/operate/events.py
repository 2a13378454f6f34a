"""The journal's reference, drawn from `agent.config.events`: every event, its fields, and questions it answers."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.config.events import EVENTS, ONE_LINERS


def draw_events() -> Group:
    """All events, then the commands that answer common questions."""
    events = Table("event", "meaning", "fields", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name, doc in EVENTS.items():
        events.add_row(Text(name, style="bold"), doc.meaning, Text(" ".join(doc.fields).upper(), style="dim"))
    lines = [Text.assemble(("\n" + question + "\n", "bold"), "  " + line) for question, line in ONE_LINERS.items()]
    return Group(events, *lines)
