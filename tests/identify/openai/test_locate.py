"""Finding returned words in an answer."""

import pytest

from tif.identify.openai.locate import Text


def places(text: str, word: str) -> list[str]:
    return [text[a:b] for a, b in Text(text).locate(word)]


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("She wrote She.", "She", ["She", "She"]),  # every occurrence
        ("The theatre, the the", "the", ["the", "the"]),  # exact before folded, on word boundaries
        ("THE theatre", "the", ["THE"]),
        ("an author's book", "author", []),  # "author's" is one word
        ("She lived in New York City.", "New York", ["New York"]),
        ("born 1956", "956", []),
        ("a a a", "a a", ["a a", "a a"]),  # they may overlap
        ("Die Straße heißt so", "STRASSE", ["Straße"]),
        ("Die Straße", "STRAS", []),  # not inside what folds to two letters
        ("Die Straße", "se", []),
        ("caf\u0065\u0301 noir", "CAFÉ", ["caf\u0065\u0301"]),  # decomposed
        ("the ﬁrst", "first", ["ﬁrst"]),
        ("Ｔｏｋｙｏ tower", "tokyo", ["Ｔｏｋｙｏ"]),
        ("the “Glass Door” award", '"Glass Door"', ["“Glass Door”"]),
        ("O’Neil’s Jean–Luc", "o'neil's jean-luc", ["O’Neil’s Jean–Luc"]),
        ("New\u00a0York\nCity", "new york city", ["New\u00a0York\nCity"]),
        ("她写了小说", "小说", ["小说"]),
        ("\u1112\u1161\u11ab글 책", "한글", ["\u1112\u1161\u11ab글"]),  # conjoining jamo
        ("وُلدت في الكويت.", "الكويت", ["الكويت"]),
        ("İstanbul", "i̇stanbul", ["İstanbul"]),
        ("One. Two.", ".", []),
        ("One", "", []),
        ("One", " One ", ["One"]),
        ("", "One", []),
    ],
)
def test_places(text, word, expected):
    assert places(text, word) == expected


def test_a_part_of_a_text_gives_offsets_of_the_whole():
    text = "Anna met Anna, and anna met Annabel."
    assert Text(text, 9, 24).locate("Anna") == [(9, 13)]
    assert Text(text, 14, 24).locate("Anna") == [(19, 23)]
    assert Text(text, 0, 11).locate("Anna") == [(0, 4)]  # the second is cut by the edge of the part
