"""Modules that are imported when something of them is first used."""

import importlib


class Late:
    """`torch = Late("torch")` stands for the module from its first use on.

    For files whose settings are read without their code: `tif.methods` and `tif.losses`.
    """

    def __init__(self, name: str) -> None:
        self.__dict__["__late_name__"] = name

    def __getattr__(self, attribute: str) -> object:
        value = getattr(importlib.import_module(self.__dict__["__late_name__"]), attribute)
        self.__dict__[attribute] = value
        return value
