"""Many hosts' recordings: each summed up where it is read, the sums put together.

    path ──reading──> Trace ──slices──> Slice ──merge──> Fleet ──compare, outliers──> render
           (on a worker, one at a time)      (small, bounded)

`slices` uses on each recording what a single host's report uses; what leaves a worker is a
`Slice` of some tens of kB, whatever the recording's size.
"""
