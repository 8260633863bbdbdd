"""Keys, the registration they are drawn after, and their folder: formats only, no training, no queries."""

from wootz.keys.answers import key_from_log
from wootz.keys.folder import OwnerKeys, draw_keys, fresh_secret, has_keys, read_keys, write_keys
from wootz.keys.keys import (
    AnswerKey,
    DirectionKey,
    HalfKey,
    Key,
    LabelKey,
    PreferenceKey,
    RegisteredMaterial,
    WeightKey,
    derive,
    open_tranche,
)
from wootz.keys.owner import owner_secret, run_secret
from wootz.keys.registration import (
    BoundarySearchTerms,
    ClaimOptions,
    CommitmentOpening,
    commit,
    key_context,
    register,
    registration_digest,
    tranche_root,
)
from wootz.keys.reveal import rederive_keys, reveal_marks, revealed_marks
from wootz.keys.signing import (
    Statement,
    public_hex,
    public_pem,
    read_public,
    sign_statement,
    signing_file,
    signing_key,
    verify_statement,
)
from wootz.keys.timestamps import check_token, read_roots, timestamp_request, verify_token

__all__ = [
    "AnswerKey",
    "ClaimOptions",
    "DirectionKey",
    "HalfKey",
    "Key",
    "OwnerKeys",
    "LabelKey",
    "RegisteredMaterial",
    "PreferenceKey",
    "CommitmentOpening",
    "Statement",
    "BoundarySearchTerms",
    "WeightKey",
    "check_token",
    "commit",
    "derive",
    "draw_keys",
    "key_context",
    "fresh_secret",
    "key_from_log",
    "has_keys",
    "revealed_marks",
    "reveal_marks",
    "open_tranche",
    "verify_statement",
    "rederive_keys",
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
