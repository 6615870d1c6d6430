"""The invented world behind the benchmark `fictitious`: what is true in it, apart from how it is told.

`vocabulary` and `people` hold the typed facts of the authors, `lore` what everybody in that world knows; `phrasings`,
`framing` and `rendering` turn facts into text and know which characters of it carry a fact.
"""
