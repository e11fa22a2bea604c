"""Certificates made on the spot, and contexts of clients and backends that use them."""

from __future__ import annotations

import ssl

import attrs
import trustme

from marchproxy_core.services import Certificate


@attrs.define
class Workshop:
    """Issues certificates into a folder; the same file again overwrites, as renewals do."""

    folder: object
    ca: trustme.CA

    def issue(self, *names, file="cert", **options):
        issued = self.ca.issue_cert(*names, **options)
        pair = Certificate(certificate=str(self.folder / f"{file}.pem"), key=str(self.folder / f"{file}.key"))
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        (self.folder / f"{file}.key").write_bytes(issued.private_key_pem.bytes())
        (self.folder / f"{file}.pem").write_bytes(chain)
        return pair

    def authorities(self, name="ca.pem"):
        path = self.folder / name
        self.ca.cert_pem.write_to_path(str(path))
        return str(path)

    def client(self, *, certificate=None, alpn=(), least=None, most=None):
        """Make a client's context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if certificate:
            context.load_cert_chain(certificate.certificate, certificate.key)
        if alpn:
            context.set_alpn_protocols(alpn)
        if least:
            context.minimum_version = least
        if most:
            context.maximum_version = most
        return context

    def server(self, certificate, *, asks=False):
        """Make a backend's context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        if asks:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
