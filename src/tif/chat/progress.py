"""The progress bar of the paid identifier: rows done, retries, tokens and money of this run."""

from tqdm import tqdm

from tif.chat.service import Service
from tif.chat.store import Request


class Progress:
    """Counts what a run does, for the bar alone: nothing of it may reach an output, because retries are chance."""

    def __init__(self, title: str, rows: int, stored: int, service: Service) -> None:
        self.price, self.batch = service.price, service.batch
        self.retries = self.tokens = 0
        self.money = 0.0
        self.title = f"openai: {title}"
        self.bar = tqdm(total=rows, initial=stored, desc=self.title, unit="row", disable=not service.progress)

    def done(self, request: Request) -> None:
        self.bar.update(request.rows)

    def retried(self) -> None:
        self.retries += 1
        self._show()

    def spent(self, completion: object) -> None:
        """Add the tokens of a completion, usable or not: both cost money."""
        usage = completion.get("usage") if isinstance(completion, dict) else None
        if not isinstance(usage, dict):
            return
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        prompt, reply = (count if type(count) is int else 0 for count in counts)
        self.tokens += prompt + reply
        self.money += self.price.of(prompt, reply, self.batch)
        self._show()

    def state(self, text: str) -> None:
        """Say what a batch is doing."""
        self.bar.set_description(f"{self.title} ({text})")

    def close(self) -> None:
        self.bar.close()

    def _show(self) -> None:
        self.bar.set_postfix(retries=self.retries, tokens=self.tokens, usd=f"{self.money:.4f}", refresh=False)
