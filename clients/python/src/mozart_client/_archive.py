"""Where finished messages are that have left the journal: INDEX and HISTORY. Pure."""

from __future__ import annotations

import json
import uuid
from typing import Any, Dict, List, Mapping, Optional, Tuple

_OTHERS = uuid.UUID(int=0x1D7B60F153A84C529E0C2A6F0B8D9C41)
"""The namespace of what ids of other shapes are made 16 bytes long with."""
_ENTRY = 24


def _uuid_of(message_id: str) -> Optional[uuid.UUID]:
    """An id that is a UUID and is written as such."""
    try:
        found = uuid.UUID(message_id)
    except ValueError:
        return None
    return found if str(found) == message_id else None


def _bytes_of(message_id: str) -> bytes:
    return (_uuid_of(message_id) or uuid.uuid5(_OTHERS, message_id)).bytes


def part_of(message_id: str) -> str:
    """The part of INDEX that an id is in."""
    found = _uuid_of(message_id)
    # The version alone: of other variants, `UUID.version` is none.
    if found is not None and found.int >> 76 & 0xF == 7:
        return f"t{(found.int >> 80) >> 12}"
    return f"h{_bytes_of(message_id)[-1] & 0xF:x}"


def places(message_id: str, payload: bytes) -> List[int]:
    """The sequences in HISTORY that a record of INDEX has for an id."""
    wanted = _bytes_of(message_id)
    entries = (payload[at : at + _ENTRY] for at in range(0, len(payload) - _ENTRY + 1, _ENTRY))
    return [int.from_bytes(entry[16:], "big") for entry in entries if entry[:16] == wanted]


Part = Tuple[str, int, Mapping[str, str], bytes]
"""A record of HISTORY: its subject, sequence, headers and payload."""


def message(records: List[Part]) -> Optional[Dict[str, Any]]:
    """The message that begins with the first of these records: `key`, `request`, `final`. None if it is not there as a whole."""
    if not records:
        return None
    whole: Dict[str, Any] = {}
    subject, seq, headers, payload = records[0]
    parts = [payload]
    if "Mozart-Part" in headers:
        if len(records) < 2 or headers["Mozart-Part"] != "1":
            return None
        next_subject, next_seq, next_headers, next_payload = records[1]
        if (next_subject, next_seq, next_headers.get("Mozart-Part")) != (subject, seq + 1, "2"):
            return None
        parts.append(next_payload)
    for part in parts:
        try:
            read = json.loads(part)
        except ValueError:
            return None
        whole.update({name: value for name, value in read.items() if value is not None})
    return whole if "key" in whole and "final" in whole else None
