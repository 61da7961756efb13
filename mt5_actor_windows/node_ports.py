"""The Windows node's ports, fixed so that a firewall can name them; the install scripts and the docs name the same ones.

Knows nothing else. The head's own ports are settings; the Windows node's are not, since its firewall rules outlive a run.
"""

NODE_MANAGER = 10010
OBJECT_MANAGER = 10011
AGENT_LISTEN = 10012
AGENT_GRPC = 10013
METRICS = 10014
WORKERS = (10100, 10199)  # first and last
DATA_API = 8001
