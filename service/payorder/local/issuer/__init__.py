"""The development issuer: its keys and tokens here, its server in `server`. Refused in production.

Made-up users (`accounts`) log in on a page (`pages`), and Authlib does the OAuth (`oauth`).
"""

from payorder.local.issuer.signing import ALGORITHM, TOKEN_SECONDS, Issuer, url_at

__all__ = ["ALGORITHM", "TOKEN_SECONDS", "Issuer", "url_at"]
