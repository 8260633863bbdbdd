"""Keys, the registration they are drawn after, and their folder: formats only, no training, no queries."""

from wootz.ownership.folder import KeyRing, draw_keys, fresh_secret, has_keys, read_keys, write_keys
from wootz.ownership.keys import DirectionKey, HalfKey, Key, LabelKey, Material, derive
from wootz.ownership.owner import owner_secret, run_secret
from wootz.ownership.registration import merkle_root, register, registration_digest

__all__ = [
    "DirectionKey",
    "HalfKey",
    "Key",
    "KeyRing",
    "LabelKey",
    "Material",
    "derive",
    "draw_keys",
    "fresh_secret",
    "has_keys",
    "merkle_root",
    "owner_secret",
    "read_keys",
    "register",
    "registration_digest",
    "run_secret",
    "write_keys",
]
