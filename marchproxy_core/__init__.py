"""MarchProxy's core: it decides which tier carries which service, and keeps it carried."""
