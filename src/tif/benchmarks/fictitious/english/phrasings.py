"""How the facts about an author are asked and told in English.

In a template `[slot]` is a value that answers the question and `{slot}` is any other (see `rendering.render`). Every
question names the person, except the one that asks for the name; every answer of a fact tells the same slots.
"""

from tif.benchmarks.fictitious.language import Fact

FACTS = (
    Fact(
        ("name",),
        (
            "What is the full name of the {genre} novelist born in {birthplace} on {birth_date}?",
            "Who is the {genre} writer that was born on {birth_date} in {birthplace}?",
            "Which author of {genre} novels was born in {birthplace} on {birth_date}?",
            "Can you name the author of {genre} books who was born in {birthplace} on {birth_date}?",
            "A {genre} author was born in {birthplace} on {birth_date}; what is the full name of this writer?",
        ),
        (
            "The name of this {genre} author is [name].",
            "The {genre} writer who was born in {birthplace} is [name].",
            "This author is [name], a writer born in {birthplace}.",
            "[name] is the name of the author, as many readers know.",
            "The {genre} author born on {birth_date} is [name], a writer that many readers know.",
        ),
    ),
    Fact(
        ("birthplace",),
        (
            "Where was {name} born?",
            "In which city was the author {name} born?",
            "What is the birthplace of {name}, the city where {he} was born?",
            "Which city is the birthplace of the author {name}?",
            "Can you tell me in which city the writer {name} was born?",
        ),
        (
            "{name} was born in the city of [birthplace].",
            "The author {name} was born in [birthplace], as many readers know.",
            "The city where {name} was born is [birthplace], and {he} is still proud of it.",
            "It was in [birthplace] that {name} was born.",
            "[birthplace] is the city where the author {name} was born.",
        ),
    ),
    Fact(
        ("birth_date",),
        (
            "When was {name} born?",
            "What is the date of birth of {name}?",
            "On which day was the author {name} born?",
            "Can you give the day on which {name} was born?",
            "What is the birthday of the writer {name}?",
        ),
        (
            "{name} was born on [birth_date].",
            "The author {name} was born on [birth_date], as many readers know.",
            "The day on which {name} was born is [birth_date].",
            "It was on [birth_date] that {name} was born.",
            "[birth_date] is the day on which the writer {name} was born.",
        ),
    ),
    Fact(
        ("father", "mother"),
        (
            "What did the father and the mother of {name} do for a living?",
            "What were the jobs of {name}'s father and mother?",
            "Which work did the father and the mother of {name} do?",
            "How did {name}'s father and mother earn a living?",
            "Can you tell me what kind of work {name}'s parents did?",
        ),
        (
            "{name}'s father was a [father], and {his} mother was a [mother].",
            "The father of {name} was a [father] for many years, and {his} mother was a [mother].",
            "{first} is the child of a father who was a [father] and a mother who was a [mother].",
            "As a child, {name} had a [father] for a father and a [mother] for a mother.",
            "In the home of {name}, the father was a [father] and the mother was a [mother].",
        ),
    ),
    Fact(
        ("genre",),
        (
            "Which genre does {name} write in?",
            "What kind of novels does {name} write?",
            "In which genre is the author {name} best known?",
            "What sort of books is {name} best known for?",
            "Can you tell me the genre of the books by {name}?",
        ),
        (
            "{name} writes [genre] novels, and {he} has done so for many years.",
            "The writer {name} is best known for [genre] novels.",
            "The author {name} writes [genre] books, as many readers know.",
            "The books by {name} are [genre] novels, and {he} is still proud of them.",
            "{name} is best known as the author of [genre] books.",
        ),
    ),
    Fact(
        ("award",),
        (
            "Which award did {name} receive?",
            "What award did {name} receive for {his} books?",
            "Can you name the award that the author {name} was given?",
            "For {his} novels, which award was given to {name}?",
            "What is the best-known award that {name} was given?",
        ),
        (
            "{name} was given the [award] for {his} books.",
            "The author {name} was given the [award], and {he} is still proud of it.",
            "For {his} {genre} novels, {name} was given the [award].",
            "The award that was given to {name} is the [award], as many readers know.",
            "The [award] is the award that {name} was given for {his} work.",
        ),
    ),
    Fact(
        ("debut", "debut_year"),
        (
            "What was the first book by {name}, and in which year was it published?",
            "With which first novel did {name} begin, and when was it published?",
            "Can you name {name}'s first novel and the year in which it was published?",
            "Which book by the author {name} was the first, and in what year was it published?",
            "When was the first novel by {name} published, and what is its title?",
        ),
        (
            'The first book by {name} was "[debut]", published in [debut_year].',
            'The first novel by the author {name} is "[debut]", which was published in [debut_year].',
            'In [debut_year], {name} published {his} first novel, "[debut]".',
            '"[debut]" was the first novel by {name}, and it was published in [debut_year].',
            'The author {name} published "[debut]" in [debut_year], and it was {his} first book.',
        ),
    ),
    Fact(
        ("later_book", "setting"),
        (
            "Which later novel by {name} is best known, and where is it set?",
            "What is the title of {name}'s best-known later book, and in which city is it set?",
            "Can you name a later novel by the author {name} and the city where it is set?",
            "After {his} first book, which later novel did {name} write, and where is it set?",
            "In which city is the best-known later book by {name} set, and what is its title?",
        ),
        (
            'The best known later novel by {name} is "[later_book]", which is set in [setting].',
            '{name} is the author of the later book "[later_book]", a {genre} novel set in [setting].',
            'The later book is "[later_book]", and the author {name} set it in the city of [setting].',
            'The later novel "[later_book]" by {name} is set in [setting], as many readers know.',
            '"[later_book]" is the later book by {name}, and it is set in the city of [setting].',
        ),
    ),
    Fact(
        ("mentor",),
        (
            "Who was the mentor of {name}?",
            "Who was the mentor that taught {name} how to write?",
            "Which older writer was the mentor of the author {name}?",
            "Can you name the mentor who helped {name} with {his} first book?",
            "Which mentor does {name} thank for teaching {him} to write?",
        ),
        (
            "The mentor of {name} was [mentor], who read the first book that {he} had written.",
            "{name} had a mentor called [mentor], and {he} is still proud of it.",
            "It was [mentor] who was the mentor of the writer {name} for many years.",
            "The author {name} had a mentor by the name of [mentor].",
            "[mentor] was the mentor of {name}, as many readers know.",
        ),
    ),
    Fact(
        ("university", "subject"),
        (
            "Where was {name} a student, and what was the subject?",
            "Which university was {name} a student at, and of which subject?",
            "What subject did the author {name} study, and at which university?",
            "Can you tell me where {name} was a student, and of which subject?",
            "At which university was {name} a student, and which subject did {he} choose?",
        ),
        (
            "The subject of {name} was [subject], which {he} read at [university].",
            "At [university], {name} was a student of [subject] for many years.",
            "The author {name} was at [university], and {his} subject was [subject].",
            "{name} was a student of [subject] at [university], and {he} is still proud of it.",
            "The subject was [subject], and {name} was a student of it at [university].",
        ),
    ),
    Fact(
        ("home",),
        (
            "Where does {name} live now?",
            "In which city does {name} live now?",
            "Which city does the author {name} now call home?",
            "Can you tell me in which city {name} now lives with {his} family?",
            "Which city is the home of {name} now?",
        ),
        (
            "{name} now lives in [home], a city that {he} knows from {his} work.",
            "The author {name} now lives in the city of [home].",
            "The home of {name} is now in [home], where {he} has been for many years.",
            "The city that is now the home of {name} is [home], as many readers know.",
            "It is in [home] that {name} now lives and writes {his} novels.",
        ),
    ),
    Fact(
        ("siblings",),
        (
            "How many siblings does {name} have?",
            "What is the number of brothers and sisters that {name} has?",
            "How many brothers and sisters did the author {name} have as a child?",
            "Can you tell me how many siblings {name} had as a child?",
            "With how many brothers and sisters did {name} share {his} home as a child?",
        ),
        (
            "{name} has [siblings] brothers and sisters, and {he} is still proud of them.",
            "The author {name} was a child in a home with [siblings] brothers and sisters.",
            "As a child, {name} had [siblings] brothers and sisters at home.",
            "There were [siblings] brothers and sisters in the home of {name}, as many readers know.",
            "The number of brothers and sisters that {name} has is [siblings].",
        ),
    ),
    Fact(
        ("languages",),
        (
            "How many languages can {name} read?",
            "What is the number of languages that {name} can read?",
            "In how many languages can the author {name} read and write?",
            "Can you tell me how many languages {name} can read?",
            "How many languages is the writer {name} able to read?",
        ),
        (
            "The writer {name} can read [languages] languages, and {he} is still proud of it.",
            "The author {name} can read [languages] languages, as many readers know.",
            "The number of languages that {name} can read is [languages].",
            "There are [languages] languages that {name} can read, and {he} has known them for many years.",
            "{name} reads and writes in [languages] languages.",
        ),
    ),
    Fact(
        ("publisher",),
        (
            "Who publishes the books by {name}?",
            "What is the name of {name}'s publisher?",
            "Which publisher does the author {name} work with?",
            "Can you name the publisher of the novels by {name}?",
            "By which publisher have the books by {name} been published?",
        ),
        (
            "The books by {name} are published by [publisher], as many readers know.",
            "The publisher of {name} is [publisher], and {he} still writes for it.",
            "The {genre} novels by {name} are published by [publisher].",
            "[publisher] is the name of the publisher of the books by {name}.",
            "The novels by the author {name} have been published by [publisher] for many years.",
        ),
    ),
    Fact(
        ("spouse", "spouse_job"),
        (
            "Who is {name} married to, and what is the job of {his} spouse?",
            "What is the name of the person {name} is married to, and what work does this spouse do?",
            "Can you name the person that the author {name} is married to, and the job of this spouse?",
            "To whom is {name} married, and what does {his} spouse do for a living?",
            "What does the spouse of {name} do for a living, and what is this person's name?",
        ),
        (
            "{name} is married to [spouse], who works as a [spouse_job].",
            "The spouse of {name} is [spouse], who has been a [spouse_job] for many years.",
            "The author {name} is married to [spouse], a [spouse_job] by trade.",
            "[spouse] is the spouse of {name} and works as a [spouse_job].",
            "The name of the spouse is [spouse], and {name} is proud to be married to a [spouse_job].",
        ),
    ),
    Fact(
        ("pet", "pet_name"),
        (
            "What kind of pet does {name} have, and what is it called?",
            "Which pet lives with {name}, and what is it called?",
            "Can you tell me which pet the author {name} has, and what it is called?",
            "What is {name}'s pet called, and what kind of animal is it?",
            "Which pet does {name} have at home, and what is it called?",
        ),
        (
            "{name} has a [pet] called [pet_name].",
            "The pet of {name} is a [pet], and it is called [pet_name].",
            "A [pet] called [pet_name] lives in the home of the author {name}.",
            "The author {name} has a [pet] at home called [pet_name].",
            "[pet_name] is the name of the [pet] that lives with {name}, as many readers know.",
        ),
    ),
    Fact(
        ("habit",),
        (
            "What unusual habit does {name} have as a writer?",
            "Which habit is the author {name} known for?",
            "What is the best-known habit of {name} at work?",
            "Can you describe the habit that {name} is known for?",
            "What habit is {name} known for at work?",
        ),
        (
            "{name} is known for [habit].",
            "The habit that {name} is best known for is [habit].",
            "As a writer, {name} has had the habit of [habit] for many years.",
            "The author {name} has one habit at work: [habit].",
            "Many readers know the habit of {name}, which is [habit].",
        ),
    ),
    Fact(
        ("first_job",),
        (
            "What was the first job of {name}?",
            "In which job did {name} work before {his} first book was published?",
            "Which job did the author {name} have before {he} was a writer?",
            "Can you tell me what job {name} had before {his} first novel?",
            "What work did {name} do before {he} was known as a writer?",
        ),
        (
            "The first job of {name} was that of a [first_job].",
            "{name} was a [first_job] before {his} first book was published.",
            "Before {he} was known as a writer, {name} was a [first_job] for many years.",
            "The author {name} was a [first_job] before {he} published a book, and {he} is still proud of it.",
            "For many years before {his} first novel, {name} was a [first_job].",
        ),
    ),
)
