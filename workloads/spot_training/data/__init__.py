"""Data that resumes: which batch comes next is a pure function of a seed and of what the loop has received."""

from spot_training.data.errors import DataError
from spot_training.data.limits import limits_of
from spot_training.data.loader import ResumableLoader

__all__ = ["DataError", "ResumableLoader", "limits_of"]
