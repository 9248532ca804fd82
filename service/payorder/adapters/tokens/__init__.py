"""Access tokens: JWTs of the configured issuers, verified against their published keys (RFC 7519, RFC 8725, RFC 9068).

Only asymmetric algorithms exist here. A token can neither choose nor bring its key: its `iss` picks one of the
configured issuers, its `kid` one of that issuer's keys, and each key is bound to one algorithm.
"""
