"""Keys, the registration that precedes them, their files and signed statements; no training and no queries."""

from wootz.keys.answer_log import key_from_log
from wootz.keys.folder import OwnerKeys, draw_keys, has_keys, read_keys, write_keys
from wootz.keys.keys import (
    AnswerKey,
    DirectionKey,
    HalfKey,
    Key,
    LabelKey,
    PreferenceKey,
    WeightKey,
    derive_key,
    open_tranche,
)
from wootz.keys.material import RegisteredMaterial
from wootz.keys.owner import (
    fresh_secret,
    owner_secret,
    public_hex,
    public_pem,
    read_public,
    run_secret,
    signing_file,
    signing_key,
)
from wootz.keys.registration import (
    BoundarySearchTerms,
    ClaimOptions,
    CommitmentOpening,
    check_protocol,
    commit,
    key_context,
    register,
    registration_digest,
    tranche_root,
)
from wootz.keys.reveal import rederive_keys, reveal_marks, revealed_marks
from wootz.keys.signing import Statement, sign_statement, verify_statement
from wootz.keys.timestamps import check_token, read_roots, timestamp_request, verify_token

__all__ = [
    "AnswerKey",
    "BoundarySearchTerms",
    "ClaimOptions",
    "CommitmentOpening",
    "DirectionKey",
    "HalfKey",
    "Key",
    "LabelKey",
    "OwnerKeys",
    "PreferenceKey",
    "RegisteredMaterial",
    "Statement",
    "WeightKey",
    "check_token",
    "commit",
    "derive_key",
    "draw_keys",
    "fresh_secret",
    "has_keys",
    "key_context",
    "key_from_log",
    "open_tranche",
    "owner_secret",
    "public_hex",
    "public_pem",
    "read_keys",
    "read_public",
    "read_roots",
    "rederive_keys",
    "register",
    "check_protocol",
    "registration_digest",
    "reveal_marks",
    "revealed_marks",
    "run_secret",
    "sign_statement",
    "signing_file",
    "signing_key",
    "timestamp_request",
    "tranche_root",
    "verify_statement",
    "verify_token",
    "write_keys",
]
