"""Decoding in separate processes, under limits on CPU time and memory.

For the service, which decodes untrusted pictures. It imports `imaging` alone; a separate package, so that an edit to
it reruns no stage.
"""
