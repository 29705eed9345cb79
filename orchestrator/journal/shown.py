"""Addresses of journals as they may be shown: to people, in logs and in errors."""

import re

_SECRETS = re.compile(r"(?i)((?:pass|password|sslpassword)=)[^&\s]*")
_USER = re.compile(r"(?s)(\w+://[^:/?]*):.*@")  # to the last @: what a wrongly written password leaves behind is its part as well


def shown(address: str) -> str:
    """``address`` without the password that a URL may hold."""
    if "://" not in address:
        return address
    return _SECRETS.sub(r"\1***", _USER.sub(r"\1:***@", address))
