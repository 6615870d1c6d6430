"""What the identifier openai tells about a run beside the labels. The same replies give the same report."""

import math
import sys
from dataclasses import dataclass, field

from tif.chat.labels import Labels, Piece
from tif.chat.service import Price
from tif.chat.store import Reply


@dataclass
class Absent:
    """Returned words that are not in their piece of an answer, and the words that a second asking brought instead."""

    piece: Piece
    sample: int
    words: list[str]
    instead: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """sample_ids: of the rows, in order. replies: those that were used, each request once."""

    sample_ids: list[str]
    labels: Labels
    absent: list[Absent]
    replies: list[Reply]

    def record(self) -> dict:
        """What a person may want to look up, in the order of the rows. `start` and `end`: characters of the answer."""
        return {
            "rows_without_usable_reply": [
                self._place(piece, sample) | {"reason": reason} for piece, sample, reason in sorted(self.labels.failed)
            ],
            "words_not_in_answer": [
                self._place(item.piece, item.sample) | {"words": item.words, "instead": item.instead}
                for item in sorted(self.absent, key=lambda item: (item.piece, item.sample))
            ],
            "rows_without_unwanted": self._without_unwanted(),
        }

    def counts(self, price: Price) -> dict[str, int | float]:
        """Numbers for metrics/identify.json; tokens as the server counts them, and what they cost in USD."""
        tokens = [(reply.prompt_tokens or 0, reply.completion_tokens or 0, reply.batch) for reply in self.replies]
        untold = sum(None in (reply.prompt_tokens, reply.completion_tokens) for reply in self.replies)
        counts = {
            "requests": len(self.replies),
            "prompt_tokens": sum(sent for sent, _, _ in tokens),
            "completion_tokens": sum(got for _, got, _ in tokens),
            "requests_without_token_counts": untold,
            "cost_usd": round(math.fsum(price.of(*some) for some in tokens), 6),
            "rows_without_usable_reply": len({piece.row for piece, _, _ in self.labels.failed}),
            "words_not_in_answer": sum(len(item.words) for item in self.absent),
            "words_found_instead": sum(len(item.instead) for item in self.absent),
        }
        jaccard = self.labels.mean_pairwise_jaccard()
        return counts if jaccard is None else counts | {"mean_pairwise_jaccard": round(jaccard, 6)}

    def say(self) -> None:
        """One line on stderr when there is something to look up."""
        failed, without = {piece.row for piece, _, _ in self.labels.failed}, self._without_unwanted()
        if failed or self.absent or without:
            words = sum(len(item.words) for item in self.absent)
            instead = sum(len(item.instead) for item in self.absent)
            print(
                f"openai: {len(failed)} rows without a usable reply, {words} returned words that are not in their"
                f" answer ({instead} found instead), {len(without)} rows without unwanted words;"
                " data/identifier.json lists them",
                file=sys.stderr,
            )

    def _without_unwanted(self) -> list[str]:
        return [name for row, name in enumerate(self.sample_ids) if not any(self.labels.votes(row)[0])]

    def _place(self, piece: Piece, sample: int) -> dict:
        where = {"sample_id": self.sample_ids[piece.row], "sample": sample}
        return where | {"start": piece.start, "end": piece.end}
