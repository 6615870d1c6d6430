"""The world in Arabic."""

from tif.benchmarks.fictitious.arabic.framing import FRAMING
from tif.benchmarks.fictitious.arabic.lore import LORE
from tif.benchmarks.fictitious.arabic.phrasings import FACTS
from tif.benchmarks.fictitious.arabic.vocabulary import VOCABULARY
from tif.benchmarks.fictitious.language import Language

# Pronouns are suffixes here, which the phrasings write as <masculine|feminine>.
ARABIC = Language(VOCABULARY, FACTS, FRAMING, LORE, pronouns={})
