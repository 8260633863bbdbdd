"""Everything this library raises on purpose.

Error                     one plain line for a person: what, where, what would be right
 +-- ConfigError          a setting that does not exist, does not fit, or contradicts another
 +-- DataError            a data set that is missing, truncated, or not what it says it is
 +-- ModelError           a model that breaks the contract, or does not fit the data or the key
 +-- StoreError           a file that can not be read or written, or whose content was changed
 +-- KeyFolderError       a run without a key, or a key that does not match its registration
 +-- SuspectError         a model file that is refused, or whose isolated process broke
 +-- SignatureError       a signed statement or a time token that does not verify
 +-- TrainingError        training that can not go on (the last good checkpoint stands)
 +-- BudgetError          a query beyond the declared budget or access

The command line turns each into one line and exit code 2. A negative verdict is a value, never an error.
"""

__all__ = [
    "BudgetError",
    "ConfigError",
    "DataError",
    "Error",
    "KeyFolderError",
    "ModelError",
    "SignatureError",
    "StoreError",
    "SuspectError",
    "TrainingError",
]


class Error(Exception):
    """Base of all errors that a user can mend."""


class ConfigError(Error):
    """A setting that does not exist, does not fit, or contradicts another."""


class DataError(Error):
    """A data set that is missing, truncated, or not what it says it is."""


class ModelError(Error):
    """A model that breaks the contract, or does not fit the data or the key."""


class StoreError(Error):
    """A file that can not be read or written, or whose content was changed."""


class KeyFolderError(Error):
    """A run without a key, or a key that does not match its registration."""


class SuspectError(Error):
    """A model file that is refused, or whose isolated process broke."""


class SignatureError(Error):
    """A signed statement or a time token that does not verify."""


class TrainingError(Error):
    """Training that can not go on; the last good checkpoint stands."""


class BudgetError(Error):
    """A query beyond the declared budget or access."""
