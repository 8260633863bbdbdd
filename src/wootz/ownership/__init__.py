"""Keys, the registration they are drawn after, and their folder: formats only, no training, no queries."""

from wootz.ownership.answers import guard_key
from wootz.ownership.folder import KeyRing, draw_keys, fresh_secret, has_keys, read_keys, write_keys
from wootz.ownership.keys import (
    AnswerKey,
    DirectionKey,
    HalfKey,
    Key,
    LabelKey,
    Material,
    OrderKey,
    WeightKey,
    derive,
    open_tranche,
)
from wootz.ownership.opening import marks_opened, open_marks, opened_keys
from wootz.ownership.owner import owner_secret, run_secret
from wootz.ownership.registration import (
    Sealed,
    Walk,
    commit,
    fixed_before,
    register,
    registration_digest,
    tranche_root,
)
from wootz.ownership.signing import (
    Statement,
    opened,
    public_hex,
    public_pem,
    read_public,
    signed,
    signing_file,
    signing_key,
)
from wootz.ownership.timestamps import read_roots, stamp_request, stamped_at

__all__ = [
    "AnswerKey",
    "DirectionKey",
    "HalfKey",
    "Key",
    "KeyRing",
    "LabelKey",
    "Material",
    "OrderKey",
    "Sealed",
    "Statement",
    "Walk",
    "WeightKey",
    "commit",
    "derive",
    "draw_keys",
    "fixed_before",
    "fresh_secret",
    "guard_key",
    "has_keys",
    "marks_opened",
    "open_marks",
    "open_tranche",
    "opened",
    "opened_keys",
    "owner_secret",
    "public_hex",
    "public_pem",
    "read_keys",
    "read_public",
    "read_roots",
    "register",
    "registration_digest",
    "run_secret",
    "signed",
    "signing_file",
    "signing_key",
    "stamp_request",
    "stamped_at",
    "tranche_root",
    "write_keys",
]
