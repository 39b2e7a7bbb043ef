"""DOCKER: a container per attempt, on a Docker Engine or Podman's compatible socket."""
