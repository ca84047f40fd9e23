"""Tables in, tables out: what the events mean. No clock, no I/O, no bcc, no root."""
