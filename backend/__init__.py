"""The Fog Compute backend: the host application that adopts Indelible as its integration guide says."""
