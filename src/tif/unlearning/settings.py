"""The block `unlearn`."""

from typing import Literal

from pydantic import Field

from tif.training import Memory, Optimisation


class Settings(Optimisation, Memory):
    """`unlearn`. method: file name of the method. trajectory_retain: retain samples scored after every epoch.

    processes: copies of the stage that share every step, each with a device of its own unless it runs on the CPU.
    select: which epoch's weights are saved: last, or best, the one with the greatest harmonic mean of the forget set's
    truth ratio score and the share of the target model's retain probability that is left; see
    `tif.unlearning.selection`. The other keys are those of `Optimisation` and `Memory`.
    """

    method: str = Field(pattern=r"^[a-z0-9_]+$")
    trajectory_retain: int = Field(ge=1)
    processes: int = Field(default=1, ge=1)
    select: Literal["last", "best"] = "last"
