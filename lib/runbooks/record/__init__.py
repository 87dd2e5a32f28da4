"""Change records: one folder a run, signed, chained, and readable without this project.

A run leaves up to three signed entries: *start* before anything happens, *intent* before anything is changed, and
*result*. A run that vanished is closed by a *recovery*, a notebook that something else executed is an *adoption*.
Plain files are the truth; nothing in here knows a cluster, a notebook engine or a terminal.

The modules, from the ground up: ``durable`` (writing so that a power cut does no harm), ``keys``, ``envelope`` and
``statement`` (what is signed, and how), ``log`` (the order of all entries and its signed head), ``archive`` (the
folder), ``verification``, ``index``, ``export``, ``hygiene``, ``adoption`` and ``page``.
"""
