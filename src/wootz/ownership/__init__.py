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
    ClaimOptions,
    Sealed,
    Walk,
    commit,
    key_context,
    register,
    registration_digest,
    tranche_root,
)
from wootz.ownership.signing import (
    Statement,
    public_hex,
    public_pem,
    read_public,
    sign_statement,
    signing_file,
    signing_key,
    verify_statement,
)
from wootz.ownership.timestamps import check_token, read_roots, timestamp_request, verify_token

__all__ = [
    "AnswerKey",
    "ClaimOptions",
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
    "check_token",
    "commit",
    "derive",
    "draw_keys",
    "key_context",
    "fresh_secret",
    "guard_key",
    "has_keys",
    "marks_opened",
    "open_marks",
    "open_tranche",
    "verify_statement",
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
    "sign_statement",
    "signing_file",
    "signing_key",
    "timestamp_request",
    "tranche_root",
    "verify_token",
    "write_keys",
]
