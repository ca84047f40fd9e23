"""From the kernel to a table of events: load, attach, decode, order, name.

Only `probe` knows bcc and only `sockets` knows netlink; neither is imported here.
"""
