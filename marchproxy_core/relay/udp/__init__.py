"""The UDP relay: ``service`` reads clients, ``flow`` is one of them and reads its backend."""
