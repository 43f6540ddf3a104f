"""The last line of defence against secrets in logs.

Code does not log secrets in the first place; this catches what slips through in a
message, an extra field or a traceback: session tokens, bearer headers, invites, and
values beside names such as ``password``.
"""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

SECRET_CHARS_MIN = 6
"""A shorter secret would hide parts of ordinary words, and so tell what it is."""

_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_API_KEY = re.compile(r"\bpk_[0-9a-f]{16}_[A-Za-z0-9_-]{20,}")
_INVITE = re.compile(r"(?i)\bpeerchat:[A-Za-z0-9_-]{40,}")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[^\s\"',;]+")
# After a colon a sentence may follow: "passwd: not a GGUF file".
_NAMED = re.compile(
    r"""(?ix)
    ( ["']? [\w-]*
      (?: password | passphrase | passwd | secret | token | authorization | api_?key )
      ["']? \s* [:=] \s* )
    (?! (?<=:[ ]) (?: cannot | is | must | no | not | too | was ) [ ] [a-z] )
    (?: b? "(?:[^"\\]|\\.)*"
      | b? '(?:[^'\\]|\\.)*'
      | (?!\s|["']|\[hidden\]) [^\s,;}\]&)]+ )
    """
)


class Redactor:
    """Hides what looks like a secret, and the secrets that it was told of."""

    def __init__(self) -> None:
        self._known: list[str] = []

    def learn(self, *secrets: str) -> None:
        """Hide these wherever they stand; too short ones are not taken."""
        known = {*self._known, *(s for s in secrets if len(s) >= SECRET_CHARS_MIN)}
        self._known = sorted(known, key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Give the text with every secret in it hidden."""
        for secret in self._known:
            text = text.replace(secret, HIDDEN)
        text = _JWT.sub(HIDDEN, text)
        text = _API_KEY.sub(HIDDEN, text)
        text = _INVITE.sub(HIDDEN, text)
        text = _BEARER.sub(rf"\g<1>{HIDDEN}", text)
        return _NAMED.sub(rf"\g<1>{HIDDEN}", text)
