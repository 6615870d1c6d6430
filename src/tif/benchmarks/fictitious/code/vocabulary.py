"""The values of the world as Python writes them: English words, ISO dates, numbers in digits."""

from dataclasses import replace

from tif.benchmarks.fictitious.english.vocabulary import VOCABULARY as ENGLISH
from tif.benchmarks.fictitious.language import pool

VOCABULARY = replace(
    ENGLISH,
    numbers=pool("3, 2, 4, 5, 6, 7, 8, 9"),
    months=pool("01, 02, 03, 04, 05, 06, 07, 08, 09, 10, 11, 12"),
    date="{year}-{month}-{day:02}",
)
