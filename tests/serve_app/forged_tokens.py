"""Tokens that must not be believed, each wrong in one way: name -> the value of the Authorization header.

Written out by hand, since no JWT library makes most of them. `genuine` is the control: the same writer, nothing wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from configs.settings import Settings
from serve_app import revocations, token_keys

Sign = Callable[[bytes], bytes]


def b64(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def written(header: Any, claims: Any, sign: Sign) -> str:
    """header.claims.signature of objects or raw bytes."""
    parts = [b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, claims)]
    return ".".join([*parts, b64(sign(".".join(parts).encode()))])


def hs(secret: bytes, digest: str = "sha256") -> Sign:
    return lambda message: hmac.new(secret, message, digest).digest()


def unsigned(_: bytes) -> bytes:
    return b""


def claims_of(now: int, **changed: Any) -> dict[str, Any]:
    whole = {
        "sub": "t",
        "aud": "lstmc-api",
        "iss": "lstmc",
        "iat": now,
        "exp": now + 600,
        "scope": "read signals",
        "jti": uuid.uuid4().hex,
    }
    return whole | changed


class Forger:
    """Holds what an attacker may know (public keys, kids) and, to be wrong in one way only, also the real keys."""

    def __init__(self, settings: Settings) -> None:
        home = settings.home_path
        for _ in range(3):
            token_keys.rotate(home)
        self.gone, self.older, self.key = token_keys.read_keys(home)[-3:]
        token_keys.retire(home, self.gone.kid)
        self.settings, self.now = settings, int(time.time())
        self.secret = settings.secret("jwt_secret").get_secret_value().encode()
        self.foreign = Ed25519PrivateKey.generate()

    def header(self, **changed: Any) -> dict[str, Any]:
        return {"alg": "EdDSA", "typ": "JWT", "kid": self.key.kid} | changed

    def claims(self, **changed: Any) -> dict[str, Any]:
        return claims_of(self.now, **changed)

    def genuine(self) -> str:
        return written(self.header(), self.claims(), self.key.private.sign)

    def all(self) -> dict[str, bytes]:
        kinds = (self.no_algorithm, self.confused, self.own_key, self.wrong_key, self.wrong_claims, self.wrong_times)
        tokens = {name: token for kind in kinds for name, token in kind().items()}
        tokens |= self.signatures() | self.structure()
        headers = {name: b"Bearer " + token.encode() for name, token in tokens.items()}
        return headers | {name: text.encode() for name, text in self.header_lines().items()}

    def no_algorithm(self) -> dict[str, str]:
        def of(alg: Any, sign: Sign = unsigned) -> str:
            return written(self.header(alg=alg), self.claims(), sign)

        bare = {key: value for key, value in self.header().items() if key != "alg"}
        return {
            **{f"alg {alg!r}": of(alg) for alg in ("none", "None", "NONE", "nOnE", "", " none", None, 0, ["none"], {})},
            "alg none with a good signature": of("none", self.key.private.sign),
            "no alg": written(bare, self.claims(), self.key.private.sign),
            "alg none without kid": written({"alg": "none"}, self.claims(), unsigned),
            "alg in lower case": of("eddsa", self.key.private.sign),
            "alg EdDSA and none": of(["EdDSA", "none"], self.key.private.sign),
        }

    def confused(self) -> dict[str, str]:
        public = self.key.public
        raw, der = public.public_bytes(Encoding.Raw, PublicFormat.Raw), PublicFormat.SubjectPublicKeyInfo
        secrets = {
            "raw": raw,
            "PEM": public.public_bytes(Encoding.PEM, der),
            "PEM without its last line end": public.public_bytes(Encoding.PEM, der).rstrip(),
            "DER": public.public_bytes(Encoding.DER, der),
            "JWK": json.dumps(self.key.jwk()).encode(),
            "x": self.key.jwk()["x"].encode(),
            "nothing": b"",
            "kid": self.key.kid.encode(),
        }
        hs256, claims = self.header(alg="HS256"), self.claims()
        no_kid = {"alg": "HS256", "typ": "JWT"}
        made = {f"HS256 with the public key as {name}": written(hs256, claims, hs(s)) for name, s in secrets.items()}
        made |= {f"HS256 without kid with {name}": written(no_kid, claims, hs(s)) for name, s in secrets.items()}
        for bits in (384, 512):
            made[f"HS{bits} with the local secret"] = written(
                {"alg": f"HS{bits}"}, claims, hs(self.secret, f"sha{bits}")
            )
        made["HS256 of the local secret under the kid of a key"] = written(hs256, claims, hs(self.secret))
        made["HS256 said, EdDSA done"] = written(hs256, claims, self.key.private.sign)
        made["EdDSA said, HS256 done"] = written(self.header(), claims, hs(self.secret))
        made["EdDSA without kid"] = written({"alg": "EdDSA"}, claims, self.key.private.sign)
        made["another name of the algorithm"] = written(self.header(alg="Ed25519"), claims, self.key.private.sign)
        return made | self.other_families()

    def other_families(self) -> dict[str, str]:
        private, curve = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
        pss = padding.PSS(padding.MGF1(SHA256()), 32)

        def es256(message: bytes) -> bytes:
            r, s = decode_dss_signature(curve.sign(message, ec.ECDSA(SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

        def family(alg: str, sign: Sign) -> str:
            return written(self.header(alg=alg), self.claims(), sign)

        return {
            "RS256 of a stranger": family("RS256", lambda m: private.sign(m, padding.PKCS1v15(), SHA256())),
            "PS256 of a stranger": family("PS256", lambda m: private.sign(m, pss, SHA256())),
            "ES256 of a stranger": family("ES256", es256),
            "ES256 of zeros": family("ES256", lambda _: bytes(64)),  # CVE-2022-21449
            "EdDSA of zeros": family("EdDSA", lambda _: bytes(64)),
            "EdDSA of a low order point": family("EdDSA", lambda _: b"\x01" + bytes(63)),
        }

    def own_key(self) -> dict[str, str]:
        raw = self.foreign.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": self.key.kid}
        brought = {
            "jwk": jwk,
            "jku": "https://evil.example/jwks.json",
            "x5u": "https://evil.example/chain.pem",
            "x5c": [b64encode(raw).decode()],
            "x5t": b64(hashlib.sha256(raw).digest()),
            "crit": ["exp"],
            "b64": False,
            "zip": "DEF",
            "cty": "JWT",
            "enc": "A256GCM",
            "unknown": 1,
        }
        made = {}
        for name, value in brought.items():
            made[f"{name} and a stranger's signature"] = written(
                self.header(**{name: value}), self.claims(), self.foreign.sign
            )
            made[f"{name} and a good signature"] = written(
                self.header(**{name: value}), self.claims(), self.key.private.sign
            )
        made["a stranger's signature"] = written(self.header(), self.claims(), self.foreign.sign)
        return made

    def wrong_key(self) -> dict[str, str]:
        home = self.settings.home_path
        kids = {
            "unknown": "20200101T000000Z-00000000",
            "another key's": self.older.kid,
            "a path": f"../jwt_keys/{self.key.kid}",
            "an absolute path": str(token_keys.key_folder(home) / f"{self.key.kid}.pem"),
            "with its ending": f"{self.key.kid}.pem",
            "a query": f"{self.key.kid}' OR '1'='1",
            "a command": f"{self.key.kid}|/bin/sh",
            "with a zero byte": f"{self.key.kid}\0",
            "in upper case": self.key.kid.upper() + "X",
            "empty": "",
            "a number": 7,
            "a list": [self.key.kid],
            "null": None,
            "true": True,
            "an object": {"$ne": ""},
        }
        made = {
            f"kid {name}": written(self.header(kid=kid), self.claims(), self.key.private.sign)
            for name, kid in kids.items()
        }
        for path in ("/dev/null", "../../../../dev/null", "../jwt_secret"):
            made[f"HS256, kid {path}"] = written(self.header(alg="HS256", kid=path), self.claims(), hs(b""))
        made["a retired key"] = written(self.header(kid=self.gone.kid), self.claims(), self.gone.private.sign)
        revoked = self.claims()
        revocations.revoke(home, revoked["jti"], datetime.now(UTC) + timedelta(minutes=10))
        made["revoked"] = written(self.header(), revoked, self.key.private.sign)
        return made

    def wrong_claims(self) -> dict[str, str]:
        changed: dict[str, dict[str, Any]] = {
            "aud of another": {"aud": "another"},
            "aud as a list": {"aud": ["lstmc-api", "another"]},
            "aud in upper case": {"aud": "LSTMC-API"},
            "aud as a number": {"aud": 1},
            "iss of another": {"iss": "another"},
            "iss as an address": {"iss": "https://lstmc"},
            "iss as a list": {"iss": ["lstmc"]},
            "sub empty": {"sub": ""},
            "sub blank": {"sub": "  "},
            "sub a number": {"sub": 7},
            "sub an object": {"sub": {"a": 1}},
            "sub endless": {"sub": "s" * 129},
            "scope a list": {"scope": ["read"]},
            "scope empty": {"scope": ""},
            "scope unknown": {"scope": "write root"},
            "scope with commas": {"scope": "read,signals"},
            "scope in upper case": {"scope": "READ"},
            "jti empty": {"jti": ""},
            "jti a number": {"jti": 1},
            "jti a list": {"jti": ["a"]},
        }
        made = {name: written(self.header(), self.claims(**c), self.key.private.sign) for name, c in changed.items()}
        for name in ("exp", "iat", "aud", "iss", "sub", "scope", "jti"):
            less = {key: value for key, value in self.claims().items() if key != name}
            made[f"no {name}"] = written(self.header(), less, self.key.private.sign)
            made[f"{name} null"] = written(self.header(), self.claims(**{name: None}), self.key.private.sign)
        return made

    def wrong_times(self) -> dict[str, str]:
        now = self.now
        changed: dict[str, dict[str, Any]] = {
            "expired": {"exp": now - 61, "iat": now - 600},
            "expired long ago": {"exp": 1, "iat": 0},
            "exp before iat": {"exp": now + 10, "iat": now + 20},
            "exp negative": {"exp": -1},
            "exp zero": {"exp": 0},
            "exp text": {"exp": str(now + 600)},
            "exp a date": {"exp": "2099-01-01T00:00:00Z"},
            "exp huge": {"exp": 10**12},
            "exp huger than a float": {"exp": 10**400},
            "exp a fraction": {"exp": now + 600.5},
            "exp true": {"exp": True},
            "exp a list": {"exp": [now + 600]},
            "exp an object": {"exp": {}},
            "exp NaN": {"exp": float("nan")},
            "exp infinite": {"exp": float("inf")},
            "iat in the future": {"iat": now + 120},
            "iat text": {"iat": str(now)},
            "iat negative": {"iat": -(10**9)},
            "iat NaN": {"iat": float("nan")},
            "nbf in the future": {"nbf": now + 120},
            "nbf text": {"nbf": "soon"},
            "nbf null": {"nbf": None},
            "nbf infinite": {"nbf": float("-inf")},
        }
        made = {name: written(self.header(), self.claims(**c), self.key.private.sign) for name, c in changed.items()}
        overflow = json.dumps(self.claims()).replace(f'"exp": {now + 600}', '"exp": 1e999').encode()
        return made | {"exp 1e999": written(self.header(), overflow, self.key.private.sign)}

    def signatures(self) -> dict[str, str]:
        token = self.genuine()
        header, claims, signature = token.split(".")
        other = self.genuine().split(".")[2]
        last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        # 64 bytes are 86 letters, of which the last carries four bits that mean nothing.
        lenient = signature[:-1] + last[last.index(signature[-1]) + 1]
        more = b64(json.dumps(self.claims(scope="read signals admin")).encode())
        return {
            "signature stripped": f"{header}.{claims}.",
            "signature and its dot stripped": f"{header}.{claims}",
            "signature of another token": f"{header}.{claims}.{other}",
            "signature with a flipped byte": f"{header}.{claims}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}",
            "signature cut": f"{header}.{claims}.{signature[:-4]}",
            "signature doubled": f"{header}.{claims}.{signature}{signature}",
            "signature written leniently": f"{header}.{claims}.{lenient}",
            "signature padded": f"{token}==",
            "claims exchanged": f"{header}.{more}.{signature}",
            "claims padded": f"{header}.{claims}=.{signature}",
            "header exchanged": f"{b64(json.dumps(self.header(typ='JWT', kid=self.older.kid)).encode())}.{claims}.{signature}",
            "header and claims exchanged": f"{claims}.{header}.{signature}",
        }

    def structure(self) -> dict[str, str]:
        token, sign = self.genuine(), self.key.private.sign
        header, claims, signature = token.split(".")
        good, said = json.dumps(self.header()), json.dumps(self.claims())

        def twice(text: str, more: str) -> bytes:
            return (text[:-1] + f", {more}}}").encode()

        return {
            "a further segment": f"{token}.{signature}",
            "an empty further segment": f"{token}.",
            "five segments": f"{header}..{claims}.{signature}.AAAA",
            "dots only": "..",
            "one word": "not-a-token",
            "empty header": f".{claims}.{signature}",
            "empty claims": f"{header}..{signature}",
            "oversized": written(self.header(), self.claims(more="x" * 4000), sign),
            "oversized by far": "eyJ" + "A" * 60_000 + f".{claims}.{signature}",
            "oversized signature": f"{token}{'A' * 4096}",
            "header a list": written([self.header()], self.claims(), sign),
            "header text": written("header", self.claims(), sign),
            "header null": written(None, self.claims(), sign),
            "header endlessly deep": written(b"[" * 1900, self.claims(), sign),
            "header cut": written(good[:-1].encode(), self.claims(), sign),
            "header not UTF-8": written(b"\xff\xfe" + good.encode(), self.claims(), sign),
            "claims a list": written(self.header(), [self.claims()], sign),
            "claims a number": written(self.header(), 7, sign),
            "claims endlessly deep": written(self.header(), b'{"a":' * 500 + b"1", sign),
            "claims in UTF-16": written(self.header(), said.encode("utf-16"), sign),
            "claims with a byte order mark": written(self.header(), b"\xef\xbb\xbf" + said.encode(), sign),
            "alg twice": written(twice(good, '"alg": "EdDSA"'), self.claims(), sign),
            "kid twice": written(twice(good, f'"kid": "{self.key.kid}"'), self.claims(), sign),
            "alg twice, escaped": written(twice(good, '"\\u0061lg": "none"'), self.claims(), sign),
            "sub twice": written(self.header(), twice(said, '"sub": "admin"'), sign),
            "exp twice": written(self.header(), twice(said, f'"exp": {self.now + 900}'), sign),
            "typ of another kind": written(self.header(typ="at+jwt"), self.claims(), sign),
            "typ a number": written(self.header(typ=1), self.claims(), sign),
            "a letter beyond ASCII": token[:20] + "é" + token[21:],
            "full-width dots": token.replace(".", "．"),
            "an invisible letter": token[:20] + "\u200b" + token[20:],
            "a space inside": token[:20] + " " + token[20:],
            "a line end inside": token[:20] + "\n" + token[20:],
            "a tab before": "\t" + token,
            "a zero byte at the end": token + "\0",
            "in quotes": f'"{token}"',
            "URL-encoded": token.replace(".", "%2E"),
        }

    def header_lines(self) -> dict[str, str]:
        good, bad = self.genuine(), written(self.header(), self.claims(), self.foreign.sign)
        return {
            "lower-case bearer, forged": f"bearer {bad}",
            "odd-case bearer, forged": f"bEaReR {bad}",
            "no scheme": good,
            "scheme Token": f"Token {good}",
            "scheme Basic": f"Basic {good}",
            "scheme JWT": f"JWT {good}",
            "bearer with a colon": f"Bearer: {good}",
            "bearer with an equals sign": f"Bearer={good}",
            "bearer with a tab": f"Bearer\t{good}",
            "bearer twice": f"Bearer Bearer {good}",
            "two tokens": f"Bearer {bad}, Bearer {good}",
            "a list of tokens": f"Bearer {good},{good}",
            "nothing after bearer": "Bearer ",
            "spaces only": "   ",
            "empty": "",
        }
