"""`python -m porttrace.cli`: the same as the command `porttrace`."""

import sys

from porttrace.cli import main

sys.exit(main())
