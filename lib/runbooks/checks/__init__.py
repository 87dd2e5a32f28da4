"""Effects, proven by an independent path: a handshake, an HTTP answer, the Pods that really run.

A check never trusts that the API accepted something. It says what it expected, what it observed, and by which path
it looked; what it could not look at is named as such and never counted as proven.
"""
