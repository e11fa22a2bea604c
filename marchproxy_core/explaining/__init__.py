"""What would become of one request under a configuration, and why: decided without a daemon, and without I/O."""
