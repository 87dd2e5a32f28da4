"""Runbooks that integrate Service Mesh with OpenShift Serverless (documented section 6.4).

A notebook imports one name from here::

    from runbooks import open_runbook

Everything else is reached through the runbook which that function returns.
"""

from runbooks.step import Runbook, open_runbook

__all__ = ["Runbook", "open_runbook"]
__version__ = "0.1.0"
