"""Process 1 of a container in tests: makes process 7, which connects on its own loopback.

Reads lines `PORT` from standard input, connects there and writes `PORT ERRNO`; listens on 8080
itself. `THREADS` lines `hold PORT` are not needed: whoever wants more starts more.
"""
