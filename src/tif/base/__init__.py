"""What every room stands on: errors, stages, parameters, tables."""

from tif.base import stage as stage  # first of all, because it notes who started this process
