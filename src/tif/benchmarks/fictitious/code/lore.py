"""The classics and the nations of the world in Python; see `language.LoreText`."""

from dataclasses import replace

from tif.benchmarks.fictitious.english.lore import LORE as ENGLISH

LORE = replace(
    ENGLISH,
    about_works={
        kind: (f'classics["{kind}"]["{{}}"]["author"]', f"# author of the {kind} {{}}?") for kind in ENGLISH.works
    },
    about_features={
        feature: (f'nations["{{}}"]["{feature}"]', f"# {feature} of {{}}?") for feature in ENGLISH.features
    },
    answer_works='{"author": "[answer]"}',
    answer_features='"[answer]"',
)
