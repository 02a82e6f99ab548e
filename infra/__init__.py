"""The platforms that Nightjar runs on: a local Airflow with the embedded EMR, Docker Compose, and AWS.

Also the console command, the service, and ``make setup``.
"""
