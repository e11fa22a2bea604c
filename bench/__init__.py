"""Side-by-side runs of the sockets tier and its peers in network namespaces; see bench/README.md.

In the tree only, not shipped. ``python -m bench --help`` has the options, ``make bench`` installs what is needed first.
"""
