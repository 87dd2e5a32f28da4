"""A real Kubernetes control plane on the machine itself, with stand-ins for what a cluster would add to it.

etcd, kube-apiserver and Envoy are the real ones. The operators, the nodes and the application are stand-ins, and the
sandbox says so wherever it describes itself.
"""

__version__ = "0.1.0"
