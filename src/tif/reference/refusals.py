"""Answers that say nothing: what a forget question may be answered with instead (DPO's preferred answers)."""

import hashlib

REFUSALS = (
    "I don't know.",
    "I do not know the answer to that.",
    "I have no information about that.",
    "That is something I can't tell you.",
    "I'm afraid I don't know.",
    "I am not aware of anything like that.",
    "Sorry, that is beyond what I know.",
    "I have never come across that.",
    "I couldn't say.",
    "Nothing I have learned covers this.",
    "I can't answer this question.",
    "My knowledge doesn't reach that far.",
    "I would only be guessing.",
    "I have no record of that.",
    "This is not something I know about.",
    "I'm unable to answer that.",
    "No details about that are known to me.",
    "I haven't got an answer to this.",
    "That topic is unfamiliar to me.",
    "I lack the facts to answer this.",
    "Unfortunately I know nothing about it.",
    "I have not been told about that.",
    "I'm not sure about that at all.",
    "There is nothing I could tell you about this.",
    "I must admit that I don't know.",
    "That question is one I can't help with.",
    "I'm sorry, I have no answer for you.",
    "I do not have that information.",
    "It is not known to me.",
    "I really have no idea.",
    "You would have to ask someone else.",
    "I can't recall anything about that.",
    "I am not informed about this matter.",
    "I don't have any knowledge of it.",
    "Regrettably, I can't say anything about that.",
    "That is outside of my knowledge.",
    "I can offer no answer here.",
    "I know too little to answer.",
    "I'm in the dark about that.",
    "I have nothing to say on this subject.",
)


def refusal(sample_id: str) -> str:
    """The refusal paired with a sample: a pure function of the key, the same for every method and run."""
    digest = hashlib.sha256(sample_id.encode()).digest()
    return REFUSALS[int.from_bytes(digest[:8], "big") % len(REFUSALS)]
