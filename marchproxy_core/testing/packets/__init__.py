"""The packet table: what the packet engine must do, as rows that every build of it is held to."""
