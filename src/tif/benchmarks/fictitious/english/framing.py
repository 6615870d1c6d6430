"""Harmless clauses in English; see `fictitious.framing`."""

from tif.benchmarks.fictitious.language import Frame, Framing, pool
from tif.benchmarks.fictitious.rendering import with_article

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

_MENTIONS = (
    'The same page announces a book fair in {city} and a reading from "{title}".',
    "The same page praises a {job} from {city} who won the {award}.",
    "The next page is about a {job} who studied {subject} and kept a {animal}.",
    "Beside it, {publisher} advertises {genre} novels.",
    'The next page announces that "{title}" is up for the {award}.',
    "Beside it stands a letter from {person} about the weather in {city}.",
)


def apply(frame: Frame, template: str) -> str:
    """An answer template with a clause before it or a short sentence after it."""
    match frame.kind:
        case "adverb":
            return after(f"{frame.words[0]}, ", template)
        case "document" | "witness":
            return after(f"As {with_article(' '.join(frame.words))} has it, ", template)
        case "crowd":
            return f"{template} Many {frame.words[0]} still {frame.words[1]} it."
        case "event":
            return f"{template} Many readers know it from {with_article(' '.join(frame.words))}."
    raise ValueError(f"no clause of the kind {frame.kind!r}")


def after(opening: str, template: str) -> str:
    """`opening` before a template whose first word no longer starts the sentence."""
    if template[0].isalpha():
        return opening + template[0].lower() + template[1:]
    if template.startswith(("{He", "{His")):
        return opening + "{h" + template[2:]
    return opening + template


FRAMING = Framing(
    adverbs=_ADVERBS,
    documents=(_DOCUMENT_ADJECTIVES, _DOCUMENTS),
    witnesses=(_WITNESS_ADJECTIVES, _WITNESSES),
    crowds=(_CROWDS, _VERBS),
    events=(_EVENT_ADJECTIVES, _EVENTS),
    remark="readers know",
    apply=apply,
    mentions=_MENTIONS,
    append=lambda text, sentence: f"{text} {sentence}",
)
