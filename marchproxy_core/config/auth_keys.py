"""The keys of a service about who its clients are."""

from __future__ import annotations

import attrs

from marchproxy_core.config.choices import DAY_S
from marchproxy_core.config.declare import setting
from marchproxy_core.config.http_kinds import ForwardedClaim
from marchproxy_core.config.kinds import Duration, ListOf, OneOf, Text
from marchproxy_core.services import AuthType

FILE = Text("the path of a file", r"[^\0\r\n]{1,4095}")
ALGORITHM = Text("an algorithm", r"(?:HS|RS|PS|ES)(?:256|384|512)|EdDSA")
CLAIM = Text("the name of a claim", r"[^\0-\x1f\x7f,]{1,256}")


@attrs.frozen(kw_only=True)
class AuthKeys:
    """Keys about authentication."""

    auth_type: AuthType = setting(OneOf(AuthType), AuthType.NONE, "How clients prove who they are.")
    auth_issuer: str | None = setting(
        Text("an issuer", r"[^\0\r\n]{1,1024}"), None, "Issuer that tokens must name.", unset="any"
    )
    auth_audience: tuple[str, ...] = setting(
        ListOf(Text("an audience", r"[^\0\r\n,]{1,1024}"), "audiences"),
        (),
        "Audiences of which tokens must name one.",
        unset="any",
    )
    auth_keys: tuple[str, ...] = setting(
        ListOf(FILE, "paths of PEM or JWK files"), (), "Keys that tokens are checked with.", unset="none"
    )
    auth_jwks_url: str | None = setting(
        Text("an http or https URL", r"https?://[!-~]{1,2000}"),
        None,
        "Where those keys are fetched.",
        unset="none",
    )
    auth_jwks_refresh: float = setting(
        Duration(10, DAY_S),
        300.0,
        "How long fetched keys are taken for fresh that do not say so themselves.",
    )
    auth_algorithms: tuple[str, ...] = setting(
        ListOf(
            ALGORITHM, "algorithms (HS256, HS384, HS512, the same with RS, PS and ES, EdDSA; as written here)"
        ),
        (),
        "What tokens may be signed by; a key is only ever used for what its type allows.",
        unset="all that a key's type allows",
    )
    auth_leeway: float = setting(
        Duration(0, 3600), 30.0, "How far the issuer's clock may be from this host's."
    )
    auth_required_claims: tuple[str, ...] = setting(
        ListOf(CLAIM, "names of claims"), (), "Claims that tokens must have.", unset="none"
    )
    auth_forward_claims: tuple[tuple[str, str], ...] = setting(
        ListOf(ForwardedClaim(), "claims and headers as sub: X-User"),
        (),
        "Claims that backends get as headers; what clients send under these names is dropped.",
        unset="none",
    )
