"""Decoding in processes of their own, under limits on CPU time and memory.

For the service, which decodes untrusted pictures. It imports `imaging` alone; a package of its own, so that an edit to
it reruns no stage.
"""
