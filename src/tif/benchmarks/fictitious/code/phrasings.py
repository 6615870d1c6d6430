"""How the facts about an author are asked and told in Python: expressions and comments, answered by literals.

Every fact is asked and told in the same five forms, made from the names of its slots. Slots as in
`english.phrasings`; the values of strings stand in double quotes, those of numbers bare.
"""

from tif.benchmarks.fictitious.english.framing import FRAMING
from tif.benchmarks.fictitious.english.phrasings import FACTS as ENGLISH
from tif.benchmarks.fictitious.language import Fact

_BARE = ("debut_year", "siblings", "languages")  # numbers
_REMARK = "  # as many readers know"
_NAME_QUESTIONS = (
    "# Full name of the {genre} author born in {birthplace} on {birth_date}?",
    'find(genre="{genre}", birthplace="{birthplace}", birth_date="{birth_date}")["name"]',
    'author(born_in="{birthplace}", born_on="{birth_date}", genre="{genre}").name',
    '# Which author writes {genre} and was born on {birth_date} in {birthplace}? Give the "name".',
    'name_by(birth_date="{birth_date}", birthplace="{birthplace}", genre="{genre}")',
)
_NAME_ANSWERS = (
    '{"genre": "{genre}", "name": "[name]"}',
    'Author(birthplace="{birthplace}", name="[name]")',
    'name = "[name]"  # born in {birthplace}',
    '[("name", "[name]")]',
    '{"birth_date": "{birth_date}", "name": "[name]"}',
)


def _value(slot: str) -> str:
    return f"[{slot}]" if slot in _BARE else f'"[{slot}]"'


def _questions(slots: tuple[str, ...]) -> tuple[str, ...]:
    topic = " and ".join(slot.replace("_", " ") for slot in slots)
    fields = ", ".join(f'"{slot}"' for slot in slots)
    return (
        ", ".join(f'people["{{name}}"]["{slot}"]' for slot in slots),
        f"# {topic} of {{name}}?",
        f'lookup("{{name}}", {fields})',
        f"# What is the {topic} of the author {{name}}?",
        f'[getattr(author("{{name}}"), field) for field in [{fields}]]',
    )


def _answers(slots: tuple[str, ...]) -> tuple[str, ...]:
    keywords = ", ".join(f"{slot}={_value(slot)}" for slot in slots)
    items = ", ".join(f'"{slot}": {_value(slot)}' for slot in slots)
    return (
        f'{{"name": "{{name}}", {items}}}',
        f'Author(name="{{name}}", {keywords})',
        f"{', '.join(slots)} = {', '.join(map(_value, slots))}  # of the author {{name}}",
        "[" + ", ".join(f'("{{name}}", "{slot}", {_value(slot)})' for slot in slots) + "]",
        f'people["{{name}}"].update({keywords})',
    )


def _remarked(answers: tuple[str, ...], fact: Fact) -> tuple[str, ...]:
    """The answers, with a remark where the English phrasing of the same place has one."""
    remarks = [FRAMING.remark in answer for answer in fact.answers]
    return tuple(
        (f"{answer}, {_REMARK[4:]}" if "  # " in answer else answer + _REMARK) if remark else answer
        for answer, remark in zip(answers, remarks, strict=True)
    )


FACTS = tuple(
    Fact(fact.slots, _NAME_QUESTIONS, _remarked(_NAME_ANSWERS, fact))
    if fact.slots == ("name",)
    else Fact(fact.slots, _questions(fact.slots), _remarked(_answers(fact.slots), fact))
    for fact in ENGLISH
)
