"""What our trainers refuse, each in one sentence that says what to do."""


class DataError(Exception):
    """The data can't be read, or is not what the run was started with. Says what to do."""


class ModelError(Exception):
    """The model can't be had as the run file asks for it. Says what to do."""


class SettingsError(Exception):
    """The run file asks for what this run can't be. Says which key, and what to do."""
