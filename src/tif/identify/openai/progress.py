"""The progress bar of the paid identifier: rows done, retries, tokens and money of this run."""

from tqdm import tqdm

from tif.identify.openai.prompt import Usage
from tif.identify.openai.service import Service
from tif.identify.openai.store import Request


class Progress:
    """Counts what a run does, for the bar alone: nothing of it may reach an output, because retries are chance."""

    def __init__(self, service: Service) -> None:
        self.service, self.bar = service, None
        self.retries = self.tokens = 0
        self.money = 0.0

    def begin(self, title: str, rows: int, stored: int) -> None:
        """Go on to `rows` further rows, some of them stored already. There is no bar before."""
        self.title = f"openai: {title}"
        if self.bar is None:
            off = not self.service.progress
            self.bar = tqdm(total=rows, initial=stored, desc=self.title, unit="row", disable=off)
        else:
            self.bar.refresh()
            self.bar.total += rows
            self.bar.set_description(self.title)
            self.bar.update(stored)

    def done(self, request: Request) -> None:
        self.bar.update(request.rows)

    def retried(self) -> None:
        self.retries += 1
        self._show()

    def spent(self, usage: Usage) -> None:
        """Add the tokens of a completion, usable or not: both cost money."""
        sent, got = (count or 0 for count in usage)
        self.tokens += sent + got
        self.money += self.service.price.of(sent, got, self.service.batch)
        self._show()

    def state(self, text: str) -> None:
        """Say what a batch is doing."""
        self.bar.set_description(f"{self.title} ({text})")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _show(self) -> None:
        self.bar.set_postfix(retries=self.retries, tokens=self.tokens, usd=f"{self.money:.4f}", refresh=False)
