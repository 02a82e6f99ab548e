"""The containers of ``docker-compose.yaml``."""
