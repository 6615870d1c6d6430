"""What the identifier openai tells about a run beside the labels. The same replies give the same report."""

import math
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tif.identify.openai.labels import Labels, Piece
from tif.identify.openai.prompt import Reply
from tif.identify.openai.service import Price


@dataclass
class Absent:
    """Returned words that are not in their piece of an answer, and what a second asking about them brought.

    instead: words that are in it. still_missing: words that again are not. reason: why there is no usable reply.
    """

    piece: Piece
    sample: int
    words: list[str]
    instead: list[str] = field(default_factory=list)
    still_missing: list[str] = field(default_factory=list)
    reason: str | None = None


@dataclass(frozen=True)
class Report:
    """sample_ids: of the rows, in order. replies: to all requests, each once, usable or not."""

    sample_ids: list[str]
    labels: Labels
    absent: list[Absent]
    replies: list[Reply]

    def record(self) -> dict:
        """What a person may want to look up, in the order of the rows.

        `start` and `end`: characters of the answer. `request`: the name of the reply's file in the work folder.
        """
        return {
            "rows_without_usable_reply": [
                self._place(piece, sample) | {"reason": reason, "request": key}
                for piece, sample, reason, key in sorted(self.labels.failed)
            ],
            "words_not_in_answer": [
                self._place(item.piece, item.sample)
                | {name: getattr(item, name) for name in ("words", "instead", "still_missing", "reason")}
                for item in sorted(self.absent, key=lambda item: (item.piece, item.sample))
            ],
            "rows_without_unwanted": self._without_unwanted(),
        }

    def counts(self, price: Price) -> dict[str, int | float]:
        """Numbers for metrics/identify.json; tokens as the server counts them, and what they cost in USD.

        Tries before a usable reply are not in them, because it is chance how many a run needs; all tries of a request
        that got none are.
        """
        tokens = [(reply.prompt_tokens or 0, reply.completion_tokens or 0, reply.batch) for reply in self.replies]
        untold = sum(None in (reply.prompt_tokens, reply.completion_tokens) for reply in self.replies)
        counts = {
            "requests": len(self.replies),
            "prompt_tokens": sum(sent for sent, _, _ in tokens),
            "completion_tokens": sum(got for _, got, _ in tokens),
            "requests_without_token_counts": untold,
            "cost_usd": round(math.fsum(price.of(*some) for some in tokens), 6),
            "rows_without_usable_reply": len(self._failed()),
            "words_not_in_answer": sum(len(item.words) for item in self.absent),
            "words_found_instead": sum(len(item.instead) for item in self.absent),
            "words_still_not_in_answer": sum(len(item.still_missing) for item in self.absent),
            "second_askings_without_usable_reply": sum(item.reason is not None for item in self.absent),
        }
        jaccard = self.labels.mean_pairwise_jaccard()
        return counts if jaccard is None else counts | {"mean_pairwise_jaccard": round(jaccard, 6)}

    def say(self, folder: Path) -> None:
        """One line on stderr when there is something to look up. folder: of the replies."""
        failed, without = self._failed(), self._without_unwanted()
        if failed or self.absent or without:
            words = sum(len(item.words) for item in self.absent)
            instead = sum(len(item.instead) for item in self.absent)
            reasons = Counter(reason for reasons in failed.values() for reason in sorted(reasons))
            why = (
                f" ({', '.join(f'{number} {reason}' for reason, number in sorted(reasons.items()))})" if reasons else ""
            )
            again = (
                f"; they are asked about again once the files <request>.json in {folder} are removed" if failed else ""
            )
            print(
                f"openai: {len(failed)} rows without a usable reply{why}, {words} returned words that are not in their"
                f" answer ({instead} found instead), {len(without)} rows without unwanted words;"
                f" data/identifier.json lists them{again}",
                file=sys.stderr,
            )

    def _failed(self) -> dict[int, set[str]]:
        """Row -> why it has no usable reply, in some window and sample."""
        reasons: dict[int, set[str]] = {}
        for piece, _, reason, _ in self.labels.failed:
            reasons.setdefault(piece.row, set()).add(reason)
        return reasons

    def _without_unwanted(self) -> list[str]:
        return [name for row, name in enumerate(self.sample_ids) if not any(self.labels.votes(row)[0])]

    def _place(self, piece: Piece, sample: int) -> dict:
        where = {"sample_id": self.sample_ids[piece.row], "sample": sample}
        return where | {"start": piece.start, "end": piece.end}
