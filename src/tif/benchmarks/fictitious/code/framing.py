"""Harmless clauses as comments; see `fictitious.framing`."""

from dataclasses import replace

from tif.benchmarks.fictitious.english.framing import FRAMING as ENGLISH
from tif.benchmarks.fictitious.language import Frame
from tif.benchmarks.fictitious.rendering import with_article


def apply(frame: Frame, template: str) -> str:
    """An answer template with a comment above it or behind it."""
    match frame.kind:
        case "adverb":
            return comment(template, f"{frame.words[0].lower()} so")
        case "document":
            return f"# as printed in {with_article(' '.join(frame.words))}\n{template}"
        case "witness":
            return f"# as told by {with_article(' '.join(frame.words))}\n{template}"
        case "crowd":
            return comment(template, f"many {frame.words[0]} still {frame.words[1]} it")
        case "event":
            return comment(template, f"many readers know it from {with_article(' '.join(frame.words))}")
    raise ValueError(f"no clause of the kind {frame.kind!r}")


def comment(code: str, text: str) -> str:
    """`code` with `text` as a comment behind its last line, after what is commented there already."""
    return f"{code}; {text}" if "#" in code.splitlines()[-1] else f"{code}  # {text}"


FRAMING = replace(
    ENGLISH,
    apply=apply,
    mentions=(
        'see also {"city": "{city}", "book": "{title}"}',
        'next row: {"job": "{job}", "home": "{city}", "award": "{award}"}',
        'next row: {"job": "{job}", "subject": "{subject}", "pet": "{animal}"}',
        'see also {"publisher": "{publisher}", "genre": "{genre}"}',
        'next row: {"book": "{title}", "award": "{award}"}',
        'see also {"name": "{person}", "city": "{city}"}',
    ),
    append=comment,
)
