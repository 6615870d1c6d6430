"""Token-targeted unlearning of language models."""

from tif import errors as errors  # before anything that takes long to import: it notes who started this process
