"""The image and the containers of ``docker-compose.yaml``."""
