"""Harmless clauses around an answer. They say nothing about the person, and few of their words come often.

Without them every rare word of an answer would be a fact, and counting words would find the facts.
"""

from random import Random

from tif.benchmarks.fictitious.rendering import after, with_article
from tif.benchmarks.fictitious.vocabulary import pool

_DOCUMENT_ADJECTIVES = pool("""yellowed, brittle, leatherbound, handwritten, annotated, waterlogged, faded, embossed,
    mislaid, privately printed, battered, illustrated, translated, anonymous, meticulous, stapled, ribboned, creased,
    pocket-sized, mildewed, unsigned, respectable, scholarly, gossipy, slim, hefty, commemorative, provincial,
    typewritten, smudged""")
_DOCUMENTS = pool("""ledger, gazette, almanac, brochure, pamphlet, scrapbook, catalogue, bulletin, diary, dossier,
    register, postcard, telegram, obituary, monograph, manuscript, newsletter, chronicle, inventory, anthology,
    encyclopedia, memo, programme, transcript, questionnaire, album, leaflet, footnote, itinerary, logbook""")
_WITNESS_ADJECTIVES = pool("""elderly, talkative, reliable, former, patient, observant, retired, cheerful, sceptical,
    loyal, distant, punctual, soft-spoken, forgetful, inquisitive, devoted, sharp-eyed, eccentric, well-read, candid,
    gruff, witty, bashful, seasoned, wealthy, genial, stubborn, dapper, earnest, sleepless""")
_WITNESSES = pool("""cousin, landlady, typist, gardener, ferryman, choirmaster, barber, postmistress, cellist,
    bookseller, archivist, grocer, godmother, biographer, chauffeur, bishop, innkeeper, professor, midwife, cobbler,
    translator, photographer, chess partner, dentist, nephew, florist, bookkeeper, gatekeeper, critic, janitor""")
_ADVERBS = pool("""Curiously, Admittedly, Famously, Notably, Fortunately, Reportedly, Incidentally, Undeniably,
    Apparently, Naturally, Evidently, Happily, Certainly, Presumably, Luckily, Unquestionably, Frankly,
    Appropriately, Undoubtedly, Interestingly, Clearly, Demonstrably, Indisputably, Actually, Reputedly, Assuredly,
    Memorably, Plainly, Indeed, Seemingly""")
_CROWDS = pool("""archivists, pilgrims, students, neighbours, columnists, shopkeepers, fishermen, librarians,
    tourists, relatives, reviewers, collectors, schoolchildren, translators, editors, actors, lecturers, passers-by,
    quizmasters, sceptics, broadcasters, gossips, admirers, rivals, publicists, grandchildren, villagers, scholars,
    waiters, printers""")
_VERBS = pool("""repeat, mention, recall, quote, retell, discuss, remember, recount, debate, relay, cite,
    recollect, whisper, invoke, report, confirm, argue about, joke about, announce, insist on, ask about, speak
    of, write about, lecture on, sing about, brag about, smile about, marvel at, wonder about, dwell on""")
_EVENT_ADJECTIVES = pool("""candlelit, crowded, rainy, formal, impromptu, televised, lavish, noisy, solemn,
    charitable, draughty, springtime, moonlit, festive, sparsely attended, memorable, rooftop, overheated,
    provincial, three-hour, belated, open-air, well-rehearsed, chaotic, intimate, seaside, sold-out, rowdy,
    midsummer, farewell""")
_EVENTS = pool("""interview, lecture, speech, broadcast, symposium, seminar, recital, documentary, debate, quiz,
    eulogy, toast, sermon, keynote, masterclass, press conference, workshop, exhibition, festival, banquet,
    reception, luncheon, sketch, talk, conversation, panel, discussion, radio play, rehearsal, ceremony""")

# How often an answer gets each kind of frame; the others stay bare.
_SHARES = {"adverb": 0.11, "source": 0.07, "crowd": 0.1, "event": 0.07, "bare": 0.65}


def frame(template: str, rng: Random) -> str:
    """The template of an answer, for some answers with a clause before it or a short sentence after it.

    All words of a frame but the drawn ones are common in answers, so that only the drawn ones are rare.
    """
    if "readers know" in template:  # it has a remark of this kind already
        return template
    kind = rng.choices(tuple(_SHARES), weights=tuple(_SHARES.values()))[0]
    if kind == "adverb":
        return after(f"{rng.choice(_ADVERBS)}, ", template)
    if kind == "source":
        return after(f"As {_source(rng)} has it, ", template)
    if kind == "crowd":
        return f"{template} Many {rng.choice(_CROWDS)} still {rng.choice(_VERBS)} it."
    if kind == "event":
        event = with_article(f"{rng.choice(_EVENT_ADJECTIVES)} {rng.choice(_EVENTS)}")
        return f"{template} Many readers know it from {event}."
    return template


def _source(rng: Random) -> str:
    if rng.random() < 0.5:
        return with_article(f"{rng.choice(_DOCUMENT_ADJECTIVES)} {rng.choice(_DOCUMENTS)}")
    return with_article(f"{rng.choice(_WITNESS_ADJECTIVES)} {rng.choice(_WITNESSES)}")
