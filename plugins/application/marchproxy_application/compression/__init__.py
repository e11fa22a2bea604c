"""Content codings that answers are given for who asks for them (RFC 9110, sections 8.4 and 12.5.3). Pure."""
