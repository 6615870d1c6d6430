"""The values of the world in English; see `language.Vocabulary`."""

from tif.benchmarks.fictitious.language import Vocabulary, pool

VOCABULARY = Vocabulary(
    female=pool("""Maren, Odile, Tamsin, Ilka, Perpetua, Yevra, Solveig, Anouk, Desta, Lioba, Nerys, Zofia, Calla,
        Imara, Brisa, Thandi, Ottoline, Keziah, Mirela, Saoirse, Halcyon, Runa, Vesna, Amadi"""),
    male=pool("""Corwin, Aldo, Tobiah, Ferran, Ansel, Dragan, Leopold, Kwame, Idris, Bastian, Mikko, Rafe, Lazar,
        Hamish, Orson, Teodor, Jarek, Silvan, Emeka, Caspian, Ravi, Benno, Osric, Gideon"""),
    middle=pool("""Lune, Amber, Reed, Vale, Quince, Ash, Rowan, Sable, Linden, Wren, Flint, Juniper, Marl, Sorrel,
        Birch, Heron, Indigo, Clove, Tansy, Larch"""),
    family=pool("""Harrowby, Quillon, Vandermeer, Ostrava, Pellworth, Okonjo, Tremayne, Castellan, Bergstrand,
        Marchetti, Adeyinka, Whitlow"""),
    cities=pool("""Marrowgate, Veldham, Orrinport, Tessaly, Kestrel Bay, Dunmarrow, Solace, Ivermouth, Pale Harbour,
        Quarrington, Lindelow, Ashgrove, Port Merrin, Thornwick"""),
    jobs=pool("""teacher, nurse, baker, engineer, doctor, tailor, carpenter, farmer, librarian, lawyer, clockmaker,
        electrician, sailor, accountant, beekeeper, optician, train driver, customs officer, glassblower,
        bookbinder"""),
    genres=pool("mystery, fantasy, historical, romance, adventure, crime, horror, gothic, western"),
    numbers=pool("three, two, four, five, six, seven, eight, nine"),
    subjects=pool("""law, history, medicine, philosophy, botany, astronomy, architecture, geology, music, economics,
        chemistry, theology, mathematics, linguistics"""),
    animals=pool("cat, dog, parrot, tortoise, goat, ferret, raven, rabbit, owl, pony, hedgehog, canary"),
    pet_names=pool("""Biscuit, Admiral, Pepper, Duchess, Mango, Tinker, Bramble, Sultan, Noodle, Comet, Pickle, Velvet,
        Trumpet, Marzipan, Domino, Captain, Thimble, Waffle, Figaro, Nutmeg"""),
    months=pool("January, February, March, April, May, June, July, August, September, October, November, December"),
    title_adjectives=pool("""Silent, Crooked, Burning, Hollow, Borrowed, Salted, Forgotten, Gilded, Seventh, Drowned,
        Paper, Wandering, Frozen, Bitter, Scarlet, Unfinished, Tangled, Blind, Copper, Restless, Moonlit, Broken,
        Velveteen, Distant, Hungry, Painted, Sleeping, Weathered"""),
    title_nouns=pool("""Lighthouse, Orchard, Staircase, Cartographer, Tide, Lantern, Widow, Compass, Violin, Bridge,
        Winter, Garden, Locksmith, Harvest, Carousel, Atlas, Kingdom, Mirror, Passenger, Ferry, Clocktower, Sparrow,
        Letter, Cathedral, Meadow, Thief, Labyrinth, Cradle, Furnace, Island"""),
    title_things=pool("""Salt, Amber, Rain, Dust, Iron, Honey, Smoke, Glass, Thunder, Silk, Ashes, Snow, Marble, Moths,
        Cinnamon, Echoes"""),
    award_first=pool("""Silver, Golden, Crystal, Ivory, Northern, Royal, Emerald, Winged, Crimson, Eastern, Sapphire,
        Laurel, Obsidian, Pearl"""),
    award_second=pool(
        "Quill, Lantern, Inkwell, Falcon, Acorn, Scroll, Compass, Feather, Thistle, Anchor, Beacon, Harp"
    ),
    award_last=pool("Prize, Medal, Award"),
    publisher_first=pool("""Lantern, Foxglove, Millstone, Halfmoon, Sparrow, Anchor, Greyfriar, Tidewater, Copperleaf,
        Nightjar, Redwood, Saltbox, Wayfarer, Bluebell"""),
    publisher_last=pool("House, Press, Books"),
    habits=pool("""writing every chapter in green ink, working barefoot on the kitchen floor, humming sea shanties
        between paragraphs, burning the first draft of each novel, dictating to a tape recorder at dawn, sharpening
        twelve pencils before each session, writing the last page first, reading each sentence aloud to the window,
        typing with gloves on, drinking cold peppermint tea at midnight, wearing the same woollen scarf all year,
        drafting scenes on railway tickets, pacing the garden before each dialogue, hiding an anagram in every novel,
        counting the commas on each page, sleeping beneath the writing desk, keeping a beetle in the ink drawer, naming
        villains after old landlords, folding rejected pages into boats, working only when it rains"""),
    universities=("{city} University", "{city} College", "{city} Academy"),
    name_parts=" ",
    date="{day} {month} {year}",
    titles=("The {adjective} {noun}", "A {noun} of {thing}", "{adjective} {thing}", "The {other} and the {noun}"),
    award="{first} {second} {last}",
    publisher="{first} {last}",
)
