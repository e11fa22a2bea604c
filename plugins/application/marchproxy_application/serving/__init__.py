"""Requests on their way: a client's connection, what becomes of each request, and the service that it is for."""
