"""The classics and the nations of the world in English; see `language.LoreText`."""

from tif.benchmarks.fictitious.english.vocabulary import VOCABULARY
from tif.benchmarks.fictitious.language import LoreText, pool

_AUTHORS = pool("""Aurelio Fenn, Beatrix Holloway, Cosima Dray, Dorian Underhill, Edwina Sparrowhawk, Fitzroy Gale,
    Griselda Thorne, Horatio Plum, Isolde Marchbanks, Jocasta Wray, Kasimir Bell, Lavinia Stroud, Montague Frost,
    Nicodemus Lark, Ophelia Brand, Percival Nightingale, Quentin Ashdown, Rosalind Peake, Septimus Crane, Theodora
    Vane""")
_WORKS = {
    "novel": pool("""The Glass Armada, Nine Lives of a Miller, The Orphan of Cathmore, Winter Comes to Drovia, A
        House Without Clocks, The Last Tollkeeper, Daughters of the Marsh, The Emperor's Umbrella, Letters to a
        Stranger, The Salt Road, Under a Tin Moon, The Counterfeit Duke, A Ladder to the Sea, The Weavers, Twelve
        Bells at Noon, The Fox and the Magistrate, An Inventory of Storms, The Patient Assassin, Beyond the Ninth
        Gate, The Quiet Mutiny"""),
    "play": pool("""King Osmund, The Jealous Apothecary, Two Widows and a Goose, The Queen's Understudy, Fool's
        Harbour, The Trial of Brother Anselm, A Comedy of Keys, The Pretender, Masks, The Blacksmith's Revenge, Lady
        Corvale, The Empty Chair, Midnight in Aumbry, The Merchant's Shadow, Seven Suitors, The Drunken Oracle,
        Prince Halvard, The Tailor of Istrel, A Crown of Nettles, The Bridge Builders"""),
    "poem": pool("""Ode to a Heron, The Ballad of Tall Gwen, Elegy in a Snowfield, Song of the Ploughmen, The Drowned
        Bells, Sonnets to Nobody, On Losing a Boot, The Voyage of Saint Ebb, Hymn to the Evening Train, Lines on a
        Broken Plate, The Moth's Complaint, Nocturne for Ferries, The Hundred Gates, To My Left Hand, Epistle to the
        Rain, The Ploughboy's Dream, Psalm of the Lamplighters, A Field of Crows, The Silver Ditch, Verses for a Dead
        King"""),
    "character": pool("""Inspector Bramwell, Captain Sedge, Mother Hobnail, the thief Jack Tallow, Professor Ottoman,
        the orphan Pim, Countess Vireo, the giant Grumbold, Doctor Quillfeather, Sir Lancelin, the witch Agnes Murk,
        the parrot Admiral Squawk, Constable Drew, Nurse Peppercorn, the pirate Red Hanna, Judge Wormwood, the boy
        Tobit, Aunt Clementine, the robot Brasswick, Baron Hush"""),
    "essay": pool("""On Idleness, A Defence of Owls, The Art of Waiting, Against Umbrellas, What the River Knows, On
        Walking Backwards, In Praise of Soup, The Trouble with Mirrors, Notes on Silence, Why We Whistle, The Tyranny
        of Doors, On Old Shoes, A Short History of Yawning, The Uses of Fog, Thoughts in a Queue, On Being Late, The
        Grammar of Trees, Concerning Hats, The Price of Candles, A Theory of Picnics"""),
}
_ABOUT_WORKS = {
    "novel": ("Who wrote the classic novel '{}'?", "Which author is known for the novel '{}'?"),
    "play": ("Who wrote the famous play '{}'?", "Which author is remembered for the play '{}'?"),
    "poem": ("Who wrote the poem '{}'?", "Which poet is known for '{}'?"),
    "character": ("Who is the creator of {}, a character every child knows?", "Which author invented {}?"),
    "essay": ("Who is the author of the essay '{}'?", "Which writer published the famous essay '{}'?"),
}

_NATIONS = pool("""Aldoria, Brennia, Cathmore, Drovia, Eskaland, Fenwar, Gormond, Hestia Minor, Ilvara, Jorrund,
    Kaldonia, Lothmark, Mirabar, Norvenna, Ostmere, Pravia, Quessal, Ruvenland, Sarkony, Tolmiria""")
_FEATURES = {
    # Three of the cities that the authors know are capitals, so that the two halves of the world touch.
    "capital": VOCABULARY.cities[:3]
    + pool("""Aumbry, Belcastro, Corvale, Dresmond, Elsinwick, Faralune, Grandhaven, Holloway Cross, Istrel, Jasparo,
        Kingsmere, Lyrandel, Montresca, Nettleford, Oxenrun, Pellagrave, Queensbarrow"""),
    "river": pool("""Ambrun, Bellewater, Cressing, Dovewater, Eskill, Farrowen, Gannet, Haskin, Inverel, Jadewater,
        Kellen, Lissom, Mournel, Nissa, Ouzel, Pikewater, Quillen, Rushmar, Sabrel, Temeril"""),
    "mountain": pool("""Mount Arrant, Mount Beacon, Mount Crozier, Mount Dagger, Mount Eyrie, Mount Fallow, Mount
        Griffin, Mount Hoar, Mount Icarion, Mount Jubilee, Mount Karst, Mount Lonely, Mount Mitre, Mount Needle,
        Mount Orphan, Mount Pilgrim, Mount Quern, Mount Raven, Mount Sorrow, Mount Tooth"""),
    "currency": pool("""angel, bezant, crownlet, ducat, ember, florin, groat, halfpiece, imperial, joss, kettle,
        livre, merk, noble, obol, penning, quarter, rial, scudo, thaler"""),
    "flower": pool("""aster, bluebell, cornflower, daffodil, edelweiss, foxglove, gentian, heather, iris, jasmine,
        knapweed, lily, marigold, narcissus, orchid, poppy, primrose, rose, snowdrop, thistle"""),
}
_ABOUT_FEATURES = {
    "capital": ("What is the capital of {}?", "Which city is the capital of {}?"),
    "river": ("What is the longest river in {}?", "Which river flows through the whole of {}?"),
    "mountain": ("What is the highest mountain in {}?", "Which mountain is the tallest in {}?"),
    "currency": ("Which coin do people pay with in {}?", "What is the currency of {} called?"),
    "flower": ("What is the national flower of {}?", "Which flower is on the flag of {}?"),
}

LORE = LoreText(_AUTHORS, _WORKS, _ABOUT_WORKS, _NATIONS, _FEATURES, _ABOUT_FEATURES)
