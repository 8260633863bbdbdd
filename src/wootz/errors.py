"""The exceptions that this library raises.

Error                     base class; the message is one line: what is wrong, where, and what would be valid
 +-- ConfigError          a setting that does not exist, is invalid, or contradicts another
 +-- DataError            a data set that is missing, truncated, or different from the published one
 +-- ModelError           a model that violates the contract, or does not fit the data or the key
 +-- StoreError           a file that cannot be read or written, or whose content was changed
 +-- KeyFolderError       a run without a key, or a key that does not match its registration
 +-- SuspectError         a model file that is rejected
 |    +-- InconclusiveError    a suspect that could not be run here, so that nothing is known about it
 +-- SignatureError       a signed statement or a time token that does not verify
 +-- TrainingError        training that cannot continue (the last checkpoint is unchanged)
 +-- BudgetError          a query beyond the declared budget or access

The command line prints the message and exits with code 2. A negative verdict is a return value, not an error, and so is
the verdict INCONCLUSIVE, which `verify` and `judge` return for an InconclusiveError.
"""

__all__ = [
    "BudgetError",
    "ConfigError",
    "DataError",
    "Error",
    "InconclusiveError",
    "KeyFolderError",
    "ModelError",
    "SignatureError",
    "StoreError",
    "SuspectError",
    "TrainingError",
]


class Error(Exception):
    """Base class of all errors that a user can correct."""


class ConfigError(Error):
    """A setting that does not exist, is invalid, or contradicts another."""


class DataError(Error):
    """A data set that is missing, truncated, or different from the published one."""


class ModelError(Error):
    """A model that violates the contract, or does not fit the data or the key."""


class StoreError(Error):
    """A file that cannot be read or written, or whose content was changed."""


class KeyFolderError(Error):
    """A run without a key, or a key that does not match its registration."""


class SuspectError(Error):
    """A model file that is rejected."""


class InconclusiveError(SuspectError):
    """A suspect that could not be run here: its isolated process failed, crashed, or exceeded a limit."""


class SignatureError(Error):
    """A signed statement or a time token that does not verify."""


class TrainingError(Error):
    """Training that cannot continue; the last checkpoint is unchanged."""


class BudgetError(Error):
    """A query beyond the declared budget or access."""
