"""What a report page holds, for tests."""

from html.parser import HTMLParser
from pathlib import Path

from tif.report.build import build

VOID = ("meta", "path", "use")


def page_of(root: Path) -> str:
    """Build the report below `root`; its text."""
    build(root)
    return (root / "metrics/report.html").read_text(encoding="utf-8")


def written(root: Path) -> dict[str, bytes]:
    """What lies in the folder of metrics."""
    found = sorted(path for path in (root / "metrics").rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


class Page(HTMLParser):
    """Tags, ids, addresses, the text of <b class="uw">, and the cells of table rows without what is in <small>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.ids, self.addresses, self.unwanted = [], [], [], [], []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append((tag, attributes.get("class")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.addresses += [attributes[key] for key in ("src", "href", "xlink:href", "action") if key in attributes]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == ("b", "uw"):
            self.unwanted.append(data)
        if any(tag in ("td", "th") for tag, _ in self.open) and self.open[-1][0] != "small":
            self.rows[-1][-1] += data.strip()

    def row(self, name: str) -> list[str]:
        """The values of the table row with this name and arrow."""
        (found,) = [cells[1:] for cells in self.rows if cells and cells[0] == name]
        return found
