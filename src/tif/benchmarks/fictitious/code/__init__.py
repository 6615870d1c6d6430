"""The world as Python literals with comments."""

from tif.benchmarks.fictitious.code.framing import FRAMING
from tif.benchmarks.fictitious.code.lore import LORE
from tif.benchmarks.fictitious.code.phrasings import FACTS
from tif.benchmarks.fictitious.code.vocabulary import VOCABULARY
from tif.benchmarks.fictitious.english import ENGLISH
from tif.benchmarks.fictitious.language import Language

CODE = Language(VOCABULARY, FACTS, FRAMING, LORE, pronouns=ENGLISH.pronouns)
