"""The packet table: what the packet engine must do, as rows that every build of it is held to.

A row (``row.py``) is a sentence, the engine's tables (``world.py``) and steps: a frame that comes in, and what comes
out. The rows are in ``table/``, by subject, and made by scapy (``frames.py``). ``places.py`` says where everything is.
``plain_engine.py`` and ``kernel_engine.py`` drive the builds, ``running.py`` runs rows on one of them, ``agreeing.py``
runs frames on several in step, ``sanitized.py`` under AddressSanitizer.

Importing this package needs nothing but the core.
"""
