"""A trace in the formats of other tools: a function a format, bytes in pieces that can be written.

Nothing here opens a file: whoever does that decides where the bytes go.
"""
