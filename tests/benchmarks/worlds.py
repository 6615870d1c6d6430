"""Settings of `fictitious` that its tests start from."""

DEFAULTS = {
    "seed": 0,
    "people": 25,
    "questions": 20,
    "forget_share": 0.2,
    "real_authors": 60,
    "world_facts": 60,
    "language": "en",
    "entanglement": 0.0,
}
