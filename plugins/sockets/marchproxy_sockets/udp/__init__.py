"""The UDP relay: ``service`` reads clients, ``flow`` is one of them, ``batch`` moves many datagrams a call."""
