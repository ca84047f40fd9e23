"""The lab: real throttles, real servers and real workloads, to see porttrace at work.

Everything runs in network namespaces that the lab makes and removes itself, on documentation
addresses. Nothing here imports the tracer: the lab makes the illness, porttrace finds it.
"""
