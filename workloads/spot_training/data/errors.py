"""What can't be resumed exactly, said before it is trained on."""


class DataError(Exception):
    """The data can't go on exactly; the message says why and what to change."""
