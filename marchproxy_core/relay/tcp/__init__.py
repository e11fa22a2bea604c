"""The TCP relay: ``service`` accepts, ``connection`` finds a backend and ends things, ``end`` moves bytes."""
